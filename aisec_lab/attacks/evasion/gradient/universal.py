"""Universal perturbations: one perturbation for all inputs, learned on some and applied to others."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from aisec_lab.attacks.evasion.attack import prepare_inputs, scored_model
from aisec_lab.attacks.evasion.geometry.balls import Ball, check_ball
from aisec_lab.attacks.evasion.geometry.projections import clip_to_box
from aisec_lab.attacks.evasion.gradient.step_warnings import FROM_CENTRE, warn_of_short_steps
from aisec_lab.attacks.evasion.search.goals import Goal, Untargeted, check_untargeted, with_target
from aisec_lab.attacks.evasion.search.losses import CrossEntropy, Loss
from aisec_lab.attacks.evasion.search.objectives import loss_and_gradient, signed_loss
from aisec_lab.core.validation import check_inputs
from aisec_lab.data import Dataset

BETA = 9.0  # each row's loss is clipped here, so that no row dominates (Shafahi et al., eq. 5)


@dataclass(frozen=True, eq=False)
class UniversalPerturbation:
    """A learned universal perturbation, as an attack: the same for every row (Moosavi-Dezfooli et al., 2017).

    arXiv:1610.08401. Call contract: docs/evasion-attacks.md.

    Args:
        ball: the threat model; if it is smaller than in training, delta is projected onto it.
        delta: the perturbation, shape of one input.

    Returns:
        Of the call: x + delta, clipped to [0, 1], which keeps it inside the ball. Model, `y` and generator have no
        effect.

    Raises:
        ValueError: what the call contract lists.
    """

    ball: Ball
    delta: Tensor

    def __call__(self, model: nn.Module, x: Tensor, y: Tensor, *, generator: torch.Generator) -> Tensor:
        x = prepare_inputs(model, x, y, generator)
        return x + clip_to_box(x, _project(self.ball, self.delta).to(x).expand_as(x))


@dataclass(frozen=True)
class Universal:
    """Learn a universal perturbation (Moosavi-Dezfooli et al., 2017) by SGD (Shafahi et al., 2020, arXiv:1811.11304).

    That is algorithm 2 of the latter: for each batch a step along the gradient of the summed loss, clipped at beta = 9
    for each row, then projection onto the ball.

    Args:
        ball: the threat model: Linf, L2, L1 or L0.
        epochs: passes over the rows.
        batch_size: rows of a batch.
        step_size: length of a step, in units of eps.
        loss: what is maximised, of logits and true classes; no effect with a target.
        goal: of the loss, not `Targeted`; no effect with a target.
        target: the class that every row shall get; None for any wrong one.

    Raises:
        ValueError: settings not positive, the goal `Targeted`, and what the call contract lists.
    """

    ball: Ball
    epochs: int = 10
    batch_size: int = 128
    step_size: float = 0.1
    loss: Loss = CrossEntropy()
    goal: Goal = Untargeted()
    target: int | None = None

    def __post_init__(self) -> None:
        check_ball("Universal", self.ball)
        check_untargeted(self.goal)
        if self.epochs < 1 or self.batch_size < 1 or not self.step_size > 0:
            raise ValueError(f"epochs, batch_size and step_size must be positive: {self}")

    def __call__(self, train: Dataset, *, model: nn.Module, generator: torch.Generator) -> UniversalPerturbation:
        """Learn the perturbation.

        Args:
            train: rows in [0, 1] and their true classes.
            model: classifier in evaluation mode.
            generator: source of the order of the rows.

        Returns:
            The perturbation, as an attack.
        """
        check_inputs(model, train.x, train.y)
        goal, y = with_target(self.goal, train.y, self.target)
        steps = self.epochs * -(-len(train) // self.batch_size)
        warn_of_short_steps("Universal", steps, self.step_size, min_distance=FROM_CENTRE, stacklevel=3)
        delta = torch.zeros_like(train.x[:1])
        with scored_model(model):
            for _ in range(self.epochs):
                for rows in torch.randperm(len(train), generator=generator).split(self.batch_size):
                    x, objective = train.x[rows], signed_loss(self.loss, goal, y[rows])
                    z = x + clip_to_box(x, delta.expand_as(x))
                    _, _, grad = loss_and_gradient(model, z, lambda logits, f=objective: f(logits).clamp(max=BETA))  # type: ignore[misc]
                    step = self.step_size * self.ball.eps * self.ball.ascent_direction(grad.sum(0, keepdim=True))
                    delta = _project(self.ball, delta + step)
        return UniversalPerturbation(self.ball, delta[0])


def _project(ball: Ball, delta: Tensor) -> Tensor:
    """Onto the ball, with the box [-1, 1] of all changes: by symmetry, as magnitudes from a corner of [0, 1]."""
    magnitudes = delta.abs().flatten()[None]
    return delta.sign() * ball.project(torch.zeros_like(magnitudes), magnitudes).view_as(delta)
