"""Measures of backdoors: their success rate, and how well detectors find poisoned rows."""

from typing import Any

import pandas as pd
import torch
from torch import Tensor, nn

from aisec_lab.attacks import Trigger
from aisec_lab.data import Dataset
from aisec_lab.evaluation.table import rate
from aisec_lab.models import logits_of


def success_rate(model: nn.Module, trigger: Trigger, target: int, dataset: Dataset, /, **cell: Any) -> dict[str, Any]:
    """The attack success rate of a backdoor: the share of rows that the trigger sends to the target class.

    Only rows of other classes count. Compare with a clean model, which sends some of them to the target by chance.

    Args:
        model: classifier in evaluation mode.
        trigger: the trigger.
        target: the target class.
        dataset: rows that the model was not trained on, with their true classes.
        cell: other columns of the table (docs/evaluation.md), `model` among them.

    Returns:
        A row of the table: the metric `asr` with its interval.

    Raises:
        ValueError: every row is of the target class.
    """
    others = dataset.x[dataset.y != target]
    if not len(others):
        raise ValueError(f"all {len(dataset)} rows are of class {target}: success counts only on rows of others")
    success = logits_of(model, trigger.apply(others)).argmax(1) == target
    return rate("asr", int(success.sum()), len(others), **cell)


def detection_rates(
    score: Tensor, where: Tensor, fpr: float, *, generator: torch.Generator, **cell: Any
) -> list[dict[str, Any]]:
    """The true and false positive rates of a detector whose threshold is set for a false positive rate.

    The threshold is chosen on one half of the clean rows, and the false positive rate is measured on the other half, so
    that both intervals are valid.

    Args:
        score: of each row (N,); larger is more suspicious.
        where: which rows are poisoned (N,), bool.
        fpr: false positive rate that the threshold is set for, in [0, 1).
        generator: splits the clean rows.
        cell: other columns of the table (docs/evaluation.md).

    Returns:
        Rows of the table: `detection_tpr` over all poisoned rows and `detection_fpr` over half of the clean ones, with
        `fpr` in the column `level`.

    Raises:
        ValueError: a rate outside [0, 1), scores of NaN, no poisoned row, or fewer than two clean ones.
    """
    if not 0 <= fpr < 1:
        raise ValueError(f"fpr, the share of clean rows that may be called poisoned, must lie in [0, 1), got {fpr}")
    poisoned, clean = _by_truth(score, where)
    if len(clean) < 2:
        raise ValueError(f"a threshold needs two clean rows at least, got {len(clean)}")
    clean = clean[torch.randperm(len(clean), generator=generator)]
    chosen, held = clean.tensor_split(2)
    threshold = chosen.sort(descending=True).values[int(fpr * len(chosen))]
    at = {"knob": "fpr", "level": fpr} | cell
    return [
        rate("detection_tpr", int((poisoned > threshold).sum()), len(poisoned), **at),
        rate("detection_fpr", int((held > threshold).sum()), len(held), **at),
    ]


def roc(score: Tensor, where: Tensor) -> pd.DataFrame:
    """The ROC curve of a detector.

    Args:
        score: of each row (N,); larger is more suspicious.
        where: which rows are poisoned, (N,), bool.

    Returns:
        Columns `fpr` and `tpr`, from (0, 0) to (1, 1), a point for each distinct score.

    Raises:
        ValueError: scores of NaN, no poisoned row, or no clean one.
    """
    poisoned, clean = _by_truth(score, where)
    levels = torch.cat([poisoned, clean]).unique()  # from the lowest up
    below = [torch.searchsorted(part.sort().values, levels, side="left") for part in (clean, poisoned)]
    fpr, tpr = (1 - n / len(part) for n, part in zip(below, (clean, poisoned), strict=True))
    zero = torch.zeros(1)
    return pd.DataFrame({"fpr": torch.cat([zero, fpr.flip(0)]), "tpr": torch.cat([zero, tpr.flip(0)])})


def _by_truth(score: Tensor, where: Tensor) -> tuple[Tensor, Tensor]:
    """The scores of the poisoned and of the clean rows."""
    if score.isnan().any() or not where.any() or where.all():
        raise ValueError(
            f"a detector's scores must be numbers, of poisoned and of clean rows: got {int(score.isnan().sum())} NaN, "
            f"{int(where.sum())} poisoned rows and {int((~where).sum())} clean ones"
        )
    return score[where], score[~where]
