"""A softmax regression on the columns of a table: the learner that label flips are judged by."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from aisec_lab.attacks.poisoning.label_flips import fit_softmax_regression
from aisec_lab.data import Dataset


class SoftmaxRegression(nn.Module):
    """A softmax regression that has been fitted.

    Args:
        weight: (K, D + 1), float64; the last column holds the biases.
    """

    weight: Tensor

    def __init__(self, weight: Tensor) -> None:
        super().__init__()
        self.register_buffer("weight", weight)
        self.eval()

    def forward(self, x: Tensor) -> Tensor:
        """Logits (N, K), float64, of rows x (N, D)."""
        return _with_ones(x) @ self.weight.T


def fit_softmax(dataset: Dataset, penalty: float) -> SoftmaxRegression:
    """Fit a softmax regression to its optimum by Newton's method; nothing is drawn.

    Args:
        dataset: rows (N, D) with classes (N,).
        penalty: weight of half the squared norm of all weights in the mean loss; positive.

    Returns:
        The regression, in evaluation mode.

    Raises:
        ValueError: rows that are no table's, or a penalty that is not positive.
    """
    if dataset.x.ndim != 2:
        raise ValueError(f"a softmax regression takes rows of a table (N, D), got shape {tuple(dataset.x.shape)}")
    if not penalty > 0:
        raise ValueError(f"penalty must be positive, so that there is one solution, got {penalty}")
    truth = F.one_hot(dataset.y, len(dataset.classes)).double()
    return SoftmaxRegression(fit_softmax_regression(_with_ones(dataset.x), truth, penalty))


def _with_ones(x: Tensor) -> Tensor:
    """Rows (N, D) with a column of ones behind them: (N, D + 1), float64."""
    return torch.cat([x.double(), torch.ones(len(x), 1, dtype=torch.float64)], 1)
