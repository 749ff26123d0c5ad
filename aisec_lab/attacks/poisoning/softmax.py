"""Softmax regression: the learner that influence functions, gradient poisoning and the table study solve exactly."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

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
        return with_bias(x) @ self.weight.T


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
    return SoftmaxRegression(fit_softmax_regression(with_bias(dataset.x), truth, penalty))


def with_bias(x: Tensor) -> Tensor:
    """Rows as a regression takes them: flat, in float64, with a column of ones behind them.

    Args:
        x: rows (N, *input).

    Returns:
        Shape (N, D + 1).
    """
    flat = x.flatten(1).double()
    return torch.cat([flat, torch.ones_like(flat[:, :1])], 1)


def fit_softmax_regression(features: Tensor, truth: Tensor, penalty: float) -> Tensor:
    """Fit a softmax regression with an L2 penalty by Newton's method.

    Args:
        features: rows (N, D), float64; a column of ones gives a bias, which is penalised too.
        truth: their class probabilities (N, K), float64.
        penalty: weight of half the squared norm of the weights in the mean cross-entropy, positive.

    Returns:
        The weights (K, D), float64; the gradient there is below 1e-10, or 50 steps were made.
    """
    weight = torch.zeros(truth.shape[1], features.shape[1], dtype=features.dtype)

    def loss(weight: Tensor) -> Tensor:
        return F.cross_entropy(features @ weight.T, truth) + penalty / 2 * weight.square().sum()

    for _ in range(50):
        p = (features @ weight.T).softmax(1)
        grad = (p - truth).T @ features / len(truth) + penalty * weight
        if grad.abs().max() < 1e-10:
            break
        step = torch.linalg.solve(hessian(p, features, penalty), grad.flatten()).view_as(weight)
        size = 1.0
        while loss(weight - size * step) > loss(weight) and size > 1e-6:  # the full step may overshoot at first
            size /= 2
        weight = weight - size * step
    return weight


def hessian(p: Tensor, features: Tensor, penalty: float) -> Tensor:
    """The Hessian of the penalised mean cross-entropy in the weights of a softmax regression.

    Args:
        p: the regression's probabilities (N, K), float64.
        features: rows (N, D), float64.
        penalty: as in `fit_softmax_regression`.

    Returns:
        A symmetric, positive definite matrix (K D, K D), in the order of the weights (K, D) when they are flattened.
    """
    n, k = p.shape
    d = features.shape[1]
    blocks = torch.empty(k, d, k, d, dtype=features.dtype)
    for a in range(k):
        for b in range(a, k):
            share = p[:, a] * (float(a == b) - p[:, b])
            blocks[a, :, b] = features.T @ (share[:, None] * features) / n
            blocks[b, :, a] = blocks[a, :, b].T
    return blocks.view(k * d, k * d) + penalty * torch.eye(k * d, dtype=features.dtype)
