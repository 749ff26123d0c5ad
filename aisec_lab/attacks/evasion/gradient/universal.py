"""Universal perturbations: one for all inputs, learned on some and used on others."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from aisec_lab.attacks.evasion.attack import check, prepare_inputs, scored
from aisec_lab.attacks.evasion.geometry.balls import Ball, check_ball
from aisec_lab.attacks.evasion.geometry.projections import clip_to_box
from aisec_lab.attacks.evasion.gradient.step_warnings import FROM_CENTRE, warn_of_short_steps
from aisec_lab.attacks.evasion.search.goals import Goal, Untargeted, check_untargeted, with_target
from aisec_lab.attacks.evasion.search.losses import CrossEntropy, Loss
from aisec_lab.attacks.evasion.search.objectives import loss_and_gradient, signed_loss
from aisec_lab.data import Dataset

BETA = 9.0  # where a row's loss is cut off, so that no row is worth more than being lost (Shafahi et al., eq. 5)


@dataclass(frozen=True, eq=False)
class UniversalPerturbation:
    """A perturbation that was learned, as an attack: the same for every row.

    Args:
        ball: the threat; a smaller ball than it was learned in takes the perturbation's projection.
        delta: shape of one input.

    Args of the call:
        model, y: the classifier and the classes; looked at only to refuse what `PGD` refuses.
        x: clean inputs (N, *input) in [0, 1].
        generator: unused.

    Returns:
        x + delta, clipped to the box and so inside the ball.
    """

    ball: Ball
    delta: Tensor

    def __call__(self, model: nn.Module, x: Tensor, y: Tensor, *, generator: torch.Generator) -> Tensor:
        x = prepare_inputs(model, x, y, generator)
        return x + clip_to_box(x, _projected(self.ball, self.delta).to(x).expand_as(x))


@dataclass(frozen=True)
class Universal:
    """Learn a universal perturbation (Moosavi-Dezfooli et al., 2017) by SGD (Shafahi et al., 2020, arXiv:1811.11304).

    Algorithm 2 of the latter: over batches of the training rows, a step along the gradient of their summed loss, each
    row's cut off at beta = 9, and back onto the ball.

    Args:
        ball: the threat.
        epochs, batch_size: passes over the rows.
        step_size: in units of eps.
        loss, goal: what ascends for the rows' true classes; without effect where there is a target.
        target: the class that every row is to get; None for any wrong one.

    Args of the call:
        train: rows and their true classes.
        model: classifier in evaluation mode.
        generator: order of the rows.

    Returns:
        An evasion attack.

    Raises:
        ValueError: what `PGD` refuses.
    """

    ball: Ball
    epochs: int = 10
    batch_size: int = 128
    step_size: float = 0.1  # in units of eps
    loss: Loss = CrossEntropy()
    goal: Goal = Untargeted()
    target: int | None = None

    def __post_init__(self) -> None:
        check_ball("Universal", self.ball)
        check_untargeted(self.goal)
        if self.epochs < 1 or self.batch_size < 1 or not self.step_size > 0:
            raise ValueError(f"epochs, batch_size and step_size must be positive: {self}")

    def __call__(self, train: Dataset, *, model: nn.Module, generator: torch.Generator) -> UniversalPerturbation:
        check(model, train.x, train.y)
        goal, y = with_target(self.goal, train.y, self.target)
        steps = self.epochs * -(-len(train) // self.batch_size)
        warn_of_short_steps("Universal", steps, self.step_size, fewest=FROM_CENTRE, stacklevel=3)
        delta = torch.zeros_like(train.x[:1])
        with scored(model):
            for _ in range(self.epochs):
                for rows in torch.randperm(len(train), generator=generator).split(self.batch_size):
                    x, ascended = train.x[rows], signed_loss(self.loss, goal, y[rows])
                    z = x + clip_to_box(x, delta.expand_as(x))
                    _, _, grad = loss_and_gradient(model, z, lambda logits, f=ascended: f(logits).clamp(max=BETA))  # type: ignore[misc]
                    step = self.step_size * self.ball.eps * self.ball.ascent_direction(grad.sum(0, keepdim=True))
                    delta = _projected(self.ball, delta + step)
        return UniversalPerturbation(self.ball, delta[0])


def _projected(ball: Ball, delta: Tensor) -> Tensor:
    """Onto the ball, with no box but that of all changes, [-1, 1]: by symmetry, as lengths from a corner of [0, 1]."""
    lengths = delta.abs().flatten()[None]
    return delta.sign() * ball.project(torch.zeros_like(lengths), lengths).view_as(delta)
