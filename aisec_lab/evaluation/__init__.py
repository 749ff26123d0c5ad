"""From outcomes to the table, its figures, and the gate."""

from aisec_lab.evaluation.backdoors import detection_rates, roc, success_rate
from aisec_lab.evaluation.certified import bracket, certified_by_bounds, certified_by_smoothing
from aisec_lab.evaluation.compression import compression_dots, size_rows
from aisec_lab.evaluation.control import episodes, return_curve
from aisec_lab.evaluation.curves import bracket_curves, distance_curves, query_curves, security_curves, word_curves
from aisec_lab.evaluation.extraction import defense_prices, extraction_curves, fidelity, transfer
from aisec_lab.evaluation.figures import adversarial_grid, changed_features, learning_curve, pareto
from aisec_lab.evaluation.gate import Verdict, claims, judge, machine, metrics
from aisec_lab.evaluation.grids import class_bars, rate_dots, rate_grid, roc_curves
from aisec_lab.evaluation.intervals import bounded_mean, clopper_pearson
from aisec_lab.evaluation.levels import level_curves
from aisec_lab.evaluation.membership import log_roc_curves, roc_points, tpr_at_fpr
from aisec_lab.evaluation.monitors import Recorder, Stream, alarm_rates, honest_streams, replay
from aisec_lab.evaluation.ownership import RECOGNISED, Owned, p_value_grid, removal_rows
from aisec_lab.evaluation.privacy import contradictions, two_sides
from aisec_lab.evaluation.robustness import (
    attacked,
    classes_of,
    curve_of_distances,
    nearest,
    security_curve,
    stands,
    survivors,
)
from aisec_lab.evaluation.table import over_seeds, rate, read_table, tidy, write_table
from aisec_lab.evaluation.texts import answers, attack_texts, certified_texts, word_bracket, word_curve

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
