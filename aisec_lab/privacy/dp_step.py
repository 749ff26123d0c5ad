"""One step of DP-SGD: clip the per-sample gradients, add noise to their sum, and step the optimizer."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from aisec_lab.models.training.fit import Losses
from aisec_lab.privacy.clipping import FlatClipping
from aisec_lab.privacy.gradients import PerSampleGradients, layer_index, trainable_parameters
from aisec_lab.privacy.sampling import normals


@dataclass(frozen=True)
class DPStep:
    """A `Step` of `Fit` on the noisy mean of clipped per-sample gradients (Abadi et al., 2016, algorithm 1).

    Args:
        gradients: computes the per-sample gradients of those rows of a batch whose indices (n,) it is given.
        clipping: the clipping rule.
        noise_multiplier: noise on the summed gradient, in units of the clipping norm.
        expected_batch_size: divisor of the sum, whatever the size of the batch.
        physical_batch: rows that go through the model at a time; None for the whole batch.
        generator: source of the noise; None for the operating system.

    Returns:
        A call returns the losses (n,) of the rows that counted, detached. A batch may be empty: its gradient is noise.
    """

    gradients: Callable[[Losses, Tensor], PerSampleGradients]
    clipping: FlatClipping
    noise_multiplier: float
    expected_batch_size: int
    physical_batch: int | None
    generator: torch.Generator | None

    def __call__(self, model: nn.Module, optimizer: Optimizer, losses: Losses) -> Tensor:
        parameters, layers = list(trainable_parameters(model).values()), layer_index(model)
        state = optimizer.state["clipping"]  # type: ignore[index]  # a resumed run finds the adaptive norm here
        max_grad_norm: float = state.get("max_grad_norm", self.clipping.max_grad_norm)
        sums = [torch.zeros_like(parameter) for parameter in parameters]
        batch_losses, norms = [torch.zeros(0)], [torch.zeros(len(parameters), 0)]
        size = self.clipping.max_physical_batch or self.physical_batch or max(1, len(losses))
        for rows in torch.arange(len(losses)).split(size) if len(losses) else ():
            part = self.gradients(losses, rows)
            factors = self.clipping.clip_factors(part.norms, layers.to(part.norms.device), max_grad_norm)
            for total, clipped_sum in zip(sums, part.weighted_sums(factors), strict=True):
                total += clipped_sum
            batch_losses.append(part.losses.cpu())
            norms.append(part.norms.cpu())
        for parameter, total in zip(parameters, sums, strict=True):
            noise = self.noise_multiplier * max_grad_norm * normals(parameter.shape, self.generator).to(total)
            parameter.grad = (total + noise) / self.expected_batch_size
        state["max_grad_norm"] = self.clipping.next_max_grad_norm(
            max_grad_norm, torch.cat(norms, 1), self.expected_batch_size, self.generator
        )
        optimizer.step()
        return torch.cat(batch_losses)
