from .backdoors import detection_rates, roc, success_rate
from .certified import bracket, certified_by_bounds, certified_by_smoothing
from .compression import compression_dots, size_rows
from .control import episodes, return_curve
from .curves import bracket_curves, distance_curves, query_curves, security_curves, word_curves
from .extraction import defense_prices, extraction_curves, fidelity, transfer
from .figures import adversarial_grid, changed_features, learning_curve, pareto
from .gate import Verdict, claims, judge, machine, metrics
from .grids import class_bars, rate_dots, rate_grid, roc_curves
from .intervals import bounded_mean, clopper_pearson
from .levels import level_curves
from .membership import log_roc_curves, roc_points, tpr_at_fpr
from .monitors import Recorder, Stream, alarm_rates, honest_streams, replay
from .ownership import RECOGNISED, Owned, p_value_grid, removal_rows
from .privacy import contradictions, two_sides
from .robustness import (
    attacked,
    classes_of,
    curve_of_distances,
    nearest,
    security_curve,
    stands,
    survivors,
)
from .table import over_seeds, rate, read_table, tidy, write_table
from .texts import answers, attack_texts, certified_texts, word_bracket, word_curve

__all__ = [
    "RECOGNISED",
    "Owned",
    "Recorder",
    "Stream",
    "Verdict",
    "adversarial_grid",
    "alarm_rates",
    "answers",
    "attack_texts",
    "attacked",
    "bounded_mean",
    "bracket",
    "bracket_curves",
    "certified_by_bounds",
    "certified_by_smoothing",
    "certified_texts",
    "changed_features",
    "claims",
    "class_bars",
    "classes_of",
    "clopper_pearson",
    "compression_dots",
    "contradictions",
    "curve_of_distances",
    "defense_prices",
    "detection_rates",
    "distance_curves",
    "episodes",
    "extraction_curves",
    "fidelity",
    "honest_streams",
    "judge",
    "learning_curve",
    "level_curves",
    "log_roc_curves",
    "machine",
    "metrics",
    "nearest",
    "over_seeds",
    "p_value_grid",
    "pareto",
    "query_curves",
    "rate",
    "rate_dots",
    "rate_grid",
    "read_table",
    "removal_rows",
    "replay",
    "return_curve",
    "roc",
    "roc_curves",
    "roc_points",
    "security_curve",
    "security_curves",
    "size_rows",
    "stands",
    "success_rate",
    "survivors",
    "tidy",
    "tpr_at_fpr",
    "transfer",
    "two_sides",
    "word_bracket",
    "word_curve",
    "word_curves",
    "write_table",
]
