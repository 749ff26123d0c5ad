from .chain import ChainResult, FilterChain
from .detector_filters import DetectorFilter, ModelReader, calibrated_filters
from .filters import Decision, Filter, FilterResult, SchemaFilter
from .guarded_model import GuardedModel
from .memory_filters import DuplicateFilter, SimilarityFilter
from .text_filter import TextFilter

__all__ = [
    "ChainResult",
    "Decision",
    "DetectorFilter",
    "DuplicateFilter",
    "Filter",
    "FilterChain",
    "FilterResult",
    "GuardedModel",
    "ModelReader",
    "SchemaFilter",
    "SimilarityFilter",
    "TextFilter",
    "calibrated_filters",
]
