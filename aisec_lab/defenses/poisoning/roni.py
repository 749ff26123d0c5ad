"""RONI, reject on negative impact: a row is suspicious if learning from it raises the error on other rows."""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from aisec_lab.data import Dataset
from aisec_lab.defenses.poisoning.sanitizer import NORMAL, SanitizerResult, row_features

SHARE = 0.2  # of all rows, the training set of a trial; the others are added one by one, and evaluated on
BATCH = 500  # rows whose influence on all others is in memory at once


@dataclass(frozen=True)
class RONI:
    """By how much a row raises the error on others (Nelson et al., 2008, LEET; Barreno et al., 2010, section 5).

    Each trial draws a fifth of the rows as a training set, adds each other row alone, and measures how much that raises
    the error on the remaining rows. The paper has trusted rows for both; here there are none, so a trial is as poisoned
    as the dataset. The learner is a ridge regression on one-hot labels, so a row is added in closed form (Sherman &
    Morrison, 1950). The error is the mean squared error, not the paper's number of mistakes, which one row rarely
    changes.

    Call contract: docs/backdoor-defenses.md, "Sanitizers"; the call needs a model if `learned` is set, and `generator`
    draws the trials. The score is the mean rise of the error.

    Args:
        trials: number of trials, at least 1.
        penalty: ridge penalty for each training row, above 0, in units of the mean square of the features.
        outlier: a row is flagged if its score is more than this many robust standard deviations above the median.
        learned: learn from the features of the model's last layer, not from the inputs.

    Raises:
        ValueError: a setting that is not positive, fewer than four rows, or a missing model.
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
            raise ValueError(f"RONI learns from some rows and evaluates on others: {len(dataset)} rows are too few")
        seen = row_features(dataset, model, self.learned, "RONI")
        seen = seen - seen.mean(0)
        seen = seen / seen.square().mean().sqrt().clamp(min=1e-12)
        seen = torch.cat([seen, torch.ones_like(seen[:, :1])], 1)
        truth = F.one_hot(dataset.y, len(dataset.classes)).to(seen)
        total, judged = torch.zeros(len(dataset), dtype=seen.dtype), torch.zeros(len(dataset), dtype=seen.dtype)
        for _ in range(self.trials):
            order = torch.randperm(len(dataset), generator=generator)
            base, others = order.tensor_split([round(SHARE * len(order))])
            total[others] += error_increase(
                seen[base], truth[base], seen[others], truth[others], self.penalty * len(base)
            )
            judged[others] += 1
        score = total / judged.clamp(min=1)
        spread = NORMAL * (score - score.median()).abs().median()
        return SanitizerResult(score, score - score.median() > self.outlier * spread)


def error_increase(z: Tensor, truth: Tensor, new: Tensor, labels: Tensor, ridge: float) -> Tensor:
    """By how much each new row, added alone to the training set, raises the mean error on the other new rows.

    With P = (Z' Z + ridge)^-1 and W = P Z' Y, row x with label y makes it W + P x (y - W' x)' / (1 + x' P x).

    Args:
        z: training rows (M, D).
        truth: their one-hot labels (M, K).
        new: rows that are added and evaluated on (N, D).
        labels: their one-hot labels (N, K).
        ridge: weight of the squared norm of W, beside the sum of squared errors.

    Returns:
        Rise of the squared error, a mean over the other new rows, for each new row (N,).
    """
    inverse = torch.linalg.inv(z.T @ z + ridge * torch.eye(z.shape[1], dtype=z.dtype))
    off = labels - new @ (inverse @ (z.T @ truth))  # (N, K)
    found = []
    for rows in torch.arange(len(new)).split(BATCH):
        gain = new @ inverse @ new[rows].T  # (N, rows): effect of a row's error on every other row
        gain = gain / (1 + gain[rows, torch.arange(len(rows))])
        gain[rows, torch.arange(len(rows))] = 0
        step = off[rows]
        change = gain.square().sum(0) * step.square().sum(1) - 2 * ((gain.T @ off) * step).sum(1)
        found.append(change / (len(new) - 1))
    return torch.cat(found)
