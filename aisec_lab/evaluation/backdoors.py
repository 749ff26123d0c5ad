"""Whether a backdoor opens, and whether what looks for poison finds it."""

from typing import Any

import pandas as pd
import torch
from torch import Tensor, nn

from aisec_lab.attacks import Trigger
from aisec_lab.data import Dataset
from aisec_lab.evaluation.table import rate
from aisec_lab.models import logits_of


def success_rate(model: nn.Module, trigger: Trigger, target: int, dataset: Dataset, /, **cell: Any) -> dict[str, Any]:
    """The row of the table for a backdoor's success: how many marked images go to its target.

    Only images that are not of the target class count; what of them a clean model sends there is chance.

    Args:
        model: classifier in evaluation mode.
        trigger: the mark.
        target: the class that it opens to.
        dataset: rows that the model was not trained on.
        cell: the other columns of the table, `model` among them.

    Raises:
        ValueError: every row is of the target class.
    """
    others = dataset.x[dataset.y != target]
    if not len(others):
        raise ValueError(f"all {len(dataset)} rows are of class {target}: success counts only on rows of others")
    opened = logits_of(model, trigger.apply(others)).argmax(1) == target
    return rate("asr", int(opened.sum()), len(others), **cell)


def detection_rates(
    score: Tensor, where: Tensor, fpr: float, *, generator: torch.Generator, **cell: Any
) -> list[dict[str, Any]]:
    """The rows of the table for a detector at a false positive rate.

    The threshold is chosen on one half of the clean rows, and the rate that it then has is measured on the other, so
    that both intervals hold.

    Args:
        score: how suspicious each row is (N,); bigger is more so.
        where: which rows are poisoned (N,), bool.
        fpr: share of clean rows that may be called poisoned, in [0, 1).
        generator: halves the clean rows.
        cell: the other columns of the table.

    Returns:
        `detection_tpr` over all poisoned rows and `detection_fpr`, with `knob` "fpr" and `level` what was asked for.

    Raises:
        ValueError: a rate outside [0, 1), scores that are NaN, no poisoned row, or fewer than two clean ones.
    """
    if not 0 <= fpr < 1:
        raise ValueError(f"fpr, the share of clean rows that may be called poisoned, must lie in [0, 1), got {fpr}")
    poisoned, clean = _told_apart(score, where)
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
    """The curve of a detector: columns `fpr` and `tpr`, from (0, 0) to (1, 1), a point for each distinct score.

    Args, raises: as for `detection_rates`.
    """
    poisoned, clean = _told_apart(score, where)
    levels = torch.cat([poisoned, clean]).unique()  # from the lowest up
    below = [torch.searchsorted(part.sort().values, levels, side="left") for part in (clean, poisoned)]
    fpr, tpr = (1 - n / len(part) for n, part in zip(below, (clean, poisoned), strict=True))
    zero = torch.zeros(1)
    return pd.DataFrame({"fpr": torch.cat([zero, fpr.flip(0)]), "tpr": torch.cat([zero, tpr.flip(0)])})


def _told_apart(score: Tensor, where: Tensor) -> tuple[Tensor, Tensor]:
    """The scores of the poisoned and of the clean rows."""
    if score.isnan().any() or not where.any() or where.all():
        raise ValueError(
            f"a detector's scores must be numbers, of poisoned and of clean rows: got {int(score.isnan().sum())} NaN, "
            f"{int(where.sum())} poisoned rows and {int((~where).sum())} clean ones"
        )
    return score[where], score[~where]
