from .backdoors.cleanse_unlearning import NeuralCleanseUnlearning
from .backdoors.ibau import IBAU
from .backdoors.neural_cleanse import NeuralCleanse, NeuralCleanseResult
from .backdoors.pruning import FinePruning, Repair
from .backdoors.strip import STRIP
from .bounds.margins import crown_margin, ibp_margin
from .bounds.training import IBP, IntervalLoss
from .certification.smoothing import Smoothed, Smoothing
from .certification.smoothing_certificate import ABSTAIN, Certificate, certify, max_certifiable_radius, predict
from .compression.compression import Compression, SequentialCompression
from .compression.distillation import KnowledgeDistillation
from .compression.hydra import HYDRA
from .compression.magnitude import MagnitudePruning
from .compression.quantisation import DynamicInt8, StaticInt8, WeightOnly
from .compression.structured import StructuredPruning
from .detection.detectors import Detector, Energy, FeatureSqueezing, FittedDetector
from .detection.distances import LID, Mahalanobis, NearestNeighbours
from .detection.rejection import RejectingModel, RejectOption, calibrated, scores_of, threshold_at
from .monitors.blacklight import Blacklight
from .monitors.piha import PIHA
from .monitors.prada import PRADA
from .monitors.qpa import QPA
from .monitors.rate_limiter import RateLimiter
from .monitors.similarity import SimilarityMonitor
from .monitors.watch import QueryMonitor, first_alarm
from .outputs.coarse import LabelsOnly, RoundedProbabilities, TopK
from .outputs.mad import MAD
from .outputs.misinformation import AdaptiveMisinformation
from .outputs.perturbed import OutputNoise, ReverseSigmoid, TemperatureScaling
from .ownership.boundary import BoundaryFingerprint
from .ownership.conferrable import Conferrable
from .ownership.dataset_inference import DatasetInference
from .ownership.dawn import DAWN
from .ownership.deepsigns import DeepSigns
from .ownership.entangled import EntangledWatermark
from .ownership.fingerprints import Fingerprint, Fingerprinting
from .ownership.ipguard import IPGuard
from .ownership.key import Key
from .ownership.margins import BlindWalk, MinGD
from .ownership.trigger_set import TriggerSet
from .ownership.uchida import Uchida
from .ownership.watermark import Watermark, WatermarkedModel
from .ownership.weight_fingerprint import WeightFingerprint
from .poisoning.clustering import ActivationClustering
from .poisoning.dpa import DPA, VotingModel, certified_rows
from .poisoning.knn import KNNSanitizer
from .poisoning.roni import RONI
from .poisoning.sanitizer import Sanitizer, SanitizerResult
from .poisoning.scan import SCAn
from .poisoning.spectral import SpectralSignatures
from .poisoning.trim import TRIM
from .preprocessing.randomised import RandomResizing
from .preprocessing.total_variation import TotalVariation
from .preprocessing.transforms import JPEG, BitDepth, MedianFilter, Undefended
from .text.augmentation import AdversarialAugmentation
from .text.defense import TextDefense, UndefendedText
from .text.masking import MaskedWords, RandomMasking
from .text.masking_certificate import WordCertificate, certify_words
from .text.normalisation import Normalisation
from .text.spelling import SpellChecking
from .training.adversarial import MART, TRADES, AdversarialTraining, Standard
from .training.augmentation import StrongAugmentation
from .training.distillation import DefensiveDistillation, DistillationLoss
from .training.ensembles import AveragedModel, Ensemble
from .training.fast import FastAdversarialTraining, OverfittingProbe
from .training.noise import GaussianNoise, SmoothAdv
from .training.steps import AWP, FreeAdversarialTraining, ObjectiveWithStep
from .training.warm_start import WarmStart

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
    "PIHA",
    "PRADA",
    "QPA",
    "RONI",
    "STRIP",
    "TRADES",
    "TRIM",
    "ActivationClustering",
    "AdaptiveMisinformation",
    "AdversarialAugmentation",
    "AdversarialTraining",
    "AveragedModel",
    "BitDepth",
    "Blacklight",
    "BlindWalk",
    "BoundaryFingerprint",
    "Certificate",
    "Compression",
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
    "FastAdversarialTraining",
    "FeatureSqueezing",
    "FinePruning",
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
    "SimilarityMonitor",
    "SmoothAdv",
    "Smoothed",
    "Smoothing",
    "SpectralSignatures",
    "SpellChecking",
    "Standard",
    "StaticInt8",
    "StrongAugmentation",
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
    "max_certifiable_radius",
    "predict",
    "scores_of",
    "threshold_at",
]
