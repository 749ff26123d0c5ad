"""Defenses: objectives for training, and wrappers that make a classifier out of a classifier."""

from aisec_lab.defenses.bounds.margins import crown_margin, ibp_margin
from aisec_lab.defenses.bounds.training import IBP, IntervalLoss
from aisec_lab.defenses.detectors import Detector, Energy, FeatureSqueezing, Fitted
from aisec_lab.defenses.distances import LID, Mahalanobis, NearestNeighbours
from aisec_lab.defenses.distillation import Distillation, Tempered
from aisec_lab.defenses.ensembles import Averaged, Ensemble
from aisec_lab.defenses.fast import FastAdversarialTraining, OverfittingProbe
from aisec_lab.defenses.inputs import JPEG, BitDepth, MedianFilter, Undefended
from aisec_lab.defenses.noise_training import GaussianNoise, SmoothAdv
from aisec_lab.defenses.randomised import RandomResizing
from aisec_lab.defenses.rejection import Rejecting, RejectOption, calibrated, scores_of, threshold_at
from aisec_lab.defenses.smoothing import Smoothed, Smoothing
from aisec_lab.defenses.smoothing_certificate import ABSTAIN, Certificate, certify, predict, radius_cap
from aisec_lab.defenses.steps import AWP, Free, Guided
from aisec_lab.defenses.text.augmentation import Augmentation
from aisec_lab.defenses.text.defense import TextDefense, UndefendedText
from aisec_lab.defenses.text.masking import MaskedWords, RandomMasking
from aisec_lab.defenses.text.masking_certificate import WordCertificate, certify_words
from aisec_lab.defenses.text.normalisation import Normalisation
from aisec_lab.defenses.text.spelling import SpellChecking
from aisec_lab.defenses.training import MART, TRADES, AdversarialTraining, Standard
from aisec_lab.defenses.variation import TotalVariation
from aisec_lab.defenses.warm_start import WarmStart

__all__ = [
    "ABSTAIN",
    "AWP",
    "IBP",
    "JPEG",
    "LID",
    "MART",
    "TRADES",
    "AdversarialTraining",
    "Augmentation",
    "Averaged",
    "BitDepth",
    "Certificate",
    "Detector",
    "Distillation",
    "Energy",
    "Ensemble",
    "FastAdversarialTraining",
    "FeatureSqueezing",
    "Fitted",
    "Free",
    "GaussianNoise",
    "Guided",
    "IntervalLoss",
    "Mahalanobis",
    "MaskedWords",
    "MedianFilter",
    "NearestNeighbours",
    "Normalisation",
    "OverfittingProbe",
    "RandomMasking",
    "RandomResizing",
    "RejectOption",
    "Rejecting",
    "SmoothAdv",
    "Smoothed",
    "Smoothing",
    "SpellChecking",
    "Standard",
    "Tempered",
    "TextDefense",
    "TotalVariation",
    "Undefended",
    "UndefendedText",
    "WarmStart",
    "WordCertificate",
    "calibrated",
    "certify",
    "certify_words",
    "crown_margin",
    "ibp_margin",
    "predict",
    "radius_cap",
    "scores_of",
    "threshold_at",
]
