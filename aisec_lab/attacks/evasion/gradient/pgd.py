"""FGSM and PGD: gradient ascent on a loss inside a ball of any norm."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from aisec_lab.attacks.evasion.attack import is_regression, prepare_inputs, scored
from aisec_lab.attacks.evasion.geometry.balls import Ball, check_ball
from aisec_lab.attacks.evasion.geometry.projections import mask_blocked, per_row
from aisec_lab.attacks.evasion.gradient.step_warnings import FROM_ANYWHERE, FROM_CENTRE, warn_of_short_steps
from aisec_lab.attacks.evasion.search.best import LowestMargin
from aisec_lab.attacks.evasion.search.goals import Goal, Untargeted
from aisec_lab.attacks.evasion.search.losses import CrossEntropy, Loss
from aisec_lab.attacks.evasion.search.objectives import loss_and_gradient, signed_loss

FAR = 1e5  # step length, in units of eps, whose projection is the extreme point of ball and box


@dataclass(frozen=True)
class FGSM:
    """The fast gradient sign method (Goodfellow et al., 2015, arXiv:1412.6572, eq. in section 4).

    One step to the point of ball and box where the loss, linearised at x, is largest; in Linf x + eps sign(grad),
    clipped to [0, 1]. Every row takes the step. Call contract: docs/evasion-attacks.md.

    Args:
        ball: the threat model: Linf, L2, L1 or L0.
        loss: what is maximised; of logits (N, K) and `y`.
        goal: what makes a row adversarial.

    Raises:
        ValueError: something that is no ball, and what the call contract lists.
    """

    ball: Ball
    loss: Loss = CrossEntropy()
    goal: Goal = Untargeted()

    def __post_init__(self) -> None:
        check_ball("FGSM", self.ball)

    def __call__(self, model: nn.Module, x: Tensor, y: Tensor, *, generator: torch.Generator) -> Tensor:
        x = prepare_inputs(model, x, y, generator, soft=True, real=is_regression(self.goal, self.loss))
        with scored(model):
            _, _, grad = loss_and_gradient(model, x, signed_loss(self.loss, self.goal, y))
        return x + self.ball.project(x, FAR * self.ball.eps * self.ball.ascent_direction(grad))


@dataclass(frozen=True)
class PGD:
    """Projected gradient descent inside a ball (Madry et al., 2018, arXiv:1706.06083, eq. in section 2.1).

    Call contract: docs/evasion-attacks.md.

    Args:
        ball: the threat model: Linf, L2, L1 or L0.
        steps: iterations of each restart.
        step_size: length of a step, in units of eps.
        restarts: starts; each attacks only the rows that are not yet adversarial.
        random_start: whether to start at a random point of the ball, or at x.
        loss: what is maximised; of logits (N, K) and `y`. `KullbackLeibler` needs `early_stop` off.
        goal: what makes a row adversarial.
        early_stop: whether a row leaves the search once it is adversarial.

    Returns:
        Of the call: adversarial inputs, shape of `x`, inside ball and box. With `early_stop`, each row's first
        adversarial point, or its point of lowest margin if there is none. Without it, each row takes all steps and is
        returned at its point of highest loss, as adversarial training needs it.

    Raises:
        ValueError: steps, restarts or step_size not positive, and what the call contract lists.
    """

    ball: Ball
    steps: int = 40
    step_size: float = 0.1
    restarts: int = 1
    random_start: bool = True
    loss: Loss = CrossEntropy()
    goal: Goal = Untargeted()
    early_stop: bool = True

    def __post_init__(self) -> None:
        check_ball("PGD", self.ball)
        if self.steps < 1 or self.restarts < 1 or not self.step_size > 0:
            raise ValueError(f"steps, restarts and step_size must be positive: {self}")
        if self.early_stop:  # without it, the attack is for training, where few short steps may be intended
            min_distance = FROM_ANYWHERE if self.random_start else FROM_CENTRE
            warn_of_short_steps("PGD", self.steps, self.step_size, min_distance=min_distance)

    def __call__(self, model: nn.Module, x: Tensor, y: Tensor, *, generator: torch.Generator) -> Tensor:
        x = prepare_inputs(model, x, y, generator, soft=not self.early_stop, real=is_regression(self.goal, self.loss))
        with scored(model):
            search = self._until_adversarial if self.early_stop else self._all_steps
            return search(model, x, y, generator)

    def _until_adversarial(self, model: nn.Module, x: Tensor, y: Tensor, generator: torch.Generator) -> Tensor:
        """Attack; a row leaves once it is adversarial."""
        best = LowestMargin(model, x, y, self.goal)
        for _ in range(self.restarts):
            rows = best.active_rows
            delta = self._start(x[rows], generator)
            for _ in range(self.steps):
                if not len(rows):
                    return best.x_adv
                z = x[rows] + delta
                logits, _, grad = self._ascent(model, z, y[rows])
                alive = best.update(rows, z, logits)
                rows = rows[alive]
                delta = self._step(x[rows], delta[alive], grad[alive])
            z = x[rows] + delta
            with torch.no_grad():
                best.update(rows, z, model(z))
        return best.x_adv

    def _all_steps(self, model: nn.Module, x: Tensor, y: Tensor, generator: torch.Generator) -> Tensor:
        """Attack every row for all steps; return the points of highest loss."""
        best, highest = x, torch.full((len(x),), -torch.inf, dtype=x.dtype, device=x.device)

        def update(z: Tensor, losses: Tensor) -> None:
            nonlocal best, highest
            best = torch.where(per_row(losses > highest, z), z, best)
            highest = torch.maximum(losses, highest)

        for _ in range(self.restarts):
            delta = self._start(x, generator)
            for _ in range(self.steps):
                _, losses, grad = self._ascent(model, x + delta, y)
                update(x + delta, losses)
                delta = self._step(x, delta, grad)
            with torch.no_grad():
                update(x + delta, signed_loss(self.loss, self.goal, y)(model(x + delta)))
        return best

    def _start(self, x: Tensor, generator: torch.Generator) -> Tensor:
        return self.ball.sample(x, generator) if self.random_start else torch.zeros_like(x)

    def _ascent(self, model: nn.Module, z: Tensor, y: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        return loss_and_gradient(model, z, signed_loss(self.loss, self.goal, y))

    def _step(self, x: Tensor, delta: Tensor, grad: Tensor) -> Tensor:
        step = self.step_size * self.ball.eps * self.ball.ascent_direction(mask_blocked(x, delta, grad))
        return self.ball.project(x, delta + step)
