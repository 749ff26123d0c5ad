"""Defenses: objectives for training, and wrappers that make a classifier out of a classifier."""

from aisec_lab.defenses.inputs import JPEG, BitDepth, MedianFilter, Undefended
from aisec_lab.defenses.training import TRADES, AdversarialTraining, Standard

__all__ = ["JPEG", "TRADES", "AdversarialTraining", "BitDepth", "MedianFilter", "Standard", "Undefended"]
