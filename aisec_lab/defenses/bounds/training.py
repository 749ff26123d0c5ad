"""Training for interval bounds (Gowal et al., 2018, arXiv:1810.12715)."""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.optim import Optimizer

from aisec_lab.attacks import Ball
from aisec_lab.defenses.bounds.margins import interval_margins
from aisec_lab.models import TrainingJob, TrainingRecipe, plain_step
from aisec_lab.models.training.fit import Losses

RAMP = 0.6  # share of all updates over which radius and kappa move; then they stay


@dataclass(frozen=True)
class IntervalLoss:
    """kappa times the clean cross-entropy plus 1 - kappa times that of the worst-case logits.

    Gowal et al. (2018, arXiv:1810.12715, section 3). Interval bounds give the worst-case logits. Call contract:
    docs/defenses.md, "Objective"; the generator is not drawn from, and `Fit` counts the passes of the clean loss only.

    Args:
        ball: threat model, Linf or L2.
        kappa: weight of the clean loss, in [0, 1].
    """

    ball: Ball
    kappa: float = 0.5

    def __post_init__(self) -> None:
        if not 0 <= self.kappa <= 1:
            raise ValueError(f"kappa weighs the clean loss against the certified one, in [0, 1], got {self.kappa}")

    def __call__(self, model: nn.Module, x: Tensor, y: Tensor, *, generator: torch.Generator) -> Tensor:
        clean = F.cross_entropy(model(x), y, reduction="none")
        worst = F.cross_entropy(-interval_margins(model, x, y, self.ball), y, reduction="none")
        return self.kappa * clean + (1 - self.kappa) * worst


@dataclass
class RadiusSchedule:
    """`IntervalLoss` whose radius rises from 0 and whose kappa falls from 1, linearly with the updates.

    Args:
        goal: the loss at the end.
        updates: number of updates after which the goal is reached.
        share: of the way to the goal, in [0, 1]; `step` sets it.
    """

    goal: IntervalLoss
    updates: int
    share: float = 0.0

    def __call__(self, model: nn.Module, x: Tensor, y: Tensor, *, generator: torch.Generator) -> Tensor:
        ball = self.goal.ball.with_eps(self.share * self.goal.ball.eps)
        kappa = 1 - self.share * (1 - self.goal.kappa)
        return IntervalLoss(ball, kappa)(model, x, y, generator=generator)

    def step(self, model: nn.Module, optimizer: Optimizer, losses: Losses) -> Tensor:
        """A plain step; the optimizer's own count of steps sets `share`, so that a resumed run continues."""
        made = max((int(state["step"]) for state in optimizer.state.values()), default=0)
        self.share = min(1.0, made / self.updates)
        return plain_step(model, optimizer, losses)


@dataclass(frozen=True)
class IBP(TrainingRecipe):
    """Train with `IntervalLoss`, its radius and kappa changing linearly over the first 60 % of the updates.

    With the full radius from the start, intervals are so wide that training ends in a constant (Gowal et al., 2018,
    arXiv:1810.12715, section 3, "training procedure"). Call contract: docs/defenses.md, "Training recipe"; the model
    must consist of layers that `ibp_margin` supports.

    Args:
        ball: threat model, Linf or L2.
        kappa: final weight of the clean loss, in [0, 1].
    """

    ball: Ball
    kappa: float = 0.5

    def __post_init__(self) -> None:
        IntervalLoss(self.ball, self.kappa)  # raises for a kappa out of range

    def run(self, job: TrainingJob) -> list[dict[str, float]]:
        updates = job.fit.epochs * job.fit.steps_an_epoch(len(job.dataset))
        rising = RadiusSchedule(IntervalLoss(self.ball, self.kappa), max(1, round(RAMP * updates)))
        return job.train(rising, step=rising.step)
