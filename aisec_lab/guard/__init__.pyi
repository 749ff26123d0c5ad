from .arms import Arm, evasion_arm, rejected_by
from .chain import ChainResult, FilterChain
from .detector_filters import DetectorFilter, ModelReader, calibrated_filters
from .filters import Filter, FilterDecision, FilterResult, SchemaFilter
from .guarded_model import GuardedModel, differentiable_view
from .memory_filters import DuplicateFilter, SimilarityFilter
from .text_filter import TextFilter
from .tuner import ThresholdChange, ThresholdTuner

__all__ = [
    "Arm",
    "ChainResult",
    "DetectorFilter",
    "DuplicateFilter",
    "Filter",
    "FilterChain",
    "FilterDecision",
    "FilterResult",
    "GuardedModel",
    "ModelReader",
    "SchemaFilter",
    "SimilarityFilter",
    "TextFilter",
    "ThresholdChange",
    "ThresholdTuner",
    "calibrated_filters",
    "differentiable_view",
    "evasion_arm",
    "rejected_by",
]
