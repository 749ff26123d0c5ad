"""Regression models that are fitted in closed form."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn


class Kernel(nn.Module):
    """A weighted sum of Gaussian kernels around training rows.

    Args:
        rows: training rows (M, D).
        weight: of each row (M, 1).
        mean: constant that is added.
        width: of the kernel, positive.
    """

    rows: Tensor
    weight: Tensor
    mean: Tensor

    def __init__(self, rows: Tensor, weight: Tensor, mean: Tensor, width: float) -> None:
        super().__init__()
        for name, value in {"rows": rows, "weight": weight, "mean": mean}.items():
            self.register_buffer(name, value)
        self.width = width

    def forward(self, x: Tensor) -> Tensor:
        """Predictions (N, 1) for inputs x (N, D), in the units of y."""
        return self.mean + gaussian(x, self.rows, self.width) @ self.weight


def gaussian(x: Tensor, rows: Tensor, width: float) -> Tensor:
    """exp(-|x - r|^2 / (2 width^2)) for each x (N, D) and each row r (M, D): shape (N, M)."""
    return (-((x[:, None] - rows) ** 2).sum(2) / (2 * width**2)).exp()


@dataclass(frozen=True)
class KernelRidge:
    """Kernel ridge regression (Saunders et al., 1998, eq. 10) with a Gaussian kernel.

    Args:
        width: of the kernel, positive, in the units of x.
        ridge: added to the kernel's diagonal, positive.

    Raises:
        ValueError: a width or a ridge that is not positive.
    """

    width: float = 0.5
    ridge: float = 0.01

    def __post_init__(self) -> None:
        if not self.width > 0 or not self.ridge > 0:
            raise ValueError(f"width and ridge must be positive: {self}")

    def __call__(self, x: Tensor, y: Tensor) -> nn.Module:
        """Fit a model.

        Args:
            x: rows (N, D) in [0, 1], float32.
            y: targets (N,), floating point.

        Returns:
            A model from (N, D) to (N, 1), in evaluation mode; attacks take it with the goal `RegressionTolerance`.
        """
        known, values = x.double(), y.double()
        kernel = gaussian(known, known, self.width)
        mean = values.mean()
        weight = torch.linalg.solve(kernel + self.ridge * torch.eye(len(x)), (values - mean)[:, None])
        return Kernel(x, weight.to(x.dtype), mean.to(x.dtype), self.width).eval()


class LinearRegression(nn.Module):
    """A linear function of the columns.

    Args:
        weight: (D, 1).
        bias: constant that is added.
    """

    weight: Tensor
    bias: Tensor

    def __init__(self, weight: Tensor, bias: Tensor) -> None:
        super().__init__()
        self.register_buffer("weight", weight)
        self.register_buffer("bias", bias)

    def forward(self, x: Tensor) -> Tensor:
        """Predictions (N, 1) for inputs x (N, D), in the units of y."""
        return x @ self.weight + self.bias


@dataclass(frozen=True)
class Ridge:
    """Least squares with a penalty on the weights and none on the bias (Hoerl & Kennard, 1970).

    Args:
        penalty: factor of half the squared norm of the weights, added to the mean squared error; positive.

    Raises:
        ValueError: a penalty that is not positive.
    """

    penalty: float = 0.01

    def __post_init__(self) -> None:
        if not self.penalty > 0:
            raise ValueError(f"penalty must be positive, so that there is one solution, got {self.penalty}")

    def __call__(self, x: Tensor, y: Tensor) -> nn.Module:
        """Fit a model.

        Args:
            x: rows (N, D), floating point.
            y: targets (N,), floating point.

        Returns:
            A model from (N, D) to (N, 1), in evaluation mode. Its outputs are differentiable in `x` and `y`.
        """
        rows, values = x.double(), y.double()
        centre, mean = rows.mean(0), values.mean()  # the optimum passes through both
        spread = rows - centre
        normal = spread.T @ spread / len(rows) + self.penalty / 2 * torch.eye(rows.shape[1], dtype=rows.dtype)
        weight = torch.linalg.solve(normal, spread.T @ (values - mean)[:, None] / len(rows))  # (D, 1)
        return LinearRegression(weight.to(x.dtype), (mean - centre @ weight).to(x.dtype)).eval()
