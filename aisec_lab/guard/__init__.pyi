from .class_balance import ClassBalanceMonitor
from .error_rate import ErrorRateMonitor
from .monitor import ROWS, DummyMonitor, StreamMonitor, WindowMonitor
from .outputs import confidence, entropy
from .permutation import PermutationMonitor, sequential_p_value
from .rates import LatencyMonitor, RateMonitor
from .river_monitors import ADWINMonitor, KSWINMonitor
from .two_sample import TwoSampleStatistic, energy_distance, largest_mean_difference

__all__ = [
    "ROWS",
    "ADWINMonitor",
    "ClassBalanceMonitor",
    "DummyMonitor",
    "ErrorRateMonitor",
    "KSWINMonitor",
    "LatencyMonitor",
    "PermutationMonitor",
    "RateMonitor",
    "StreamMonitor",
    "TwoSampleStatistic",
    "WindowMonitor",
    "confidence",
    "energy_distance",
    "entropy",
    "largest_mean_difference",
    "sequential_p_value",
]
