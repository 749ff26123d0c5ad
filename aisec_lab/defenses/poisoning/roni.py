"""Reject on negative impact: a row is judged by what a learner does to other rows once it has seen it."""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from aisec_lab.data import Dataset
from aisec_lab.defenses.poisoning.sanitizer import NORMAL, SanitizerResult, represented

SHARE = 0.2  # of all rows, that a trial learns from; the others are added to it and judged by
BATCH = 500  # rows whose influence on all others is held at once


@dataclass(frozen=True)
class RONI:
    """By how much a row raises the error on others (Nelson et al., 2008, LEET; Barreno et al., 2010, section 5: RONI).

    Each trial draws a fifth of the rows to learn from, and adds every other row, alone, to see how much it raises the
    error on the others. The paper has trusted rows for both; here there are none, and a trial is as poisoned as the
    set. The learner is a ridge regression on the labels as 0 or 1, so that a row is added in closed form (Sherman &
    Morrison, 1950); the error is the mean squared one, not the paper's count of mistakes, which one row rarely changes.

    Args:
        trials: of which a row's impact is the mean.
        penalty: of the ridge, for each row that is learned from, in units of the features' mean square.
        outlier: a row is flagged whose impact lies this many robust standard deviations above the median.
        learned: whether the learner is given the features of the model's last layer, or the inputs.

    Args of the call: as for `Sanitizer`, with a model where features are `learned`; `generator` draws the trials.

    Returns, raises: as for `Sanitizer`; settings that are not positive, fewer than four rows.
    """

    trials: int = 10
    penalty: float = 1.0
    outlier: float = 3.0
    learned: bool = False

    def __post_init__(self) -> None:
        if self.trials < 1 or not self.penalty > 0 or not self.outlier > 0:
            raise ValueError(f"trials, penalty and outlier must be positive: {self}")

    def __call__(
        self, dataset: Dataset, *, model: nn.Module | None = None, generator: torch.Generator
    ) -> SanitizerResult:
        if len(dataset) < 4:
            raise ValueError(f"Impact learns from some rows and judges by others: {len(dataset)} rows are too few")
        seen = represented(dataset, model, self.learned, "Impact")
        seen = seen - seen.mean(0)
        seen = seen / seen.square().mean().sqrt().clamp(min=1e-12)
        seen = torch.cat([seen, torch.ones_like(seen[:, :1])], 1)
        truth = F.one_hot(dataset.y, len(dataset.classes)).to(seen)
        total, judged = torch.zeros(len(dataset), dtype=seen.dtype), torch.zeros(len(dataset), dtype=seen.dtype)
        for _ in range(self.trials):
            order = torch.randperm(len(dataset), generator=generator)
            base, others = order.tensor_split([round(SHARE * len(order))])
            total[others] += rises(seen[base], truth[base], seen[others], truth[others], self.penalty * len(base))
            judged[others] += 1
        score = total / judged.clamp(min=1)
        spread = NORMAL * (score - score.median()).abs().median()
        return SanitizerResult(score, score - score.median() > self.outlier * spread)


def rises(z: Tensor, truth: Tensor, new: Tensor, labels: Tensor, ridge: float) -> Tensor:
    """By how much each new row, added alone to those that are learned from, raises the mean error on the others.

    With P = (Z' Z + ridge)^-1 and W = P Z' Y, row x with label y makes it W + P x (y - W' x)' / (1 + x' P x).

    Args:
        z, truth: the rows that are learned from (M, D) and their labels (M, K), 0 or 1.
        new, labels: the rows that are added, and judged by, (N, D) and (N, K).
        ridge: the weight of the squared norm of W beside the summed squared error.

    Returns:
        Rises of the squared error, over the other rows' mean, (N,).
    """
    inverse = torch.linalg.inv(z.T @ z + ridge * torch.eye(z.shape[1], dtype=z.dtype))
    off = labels - new @ (inverse @ (z.T @ truth))  # (N, K)
    found = []
    for rows in torch.arange(len(new)).split(BATCH):
        gain = new @ inverse @ new[rows].T  # (N, rows): what a row's error moves on every other
        gain = gain / (1 + gain[rows, torch.arange(len(rows))])
        gain[rows, torch.arange(len(rows))] = 0
        step = off[rows]
        change = gain.square().sum(0) * step.square().sum(1) - 2 * ((gain.T @ off) * step).sum(1)
        found.append(change / (len(new) - 1))
    return torch.cat(found)
