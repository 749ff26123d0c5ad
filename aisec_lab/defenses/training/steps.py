"""Steps: defenses that change how a batch's losses update the weights. Call contract: docs/defenses.md, "Step"."""

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
    """Train an objective with its own step, its own probe, or both. Call contract: docs/defenses.md, "Training recipe".

    Args:
        objective: what training minimises.
        step: how a batch's losses update the weights.
        probe: called after each epoch, and may end the training; None for none.
    """

    objective: Objective
    step: Step = plain_step
    probe: Callback | None = None

    def run(self, job: TrainingJob) -> list[dict[str, float]]:
        return job.train(self.objective, step=self.step, probe=self.probe)


@dataclass(frozen=True)
class AWP:
    """Adversarial weight perturbation (Wu et al., 2020, arXiv:2004.05884, eq. 8 to 12).

    Each weight matrix is perturbed along its own gradient by `gamma` times its own norm. The gradient at the perturbed
    weights then updates the original ones. The objective runs twice: it computes its adversarial inputs again at the
    perturbed weights, while the paper reuses the first ones. Call contract: docs/defenses.md, "Step"; it returns the
    losses (N,) at the perturbed weights, and a model whose weight matrices are all frozen is a ValueError.

    Args:
        gamma: relative size of the perturbation; positive.
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
        with perturbed_weights(weights, moves):
            batch = losses()
            batch.mean().backward()
        optimizer.step()
        return batch.detach()


@contextmanager
def perturbed_weights(weights: list[nn.Parameter], moves: list[Tensor]) -> Iterator[None]:
    """Add perturbations to weights inside the context; on exit, also by an exception, they are restored to the bit.

    Args:
        weights: changed in place.
        moves: one perturbation for each weight, of its shape.
    """
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

    Each batch is replayed. One backward pass gives the gradients of the weights and of an input perturbation, which is
    kept for the next replay and the next batch. The step perturbs the inputs itself: combine it with an objective on
    clean inputs, such as `Standard`. Call contract: docs/defenses.md, "Step"; it returns the losses (N,) of the last
    replay.

    Args:
        ball: threat model.
        replays: updates with each batch, at least 1.
    """

    ball: Ball
    replays: int = 4

    def __post_init__(self) -> None:
        if self.replays < 1:
            raise ValueError(f"replays must be positive, got {self.replays}")

    def __call__(self, model: nn.Module, optimizer: Optimizer, losses: Losses) -> Tensor:
        carried = optimizer.state["free"]  # type: ignore[index]  # saved with the optimizer, so a resumed run has it
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
