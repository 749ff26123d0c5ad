"""Support vector machines that other libraries trained, as torch classifiers."""

from typing import Any

import torch
from torch import Tensor, nn


class SVM(nn.Module):
    """A binary support vector machine, built from its arrays (Cortes & Vapnik, 1995, section 4).

    The decision function f(x) = sum_i a_i k(s_i, x) + b is computed in float64, the precision of LIBSVM, and is
    differentiable in x. The logit margin of class 1 over class 0 is f.

    Args:
        support_vectors: s (S, D), arrays or tensors; D is the size of a flattened input.
        dual_coefficients: a (S,), the multipliers times the signs of their classes.
        intercept: b, a scalar.
        gamma: of the RBF kernel k(s, x) = exp(-gamma |s - x|^2), positive; None for the linear kernel s . x.

    Raises:
        ValueError: arrays whose shapes do not fit, or a gamma that is not positive.
    """

    support_vectors: Tensor
    dual_coefficients: Tensor
    intercept: Tensor

    def __init__(
        self, support_vectors: Any, dual_coefficients: Any, intercept: Any, gamma: float | None = None
    ) -> None:
        super().__init__()
        arrays = {
            "support_vectors": support_vectors,
            "dual_coefficients": dual_coefficients,
            "intercept": intercept,
        }
        for name, array in arrays.items():
            self.register_buffer(name, torch.as_tensor(array, dtype=torch.float64))
        shapes = [tuple(getattr(self, name).shape) for name in arrays]
        vectors = shapes[0]
        if len(vectors) != 2 or shapes != [vectors, vectors[:1], ()]:
            raise ValueError(
                f"support vectors (S, D), dual coefficients (S,) and one intercept () make an SVM of two classes, "
                f"got shapes {shapes}: take those of one pair of classes"
            )
        if gamma is not None and not gamma > 0:
            raise ValueError(f"gamma must be positive, or None for the linear kernel, got {gamma}")
        self.gamma = gamma

    def forward(self, x: Tensor) -> Tensor:
        """Logits (N, 2) = (-f / 2, f / 2) of inputs (N, *input) in [0, 1], in their dtype."""
        z, s = x.flatten(1).to(self.support_vectors.dtype), self.support_vectors
        kernel = z @ s.T  # (N, S)
        if self.gamma is not None:
            square = (z * z).sum(1, keepdim=True) + (s * s).sum(1) - 2 * kernel
            kernel = torch.exp(-self.gamma * square)
        f = kernel @ self.dual_coefficients + self.intercept
        return torch.stack([-f / 2, f / 2], dim=1).to(x.dtype)
