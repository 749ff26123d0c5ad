from .augmented import Augmented
from .backdoors.neural_cleanse import NeuralCleanse, NeuralCleanseResult
from .backdoors.pruning import FinePruning, Repair
from .backdoors.strip import STRIP
from .backdoors.unlearning import IBAU
from .backdoors.unstamping import NeuralCleanseUnlearning
from .bounds.margins import crown_margin, ibp_margin
from .bounds.training import IBP, IntervalLoss
from .compression.compression import Compression, SequentialCompression
from .compression.magnitude import MagnitudePruning
from .compression.quantisation import DynamicInt8, StaticInt8, WeightOnly
from .compression.robust import HYDRA
from .compression.structured import StructuredPruning
from .compression.student import KnowledgeDistillation
from .detectors import Detector, Energy, FeatureSqueezing, FittedDetector
from .distances import LID, Mahalanobis, NearestNeighbours
from .distillation import DefensiveDistillation, DistillationLoss
from .ensembles import AveragedModel, Ensemble
from .fast import FastAdversarialTraining, OverfittingProbe
from .inputs import JPEG, BitDepth, MedianFilter, Undefended
from .monitors.prada import PRADA
from .monitors.rate import RateLimiter
from .monitors.similarity import Blacklight
from .monitors.watch import QueryMonitor, first_alarm
from .noise_training import GaussianNoise, SmoothAdv
from .outputs.coarse import LabelsOnly, RoundedProbabilities, TopK
from .outputs.misinformation import AdaptiveMisinformation
from .outputs.perturbed import OutputNoise, ReverseSigmoid, TemperatureScaling
from .outputs.poisoning import MAD
from .ownership.activations import DeepSigns
from .ownership.boundary import BoundaryFingerprint
from .ownership.conferrable import Conferrable
from .ownership.dataset_inference import DatasetInference
from .ownership.entangled import EntangledWatermark
from .ownership.fingerprints import Fingerprint, Fingerprinting
from .ownership.ipguard import IPGuard
from .ownership.key import Key
from .ownership.margins import BlindWalk, MinGD
from .ownership.removal import CompressionAttack, ExtractionAttack, FineTuningAttack, OverwritingAttack
from .ownership.served import DAWN
from .ownership.trigger_set import TriggerSet
from .ownership.watermark import Watermark, WatermarkedModel
from .ownership.weight_fingerprint import WeightFingerprint
from .ownership.weights import Uchida
from .poisoning.clustering import ActivationClustering
from .poisoning.impact import RONI
from .poisoning.neighbours import KNNSanitizer
from .poisoning.partition import DPA, VotingModel, certified_rows
from .poisoning.spectral import SpectralSignatures
from .poisoning.suspicion import Sanitizer, SanitizerResult
from .poisoning.trim import TRIM
from .poisoning.untangling import SCAn
from .randomised import RandomResizing
from .rejection import RejectingModel, RejectOption, calibrated, scores_of, threshold_at
from .smoothing import Smoothed, Smoothing
from .smoothing_certificate import ABSTAIN, Certificate, certify, predict, radius_cap
from .steps import AWP, FreeAdversarialTraining, ObjectiveWithStep
from .text.augmentation import AdversarialAugmentation
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
    "DAWN",
    "DPA",
    "HYDRA",
    "IBAU",
    "IBP",
    "JPEG",
    "LID",
    "MAD",
    "MART",
    "PRADA",
    "RONI",
    "STRIP",
    "TRADES",
    "TRIM",
    "ActivationClustering",
    "AdaptiveMisinformation",
    "AdversarialAugmentation",
    "AdversarialTraining",
    "Augmented",
    "AveragedModel",
    "BitDepth",
    "Blacklight",
    "BlindWalk",
    "BoundaryFingerprint",
    "Certificate",
    "Compression",
    "CompressionAttack",
    "Conferrable",
    "DatasetInference",
    "DeepSigns",
    "DefensiveDistillation",
    "Detector",
    "DistillationLoss",
    "DynamicInt8",
    "Energy",
    "Ensemble",
    "EntangledWatermark",
    "ExtractionAttack",
    "FastAdversarialTraining",
    "FeatureSqueezing",
    "FinePruning",
    "FineTuningAttack",
    "Fingerprint",
    "Fingerprinting",
    "FittedDetector",
    "FreeAdversarialTraining",
    "GaussianNoise",
    "IPGuard",
    "IntervalLoss",
    "KNNSanitizer",
    "Key",
    "KnowledgeDistillation",
    "LabelsOnly",
    "MagnitudePruning",
    "Mahalanobis",
    "MaskedWords",
    "MedianFilter",
    "MinGD",
    "NearestNeighbours",
    "NeuralCleanse",
    "NeuralCleanseResult",
    "NeuralCleanseUnlearning",
    "Normalisation",
    "ObjectiveWithStep",
    "OutputNoise",
    "OverfittingProbe",
    "OverwritingAttack",
    "QueryMonitor",
    "RandomMasking",
    "RandomResizing",
    "RateLimiter",
    "RejectOption",
    "RejectingModel",
    "Repair",
    "ReverseSigmoid",
    "RoundedProbabilities",
    "SCAn",
    "Sanitizer",
    "SanitizerResult",
    "SequentialCompression",
    "SmoothAdv",
    "Smoothed",
    "Smoothing",
    "SpectralSignatures",
    "SpellChecking",
    "Standard",
    "StaticInt8",
    "StructuredPruning",
    "TemperatureScaling",
    "TextDefense",
    "TopK",
    "TotalVariation",
    "TriggerSet",
    "Uchida",
    "Undefended",
    "UndefendedText",
    "VotingModel",
    "WarmStart",
    "Watermark",
    "WatermarkedModel",
    "WeightFingerprint",
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
