"""Training for interval bounds (Gowal et al., 2018, arXiv:1810.12715)."""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.optim import Optimizer

from aisec_lab.attacks import Ball
from aisec_lab.defenses.bounds.margins import interval_leads
from aisec_lab.models import TrainingJob, TrainingRecipe, plain_step
from aisec_lab.models.training.fit import Losses

RISE = 0.6  # share of all updates over which the radius rises; then it stays


@dataclass(frozen=True)
class IntervalLoss:
    """Cross-entropy of the clean logits and of the worst that intervals allow, weighed by kappa (section 3).

    Args of the call: as for `Standard`; `generator` is unused. The passes that `Fit` counts are the clean loss's.
    """

    ball: Ball
    kappa: float = 0.5  # weight of the clean loss

    def __post_init__(self) -> None:
        if not 0 <= self.kappa <= 1:
            raise ValueError(f"kappa weighs the clean loss against the certified one, in [0, 1], got {self.kappa}")

    def __call__(self, model: nn.Module, x: Tensor, y: Tensor, *, generator: torch.Generator) -> Tensor:
        clean = F.cross_entropy(model(x), y, reduction="none")
        worst = F.cross_entropy(-interval_leads(model, x, y, self.ball), y, reduction="none")
        return self.kappa * clean + (1 - self.kappa) * worst


@dataclass
class RadiusSchedule:
    """`IntervalLoss` whose radius rises from 0, and whose kappa falls from 1, with the updates made so far."""

    goal: IntervalLoss
    updates: int  # after which the goal is reached
    share: float = 0.0

    def __call__(self, model: nn.Module, x: Tensor, y: Tensor, *, generator: torch.Generator) -> Tensor:
        ball = self.goal.ball.with_eps(self.share * self.goal.ball.eps)
        kappa = 1 - self.share * (1 - self.goal.kappa)
        return IntervalLoss(ball, kappa)(model, x, y, generator=generator)

    def step(self, model: nn.Module, optimizer: Optimizer, losses: Losses) -> Tensor:
        """One plain step; the optimizer knows how many there were, in a run that is resumed too."""
        made = max((int(state["step"]) for state in optimizer.state.values()), default=0)
        self.share = min(1.0, made / self.updates)
        return plain_step(model, optimizer, losses)


@dataclass(frozen=True)
class IBP(TrainingRecipe):
    """Train with `IntervalLoss`, radius and kappa moving linearly to their values over the first 60 % of the updates.

    At the full radius from the start intervals are so wide that training ends in a constant (section 3, "training
    procedure"). Args of `run`, returns: as for `Fit`; `model` is of the layers that `ibp_margin` knows.
    """

    ball: Ball
    kappa: float = 0.5

    def __post_init__(self) -> None:
        IntervalLoss(self.ball, self.kappa)  # refuses a kappa that is none

    def run(self, job: TrainingJob) -> list[dict[str, float]]:
        updates = job.fit.epochs * job.fit.steps_an_epoch(len(job.dataset))
        rising = RadiusSchedule(IntervalLoss(self.ball, self.kappa), max(1, round(RISE * updates)))
        return job.train(rising, step=rising.step)
