"""Steps: defenses that work by how losses become an update of the weights."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from aisec_lab.attacks import Ball
from aisec_lab.models import Callback, Objective, Step, TrainingJob, TrainingRecipe, plain_step
from aisec_lab.models.training.fit import Losses

TINY = 1e-12  # keeps a gradient of zero from dividing by zero


@dataclass(frozen=True)
class ObjectiveWithStep(TrainingRecipe):
    """An objective together with the step that belongs to it, the probe that watches it, or both."""

    objective: Objective
    step: Step = plain_step
    probe: Callback | None = None

    def run(self, job: TrainingJob) -> list[dict[str, float]]:
        return job.train(self.objective, step=self.step, probe=self.probe)


@dataclass(frozen=True)
class AWP:
    """Adversarial weight perturbation (Wu et al., 2020, arXiv:2004.05884, eq. 8 to 12).

    The gradient is taken where the losses are higher: each weight matrix moves along its own gradient by `gamma` times
    its own length; the update is then made from where the weights were. The objective runs twice: it finds its
    adversarial inputs anew at the moved weights, where the paper keeps those found before.

    Args of the call: as for `plain_step`.

    Returns:
        The losses (N,) at the moved weights, detached.

    Raises:
        ValueError: a gamma that is not positive; a model all of whose weight matrices are frozen.
    """

    gamma: float = 0.005

    def __post_init__(self) -> None:
        if not self.gamma > 0:
            raise ValueError(f"gamma, the relative length of the perturbation, must be positive, got {self.gamma}")

    def __call__(self, model: nn.Module, optimizer: Optimizer, losses: Losses) -> Tensor:
        weights = [p for p in model.parameters() if p.requires_grad and p.ndim > 1]  # no biases, no norms' scales
        if not weights:
            raise ValueError("AWP moves weight matrices, and all of this model's are frozen: train with another step")
        found = torch.autograd.grad(losses().mean(), weights, allow_unused=True)
        grads = [torch.zeros_like(w) if g is None else g for w, g in zip(weights, found, strict=True)]
        moves = [self.gamma * w.norm() * g / (g.norm() + TINY) for w, g in zip(weights, grads, strict=True)]
        optimizer.zero_grad(set_to_none=True)
        with moved(weights, moves):
            batch = losses()
            batch.mean().backward()
        optimizer.step()
        return batch.detach()


@contextmanager
def moved(weights: list[nn.Parameter], moves: list[Tensor]) -> Iterator[None]:
    """The weights moved; on leaving, by whatever way, they are what they were, to the bit."""
    kept = [weight.detach().clone() for weight in weights]
    try:
        with torch.no_grad():
            for weight, move in zip(weights, moves, strict=True):
                weight.add_(move)
        yield
    finally:
        with torch.no_grad():
            for weight, before in zip(weights, kept, strict=True):
                weight.copy_(before)


@dataclass(frozen=True)
class FreeAdversarialTraining:
    """Free adversarial training (Shafahi et al., 2019, arXiv:1904.12843, algorithm 1).

    Each batch is replayed; one backward pass gives the gradient both of the weights and of a perturbation of the input,
    which is carried on to the next replay and the next batch. For objectives that look at the inputs as they are, such
    as `Standard`: it is this step that perturbs them.

    Args of the call: as for `plain_step`.

    Returns:
        The losses (N,) of the last replay, detached.
    """

    ball: Ball
    replays: int = 4

    def __post_init__(self) -> None:
        if self.replays < 1:
            raise ValueError(f"replays must be positive, got {self.replays}")

    def __call__(self, model: nn.Module, optimizer: Optimizer, losses: Losses) -> Tensor:
        carried = optimizer.state["free"]  # type: ignore[index]  # here a resumed run finds it again
        x = delta = torch.empty(0)

        def perturbed(module: nn.Module, args: tuple[Any, ...]) -> tuple[Tensor]:
            nonlocal x, delta
            (x,) = args
            before = carried.setdefault("delta", torch.zeros_like(x))[: len(x)]
            delta = self.ball.project(x, before).requires_grad_()
            return (x + delta,)

        with model.register_forward_pre_hook(perturbed):
            for _ in range(self.replays):
                batch = plain_step(model, optimizer, losses)
                step = self.ball.eps * self.ball.ascent_direction(delta.grad)  # type: ignore[arg-type]
                carried["delta"][: len(x)] = self.ball.project(x, delta.detach() + step)
        return batch
