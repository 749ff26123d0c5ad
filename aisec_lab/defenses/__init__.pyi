from .augmented import Augmented
from .backdoors.neural_cleanse import Inspection, NeuralCleanse
from .backdoors.pruning import FinePruning, Repair
from .backdoors.strip import STRIP
from .backdoors.unlearning import IBAU
from .backdoors.unstamping import Unstamping
from .bounds.margins import crown_margin, ibp_margin
from .bounds.training import IBP, IntervalLoss
from .compression.compression import Compression, InTurn
from .compression.magnitude import MagnitudePruning
from .compression.quantisation import DynamicInt8, StaticInt8, WeightOnly
from .compression.robust import RobustPruning
from .compression.structured import StructuredPruning
from .compression.student import Student
from .detectors import Detector, Energy, FeatureSqueezing, Fitted
from .distances import LID, Mahalanobis, NearestNeighbours
from .distillation import Distillation, Tempered
from .ensembles import Averaged, Ensemble
from .fast import FastAdversarialTraining, OverfittingProbe
from .inputs import JPEG, BitDepth, MedianFilter, Undefended
from .monitors.prada import Prada
from .monitors.rate import RateBudget
from .monitors.similarity import SimilarityDetector
from .monitors.watch import QueryMonitor, first_alarm
from .noise_training import GaussianNoise, SmoothAdv
from .outputs.coarse import LabelsOnly, Rounded, TopK
from .outputs.misinformation import AdaptiveMisinformation
from .outputs.perturbed import OutputNoise, ReverseSigmoid, Softened
from .outputs.poisoning import PredictionPoisoning
from .ownership.activations import ActivationMark
from .ownership.boundary import BoundaryFingerprint
from .ownership.conferrable import Conferrable
from .ownership.dataset_inference import DatasetInference
from .ownership.entangled import EntangledWatermark
from .ownership.fingerprints import Fingerprint, Fingerprinting
from .ownership.ipguard import IPGuard
from .ownership.key import Key
from .ownership.margins import BlindWalk, MinGD
from .ownership.removal import Compressed, Extracted, FineTuning, Overwriting
from .ownership.served import ServedMark
from .ownership.trigger_set import TriggerSet
from .ownership.watermark import Marked, Watermark
from .ownership.weight_fingerprint import WeightFingerprint
from .ownership.weights import WeightMark
from .poisoning.clustering import ActivationClustering
from .poisoning.impact import Impact
from .poisoning.neighbours import NeighbourAgreement
from .poisoning.partition import PartitionAggregation, Voting, certified_rows
from .poisoning.spectral import SpectralSignatures
from .poisoning.suspicion import Sanitizer, Suspicion
from .poisoning.trim import Trim
from .poisoning.untangling import Untangling
from .randomised import RandomResizing
from .rejection import Rejecting, RejectOption, calibrated, scores_of, threshold_at
from .smoothing import Smoothed, Smoothing
from .smoothing_certificate import ABSTAIN, Certificate, certify, predict, radius_cap
from .steps import AWP, Free, Guided
from .text.augmentation import Augmentation
from .text.defense import TextDefense, UndefendedText
from .text.masking import MaskedWords, RandomMasking
from .text.masking_certificate import WordCertificate, certify_words
from .text.normalisation import Normalisation
from .text.spelling import SpellChecking
from .training import MART, TRADES, AdversarialTraining, Standard
from .variation import TotalVariation
from .warm_start import WarmStart

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
