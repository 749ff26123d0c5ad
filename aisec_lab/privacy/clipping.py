"""How far one row's gradient may move the weights."""

import math
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from aisec_lab.privacy.ghost import ghost_norms
from aisec_lab.privacy.gradients import PerSampleGradients, instantiated, microbatch_gradients
from aisec_lab.privacy.sampling import normals

TINY = 1e-6  # keeps a gradient of zero from dividing by zero


@dataclass(frozen=True)
class FlatClipping:
    """Cut each row's gradient, over all weights, to one L2 norm (Abadi et al., 2016, arXiv:1607.00133, algorithm 1).

    The rows' gradients are Opacus's and all of them are held, so that any layer will do that keeps rows apart.

    Args:
        max_grad_norm: C, the norm.

    Raises:
        ValueError: a norm that is not positive and finite.
    """

    max_grad_norm: float = 1.0
    at_once: ClassVar[int | None] = None  # rows that may go through the model together; None: any number

    def __post_init__(self) -> None:
        if not 0 < self.max_grad_norm < math.inf:
            raise ValueError(f"max_grad_norm must be positive and finite, got {self.max_grad_norm}")

    def gradients(
        self, model: nn.Module
    ) -> AbstractContextManager[Callable[[Callable[[], Tensor]], PerSampleGradients]]:
        """Inside it, what was entered gives the rows' gradients of a function that computes losses (N,)."""
        return instantiated(model)

    def factors(self, norms: Tensor, layers: Tensor, bound: float) -> Tensor:
        """By what each row's gradient of each weight is to be multiplied.

        Args:
            norms: L2 norms of the rows' gradients (weights, N).
            layers: the layer to which each weight belongs, from 0 up, (weights,), int64.
            bound: C.

        Returns:
            Factors (weights, N) in [0, 1] that leave no row longer than `bound` over all weights.
        """
        return (bound / (norms.norm(dim=0) + TINY)).clamp(max=1).expand_as(norms)

    def gradient_noise(self, sigma: float, batch_size: int) -> float:
        """The noise on the gradient, in units of C, that makes the whole step a mechanism of noise `sigma`."""
        return sigma

    def next_bound(self, bound: float, norms: Tensor, batch_size: int, generator: torch.Generator | None) -> float:
        """C for the next step, after one with rows' gradients of `norms` (weights, N)."""
        return bound


@dataclass(frozen=True)
class PerLayerClipping(FlatClipping):
    """Cut each row's gradient layer by layer, to C / sqrt(layers) (McMahan et al., 2018, arXiv:1710.06963, section 2).

    A layer is a module with weights of its own. Over all layers no row is longer than C.
    """

    def factors(self, norms: Tensor, layers: Tensor, bound: float) -> Tensor:
        count = int(layers.max()) + 1
        squares = norms.new_zeros(count, norms.shape[1]).index_add(0, layers, norms.square())
        return (bound / count**0.5 / (squares.sqrt() + TINY)).clamp(max=1)[layers]


@dataclass(frozen=True)
class AdaptiveClipping(FlatClipping):
    """Let C follow a quantile of the rows' norms (Andrew et al., 2021, arXiv:1905.03871, algorithm 1).

    How many rows stay below C is itself released with noise. By theorem 1 a step with noise z on the gradient and
    sigma_b on the count is one with z_total, where z_total^-2 = z^-2 + (2 sigma_b)^-2; z is chosen so that z_total is
    what the accountant was told.

    Args:
        max_grad_norm: C of the first step.
        quantile: the share of rows that C shall leave as they are.
        rate: how fast log C moves (eta_C of the paper).
        count_noise: sigma_b in units of the expected batch.

    Raises:
        ValueError: a setting out of its range; a count so noisy that no gradient noise reaches the total.
    """

    quantile: float = 0.5
    rate: float = 0.2
    count_noise: float = 0.05

    def __post_init__(self) -> None:
        super().__post_init__()
        if not (0 < self.quantile < 1 and self.rate > 0 and self.count_noise > 0):
            raise ValueError(f"quantile must lie between 0 and 1, rate and count_noise be positive: {self}")

    def gradient_noise(self, sigma: float, batch_size: int) -> float:
        if sigma == 0:
            return 0.0
        left = sigma**-2 - (2 * self.count_noise * batch_size) ** -2
        if left <= 0:
            raise ValueError(
                f"count_noise = {self.count_noise} over batches of {batch_size} alone exceeds a noise multiplier of "
                f"{sigma:.4g}: raise count_noise above {sigma / (2 * batch_size):.3g}"
            )
        return left**-0.5

    def next_bound(self, bound: float, norms: Tensor, batch_size: int, generator: torch.Generator | None) -> float:
        """A row counts +1/2 or -1/2, so that it moves the count by 1/2, whether it is in the batch or not."""
        below = (norms.norm(dim=0) <= bound).double() - 0.5
        noise = self.count_noise * batch_size * normals((1,), generator).item()
        share = (below.sum().item() + noise) / batch_size + 0.5
        return bound * math.exp(-self.rate * (share - self.quantile))


@dataclass(frozen=True)
class GhostClipping(FlatClipping):
    """What `FlatClipping` does, without the rows' gradients: their norms come from inputs and output gradients of the
    layers.

    Bu et al. (2022, arXiv:2205.10683) and, for the one backward pass, Bu et al. (2023, arXiv:2210.00038). It takes
    linear layers, convolutions of images and sequences, GroupNorm, LayerNorm and embeddings, each run once.
    """

    def gradients(
        self, model: nn.Module
    ) -> AbstractContextManager[Callable[[Callable[[], Tensor]], PerSampleGradients]]:
        return ghost_norms(model)


@dataclass(frozen=True)
class RowByRowClipping(FlatClipping):
    """What `FlatClipping` does, with a pass forward and backward for each row, and autograd's own gradient.

    It takes every model that keeps rows apart: recurrent layers, attention, tied weights, layers of one's own. It costs
    as many passes as there are rows.
    """

    at_once: ClassVar[int | None] = 1

    def gradients(
        self, model: nn.Module
    ) -> AbstractContextManager[Callable[[Callable[[], Tensor]], PerSampleGradients]]:
        return microbatch_gradients(model)
