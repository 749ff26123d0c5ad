"""From outcomes to the table, its figures, and the gate."""

from aisec_lab.evaluation.figures import adversarial_grid, changed_features, learning_curve, pareto, security_curves
from aisec_lab.evaluation.gate import Verdict, claims, judge, machine, metrics
from aisec_lab.evaluation.intervals import clopper_pearson
from aisec_lab.evaluation.robustness import attacked, security_curve, survivors
from aisec_lab.evaluation.table import over_seeds, rate, read_table, tidy, write_table

__all__ = [
    "Verdict",
    "adversarial_grid",
    "attacked",
    "changed_features",
    "claims",
    "clopper_pearson",
    "judge",
    "learning_curve",
    "machine",
    "metrics",
    "over_seeds",
    "pareto",
    "rate",
    "read_table",
    "security_curve",
    "security_curves",
    "survivors",
    "tidy",
    "write_table",
]
