"""Defenses: objectives for training, and wrappers that make a classifier out of a classifier."""

from aisec_lab.defenses.augmented import Augmented
from aisec_lab.defenses.backdoors.neural_cleanse import Inspection, NeuralCleanse
from aisec_lab.defenses.backdoors.pruning import FinePruning, Repair
from aisec_lab.defenses.backdoors.strip import STRIP
from aisec_lab.defenses.backdoors.unlearning import IBAU
from aisec_lab.defenses.backdoors.unstamping import Unstamping
from aisec_lab.defenses.bounds.margins import crown_margin, ibp_margin
from aisec_lab.defenses.bounds.training import IBP, IntervalLoss
from aisec_lab.defenses.detectors import Detector, Energy, FeatureSqueezing, Fitted
from aisec_lab.defenses.distances import LID, Mahalanobis, NearestNeighbours
from aisec_lab.defenses.distillation import Distillation, Tempered
from aisec_lab.defenses.ensembles import Averaged, Ensemble
from aisec_lab.defenses.fast import FastAdversarialTraining, OverfittingProbe
from aisec_lab.defenses.inputs import JPEG, BitDepth, MedianFilter, Undefended
from aisec_lab.defenses.noise_training import GaussianNoise, SmoothAdv
from aisec_lab.defenses.poisoning.clustering import ActivationClustering
from aisec_lab.defenses.poisoning.impact import Impact
from aisec_lab.defenses.poisoning.neighbours import NeighbourAgreement
from aisec_lab.defenses.poisoning.partition import PartitionAggregation, Voting, certified_rows
from aisec_lab.defenses.poisoning.spectral import SpectralSignatures
from aisec_lab.defenses.poisoning.suspicion import Sanitizer, Suspicion
from aisec_lab.defenses.poisoning.trim import Trim
from aisec_lab.defenses.poisoning.untangling import Untangling
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
    "IBAU",
    "IBP",
    "JPEG",
    "LID",
    "MART",
    "STRIP",
    "TRADES",
    "ActivationClustering",
    "AdversarialTraining",
    "Augmentation",
    "Augmented",
    "Averaged",
    "BitDepth",
    "Certificate",
    "Detector",
    "Distillation",
    "Energy",
    "Ensemble",
    "FastAdversarialTraining",
    "FeatureSqueezing",
    "FinePruning",
    "Fitted",
    "Free",
    "GaussianNoise",
    "Guided",
    "Impact",
    "Inspection",
    "IntervalLoss",
    "Mahalanobis",
    "MaskedWords",
    "MedianFilter",
    "NearestNeighbours",
    "NeighbourAgreement",
    "NeuralCleanse",
    "Normalisation",
    "OverfittingProbe",
    "PartitionAggregation",
    "RandomMasking",
    "RandomResizing",
    "RejectOption",
    "Rejecting",
    "Repair",
    "Sanitizer",
    "SmoothAdv",
    "Smoothed",
    "Smoothing",
    "SpectralSignatures",
    "SpellChecking",
    "Standard",
    "Suspicion",
    "Tempered",
    "TextDefense",
    "TotalVariation",
    "Trim",
    "Undefended",
    "UndefendedText",
    "Unstamping",
    "Untangling",
    "Voting",
    "WarmStart",
    "WordCertificate",
    "calibrated",
    "certified_rows",
    "certify",
    "certify_words",
    "crown_margin",
    "ibp_margin",
    "predict",
    "radius_cap",
    "scores_of",
    "threshold_at",
]
