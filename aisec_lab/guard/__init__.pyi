from .arms import Arm, evasion_arm, rejected_by
from .chain import ChainResult, FilterChain
from .class_balance import ClassBalanceMonitor
from .detector_filters import DetectorFilter, ModelReader, calibrated_filters
from .error_rate import ErrorRateMonitor
from .filters import Filter, FilterDecision, FilterResult, SchemaFilter
from .guarded_model import GuardedModel, differentiable_view
from .memory_filters import DuplicateFilter, SimilarityFilter
from .monitor import ROWS, DummyMonitor, StreamMonitor, WindowMonitor
from .outputs import confidence, entropy
from .permutation import PermutationMonitor, sequential_p_value
from .rates import LatencyMonitor, RateMonitor
from .river_monitors import ADWINMonitor, KSWINMonitor
from .text_filter import TextFilter
from .tuner import ThresholdChange, ThresholdTuner
from .two_sample import TwoSampleStatistic, energy_distance, largest_mean_difference

__all__ = [
    "ROWS",
    "ADWINMonitor",
    "Arm",
    "ChainResult",
    "ClassBalanceMonitor",
    "DetectorFilter",
    "DummyMonitor",
    "DuplicateFilter",
    "ErrorRateMonitor",
    "Filter",
    "FilterChain",
    "FilterDecision",
    "FilterResult",
    "GuardedModel",
    "KSWINMonitor",
    "LatencyMonitor",
    "ModelReader",
    "PermutationMonitor",
    "RateMonitor",
    "SchemaFilter",
    "SimilarityFilter",
    "StreamMonitor",
    "TextFilter",
    "ThresholdChange",
    "ThresholdTuner",
    "TwoSampleStatistic",
    "WindowMonitor",
    "calibrated_filters",
    "confidence",
    "differentiable_view",
    "energy_distance",
    "entropy",
    "evasion_arm",
    "largest_mean_difference",
    "rejected_by",
    "sequential_p_value",
]
