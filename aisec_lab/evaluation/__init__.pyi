from .accuracy import clean_accuracy, count_correct
from .alarm_figures import delay_curves, false_alarm_dots
from .backdoors import detection_rates, roc, success_rate
from .certified import bracket, certified_by_bounds, certified_by_smoothing
from .claim_comparison import ClaimResult, claims, compare_claims, machine, metrics
from .compression import compression_dots, size_rows
from .control import episodes, return_curve
from .curves import bracket_curves, distance_curves, query_curves, security_curves, word_curves
from .extraction import defense_prices, extraction_curves, fidelity, transfer
from .figures import adversarial_grid, changed_features, learning_curve, pareto
from .grids import class_bars, rate_dots, rate_grid, roc_curves
from .levels import level_curves
from .membership import log_roc_curves, roc_points, tpr_at_fpr
from .monitors import QueryRecorder, QueryStream, alarm_rates, alarm_threshold, honest_streams, replay
from .ownership import RECOGNISED, OwnedModel, p_value_grid, removal_rows
from .predictions import predicted_classes
from .privacy import contradictions, epsilon_bounds
from .prose import (
    count_with_rate,
    enumerated,
    interval,
    listed,
    listed_with,
    paragraph,
    percentage_points,
    plural,
    rate_with_interval,
)
from .robustness import (
    curve_from_distances,
    is_robust,
    run_attack,
    run_minimum_norm,
    security_curve,
    worst_case,
)
from .streams import alarm_delay, delay_rows, drifting_rows, false_alarm_row, tilted_weights
from .table import over_seeds, rate, read_table, tidy, write_table
from .texts import attack_texts, certified_texts, predict_texts, word_bracket, word_curve
from .watched_attacks import accounts_watched, attack_watched, honest_alarms

__all__ = [
    "RECOGNISED",
    "ClaimResult",
    "OwnedModel",
    "QueryRecorder",
    "QueryStream",
    "accounts_watched",
    "adversarial_grid",
    "alarm_delay",
    "alarm_rates",
    "alarm_threshold",
    "attack_texts",
    "attack_watched",
    "bracket",
    "bracket_curves",
    "certified_by_bounds",
    "certified_by_smoothing",
    "certified_texts",
    "changed_features",
    "claims",
    "class_bars",
    "clean_accuracy",
    "compare_claims",
    "compression_dots",
    "contradictions",
    "count_correct",
    "count_with_rate",
    "curve_from_distances",
    "defense_prices",
    "delay_curves",
    "delay_rows",
    "detection_rates",
    "distance_curves",
    "drifting_rows",
    "enumerated",
    "episodes",
    "epsilon_bounds",
    "extraction_curves",
    "false_alarm_dots",
    "false_alarm_row",
    "fidelity",
    "honest_alarms",
    "honest_streams",
    "interval",
    "is_robust",
    "learning_curve",
    "level_curves",
    "listed",
    "listed_with",
    "log_roc_curves",
    "machine",
    "metrics",
    "over_seeds",
    "p_value_grid",
    "paragraph",
    "pareto",
    "percentage_points",
    "plural",
    "predict_texts",
    "predicted_classes",
    "query_curves",
    "rate",
    "rate_dots",
    "rate_grid",
    "rate_with_interval",
    "read_table",
    "removal_rows",
    "replay",
    "return_curve",
    "roc",
    "roc_curves",
    "roc_points",
    "run_attack",
    "run_minimum_norm",
    "security_curve",
    "security_curves",
    "size_rows",
    "success_rate",
    "tidy",
    "tilted_weights",
    "tpr_at_fpr",
    "transfer",
    "word_bracket",
    "word_curve",
    "word_curves",
    "worst_case",
    "write_table",
]
