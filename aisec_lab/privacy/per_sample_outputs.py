"""Outputs and losses that must have one entry per row."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from aisec_lab.models import Objective


@torch.no_grad()
def outputs(model: nn.Module, x: Tensor, *, generator: torch.Generator) -> Tensor:
    """A model's outputs (N, *) of inputs (N, *input); ValueError where there is not one for each row."""
    output = model(x)
    if not isinstance(output, Tensor) or output.ndim < 1 or len(output) != len(x):
        given = tuple(output.shape) if isinstance(output, Tensor) else type(output).__name__
        raise ValueError(f"a model answers a batch with a tensor of one row for each row, got {given}: wrap it")
    return output


@dataclass(frozen=True)
class PerSampleLosses:
    """An objective that must give one loss per row.

    Args:
        objective: the objective.
    """

    objective: Objective

    def __call__(self, model: nn.Module, x: Tensor, y: Tensor, *, generator: torch.Generator) -> Tensor:
        """Losses (N,) of inputs (N, *input) and targets (N, *target); ValueError where it gives something else."""
        losses = self.objective(model, x, y, generator=generator)
        if not isinstance(losses, Tensor) or losses.shape != (len(x),) or not losses.is_floating_point():
            given = f"{losses.dtype} {tuple(losses.shape)}" if isinstance(losses, Tensor) else type(losses).__name__
            raise ValueError(
                f"an objective gives a loss for each row, ({len(x)},), got {given}: use reduction='none', and take "
                "the mean over what else a row has, as in .flatten(1).mean(1)"
            )
        return losses
