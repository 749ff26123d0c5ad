"""Training with clipped and noisy gradients, each row's own (DP-SGD)."""

import os
import warnings
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from aisec_lab.data import Dataset
from aisec_lab.defenses import Standard
from aisec_lab.models import Course, Fit
from aisec_lab.models.fit import Losses

TINY = 1e-6  # keeps a gradient of zero from dividing by zero


@dataclass(frozen=True)
class DPSGD(Course):
    """Clip the gradient of each row and add noise to their sum (Abadi et al., 2016, arXiv:1607.00133, algorithm 1).

    A baseline against poisoning, since no row can move the weights far (Hong et al., 2020, arXiv:2002.11497). There is
    no accounting here yet, and none is claimed: `Fit` shuffles its rows instead of sampling them, and the noise comes
    from a seeded generator. The steps are `Fit`'s AdamW on the noisy gradient; the rows' gradients are Opacus's.

    Args:
        noise_multiplier: standard deviation of the noise in units of `max_grad_norm`; 0 for clipping alone.
        max_grad_norm: the L2 norm to which each row's gradient, over all weights, is cut.

    Args of `follow`, returns: as for `Fit`; the objective is `Standard`.
    """

    noise_multiplier: float = 1.0
    max_grad_norm: float = 1.0

    def __post_init__(self) -> None:
        if not (self.noise_multiplier >= 0 and self.max_grad_norm > 0):
            raise ValueError(f"noise_multiplier must not be negative and max_grad_norm be positive: {self}")

    def follow(
        self,
        fit: Fit,
        model: nn.Module,
        dataset: Dataset,
        *,
        generator: torch.Generator,
        resume: str | os.PathLike[str] | None,
    ) -> list[dict[str, float]]:
        from opacus.grad_sample import GradSampleModule  # type: ignore[import-untyped]  # two seconds: a training pays

        sampling = GradSampleModule(model, loss_reduction="sum")  # its hooks sit on the model's own layers
        try:
            step = partial(self._step, generator=generator)
            with warnings.catch_warnings():
                warnings.filterwarnings("ignore", "Full backward hook")  # the first layer's inputs need no gradient
                return fit(model, dataset, Standard(), generator=generator, step=step, resume=resume)
        finally:
            sampling.to_standard_module()

    def _step(self, model: nn.Module, optimizer: Optimizer, losses: Losses, generator: torch.Generator) -> Tensor:
        weights = [weight for weight in model.parameters() if weight.requires_grad]
        for weight in weights:
            weight.grad_sample = None  # type: ignore[attr-defined]
        batch = losses()
        batch.sum().backward()
        grads: list[Tensor] = [weight.grad_sample for weight in weights]  # type: ignore[attr-defined]
        for weight, total in zip(weights, clipped(grads, self.max_grad_norm), strict=True):
            noise = torch.randn(total.shape, generator=generator).to(total)
            weight.grad = (total + self.noise_multiplier * self.max_grad_norm * noise) / len(batch)
        optimizer.step()
        return batch.detach()


def clipped(grads: list[Tensor], norm: float) -> list[Tensor]:
    """The sums over rows of gradients (N, *shape), one for each weight; no row's is longer than `norm` over all."""
    lengths = torch.stack([grad.flatten(1).norm(dim=1) for grad in grads]).norm(dim=0)  # (N,)
    scale = (norm / (lengths + TINY)).clamp(max=1)
    return [torch.einsum("n,n...->...", scale, grad) for grad in grads]
