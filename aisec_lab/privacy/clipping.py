"""Clipping of per-sample gradients: the rules that bound how far one row can move the weights.

Contract: docs/private-training.md.
"""

import math
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from aisec_lab.privacy.ghost import ghost_gradients
from aisec_lab.privacy.gradients import GradientFunction, microbatch_gradients, opacus_gradients
from aisec_lab.privacy.sampling import normals

TINY = 1e-6  # keeps a gradient of zero from dividing by zero


@dataclass(frozen=True)
class FlatClipping:
    """Clip each per-sample gradient, over all weights, to one L2 norm (Abadi et al., 2016, arXiv:1607.00133, alg. 1).

    Opacus computes the per-sample gradients and all of them are stored, so any layer is supported that Opacus knows
    and that does not mix rows.

    Args:
        max_grad_norm: clipping norm C, positive and finite.

    Raises:
        ValueError: a norm that is not positive and finite.
    """

    max_grad_norm: float = 1.0
    max_physical_batch: ClassVar[int | None] = None  # rows that may go through the model together; None: any number

    def __post_init__(self) -> None:
        if not 0 < self.max_grad_norm < math.inf:
            raise ValueError(f"max_grad_norm must be positive and finite, got {self.max_grad_norm}")

    def gradients(self, model: nn.Module) -> AbstractContextManager[GradientFunction]:
        """A context that gives the function that computes a model's per-sample gradients."""
        return opacus_gradients(model)

    def clip_factors(self, norms: Tensor, layers: Tensor, max_grad_norm: float) -> Tensor:
        """The factor by which each per-sample gradient of each parameter is multiplied.

        Args:
            norms: L2 norms of the per-sample gradients of each parameter (L, N).
            layers: index of the layer that owns each parameter (L,), int64, as `layer_index` gives it.
            max_grad_norm: clipping norm C of this step.

        Returns:
            Factors (L, N) in [0, 1]; after them no sample's gradient over all parameters is longer than C.
        """
        return (max_grad_norm / (norms.norm(dim=0) + TINY)).clamp(max=1).expand_as(norms)

    def gradient_noise_multiplier(self, noise_multiplier: float, batch_size: int) -> float:
        """The noise multiplier on the gradient with which the whole step has `noise_multiplier`.

        Args:
            noise_multiplier: of the whole step, as it was accounted for.
            batch_size: expected rows of a batch.
        """
        return noise_multiplier

    def next_max_grad_norm(
        self, max_grad_norm: float, norms: Tensor, batch_size: int, generator: torch.Generator | None
    ) -> float:
        """The clipping norm of the next step.

        Args:
            max_grad_norm: of this step.
            norms: L2 norms of this step's per-sample gradients (L, N).
            batch_size: expected rows of a batch.
            generator: source of noise; None for the operating system.
        """
        return max_grad_norm


@dataclass(frozen=True)
class PerLayerClipping(FlatClipping):
    """Clip each layer's per-sample gradient to C / sqrt(layers) (McMahan et al., 2018, arXiv:1710.06963, section 2).

    A layer is a module with parameters of its own. Over all layers, no sample's gradient is longer than C.

    Args:
        max_grad_norm: clipping norm C, positive and finite.
    """

    def clip_factors(self, norms: Tensor, layers: Tensor, max_grad_norm: float) -> Tensor:
        count = int(layers.max()) + 1
        squares = norms.new_zeros(count, norms.shape[1]).index_add(0, layers, norms.square())
        return (max_grad_norm / count**0.5 / (squares.sqrt() + TINY)).clamp(max=1)[layers]


@dataclass(frozen=True)
class AdaptiveClipping(FlatClipping):
    """Let C follow a quantile of the per-sample norms (Andrew et al., 2021, arXiv:1905.03871, algorithm 1).

    Each step also releases, with noise, how many rows stay unclipped. By theorem 1 a step with noise z on the gradient
    and sigma_b on the count is one with z_total, where z_total^-2 = z^-2 + (2 sigma_b)^-2. We choose z so that z_total
    is the noise multiplier that was accounted for.

    Args:
        max_grad_norm: C of the first step.
        quantile: share of the rows that should stay unclipped, in (0, 1).
        rate: learning rate of log C, positive (eta_C in the paper).
        count_noise: sigma_b over the expected batch size, positive.

    Raises:
        ValueError: a setting out of its range; in training, a count with so little noise that no noise on the gradient
            reaches the total.
    """

    quantile: float = 0.5
    rate: float = 0.2
    count_noise: float = 0.05

    def __post_init__(self) -> None:
        super().__post_init__()
        if not (0 < self.quantile < 1 and self.rate > 0 and self.count_noise > 0):
            raise ValueError(f"quantile must lie between 0 and 1, rate and count_noise be positive: {self}")

    def gradient_noise_multiplier(self, noise_multiplier: float, batch_size: int) -> float:
        if noise_multiplier == 0:
            return 0.0
        left = noise_multiplier**-2 - (2 * self.count_noise * batch_size) ** -2
        if left <= 0:
            raise ValueError(
                f"count_noise = {self.count_noise} over batches of {batch_size} alone exceeds a noise multiplier of "
                f"{noise_multiplier:.4g}: raise count_noise above {noise_multiplier / (2 * batch_size):.3g}"
            )
        return left**-0.5

    def next_max_grad_norm(
        self, max_grad_norm: float, norms: Tensor, batch_size: int, generator: torch.Generator | None
    ) -> float:
        # a row counts +1/2 or -1/2, so that the count moves by 1/2 when a row is added or removed
        unclipped = (norms.norm(dim=0) <= max_grad_norm).double() - 0.5
        noise = self.count_noise * batch_size * normals((1,), generator).item()
        share = (unclipped.sum().item() + noise) / batch_size + 0.5
        return max_grad_norm * math.exp(-self.rate * (share - self.quantile))


@dataclass(frozen=True)
class GhostClipping(FlatClipping):
    """Flat clipping without stored per-sample gradients, in less time and memory.

    The per-sample norms come from the layers' activations and backprops (Bu et al., 2022, arXiv:2205.10683), in one
    backward pass (Bu et al., 2023, arXiv:2210.00038). Supported are linear layers, convolutions of images and
    sequences, GroupNorm, LayerNorm and embeddings, each run once.

    Args:
        max_grad_norm: clipping norm C, positive and finite.
    """

    def gradients(self, model: nn.Module) -> AbstractContextManager[GradientFunction]:
        return ghost_gradients(model)


@dataclass(frozen=True)
class RowByRowClipping(FlatClipping):
    """Flat clipping with a forward and backward pass for each row (microbatches of one).

    Abadi et al. (2016, arXiv:1607.00133, algorithm 1). Supported is every model that does not mix rows: recurrent
    layers, attention, tied weights, custom layers. It costs as many passes as there are rows.

    Args:
        max_grad_norm: clipping norm C, positive and finite.
    """

    max_physical_batch: ClassVar[int | None] = 1

    def gradients(self, model: nn.Module) -> AbstractContextManager[GradientFunction]:
        return microbatch_gradients(model)
