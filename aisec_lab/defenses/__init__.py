"""Defenses: objectives for training, and wrappers that make a classifier out of a classifier."""

from aisec_lab.defenses.augmented import Augmented
from aisec_lab.defenses.backdoors.neural_cleanse import Inspection, NeuralCleanse
from aisec_lab.defenses.backdoors.pruning import FinePruning, Repair
from aisec_lab.defenses.backdoors.strip import STRIP
from aisec_lab.defenses.backdoors.unlearning import IBAU
from aisec_lab.defenses.backdoors.unstamping import Unstamping
from aisec_lab.defenses.bounds.margins import crown_margin, ibp_margin
from aisec_lab.defenses.bounds.training import IBP, IntervalLoss
from aisec_lab.defenses.compression.compression import Compression, InTurn
from aisec_lab.defenses.compression.magnitude import MagnitudePruning
from aisec_lab.defenses.compression.quantisation import DynamicInt8, StaticInt8, WeightOnly
from aisec_lab.defenses.compression.robust import RobustPruning
from aisec_lab.defenses.compression.structured import StructuredPruning
from aisec_lab.defenses.compression.student import Student
from aisec_lab.defenses.detectors import Detector, Energy, FeatureSqueezing, Fitted
from aisec_lab.defenses.distances import LID, Mahalanobis, NearestNeighbours
from aisec_lab.defenses.distillation import Distillation, Tempered
from aisec_lab.defenses.ensembles import Averaged, Ensemble
from aisec_lab.defenses.fast import FastAdversarialTraining, OverfittingProbe
from aisec_lab.defenses.inputs import JPEG, BitDepth, MedianFilter, Undefended
from aisec_lab.defenses.monitors.prada import Prada
from aisec_lab.defenses.monitors.rate import RateBudget
from aisec_lab.defenses.monitors.similarity import SimilarityDetector
from aisec_lab.defenses.monitors.watch import QueryMonitor, first_alarm
from aisec_lab.defenses.noise_training import GaussianNoise, SmoothAdv
from aisec_lab.defenses.outputs.coarse import LabelsOnly, Rounded, TopK
from aisec_lab.defenses.outputs.misinformation import AdaptiveMisinformation
from aisec_lab.defenses.outputs.perturbed import OutputNoise, ReverseSigmoid, Softened
from aisec_lab.defenses.outputs.poisoning import PredictionPoisoning
from aisec_lab.defenses.ownership.activations import ActivationMark
from aisec_lab.defenses.ownership.boundary import BoundaryFingerprint
from aisec_lab.defenses.ownership.conferrable import Conferrable
from aisec_lab.defenses.ownership.dataset_inference import DatasetInference
from aisec_lab.defenses.ownership.entangled import EntangledWatermark
from aisec_lab.defenses.ownership.fingerprints import Fingerprint, Fingerprinting
from aisec_lab.defenses.ownership.ipguard import IPGuard
from aisec_lab.defenses.ownership.key import Key
from aisec_lab.defenses.ownership.margins import BlindWalk, MinGD
from aisec_lab.defenses.ownership.removal import Compressed, Extracted, FineTuning, Overwriting
from aisec_lab.defenses.ownership.served import ServedMark
from aisec_lab.defenses.ownership.trigger_set import TriggerSet
from aisec_lab.defenses.ownership.watermark import Marked, Watermark
from aisec_lab.defenses.ownership.weight_fingerprint import WeightFingerprint
from aisec_lab.defenses.ownership.weights import WeightMark
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
    "ActivationMark",
    "AdaptiveMisinformation",
    "AdversarialTraining",
    "Augmentation",
    "Augmented",
    "Averaged",
    "BitDepth",
    "BlindWalk",
    "BoundaryFingerprint",
    "Certificate",
    "Compressed",
    "Compression",
    "Conferrable",
    "DatasetInference",
    "Detector",
    "Distillation",
    "DynamicInt8",
    "Energy",
    "Ensemble",
    "EntangledWatermark",
    "Extracted",
    "FastAdversarialTraining",
    "FeatureSqueezing",
    "FinePruning",
    "FineTuning",
    "Fingerprint",
    "Fingerprinting",
    "Fitted",
    "Free",
    "GaussianNoise",
    "Guided",
    "IPGuard",
    "Impact",
    "InTurn",
    "Inspection",
    "IntervalLoss",
    "Key",
    "LabelsOnly",
    "MagnitudePruning",
    "Mahalanobis",
    "Marked",
    "MaskedWords",
    "MedianFilter",
    "MinGD",
    "NearestNeighbours",
    "NeighbourAgreement",
    "NeuralCleanse",
    "Normalisation",
    "OutputNoise",
    "OverfittingProbe",
    "Overwriting",
    "PartitionAggregation",
    "Prada",
    "PredictionPoisoning",
    "QueryMonitor",
    "RandomMasking",
    "RandomResizing",
    "RateBudget",
    "RejectOption",
    "Rejecting",
    "Repair",
    "ReverseSigmoid",
    "RobustPruning",
    "Rounded",
    "Sanitizer",
    "ServedMark",
    "SimilarityDetector",
    "SmoothAdv",
    "Smoothed",
    "Smoothing",
    "Softened",
    "SpectralSignatures",
    "SpellChecking",
    "Standard",
    "StaticInt8",
    "StructuredPruning",
    "Student",
    "Suspicion",
    "Tempered",
    "TextDefense",
    "TopK",
    "TotalVariation",
    "TriggerSet",
    "Trim",
    "Undefended",
    "UndefendedText",
    "Unstamping",
    "Untangling",
    "Voting",
    "WarmStart",
    "Watermark",
    "WeightFingerprint",
    "WeightMark",
    "WeightOnly",
    "WordCertificate",
    "calibrated",
    "certified_rows",
    "certify",
    "certify_words",
    "crown_margin",
    "first_alarm",
    "ibp_margin",
    "predict",
    "radius_cap",
    "scores_of",
    "threshold_at",
]
