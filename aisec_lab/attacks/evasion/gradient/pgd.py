"""The fast gradient sign method and projected gradient descent, in any norm."""

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

FAR = 1e5  # a step so long, in units of eps, that its projection is the far end of ball and box


@dataclass(frozen=True)
class FGSM:
    """The fast gradient sign method (Goodfellow et al., 2015, arXiv:1412.6572, eq. in section 4).

    One step to the point of ball and box where the loss, made linear at x, is largest: x + eps sign(grad),
    clipped, in Linf, and the like in the other norms.

    Args of the call, returns, raises: as for `PGD`; every row takes the step.
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

    Args of the call:
        model: classifier in evaluation mode; inputs in [0, 1], shape (N, *input), to logits (N, K).
        x, y: clean inputs (N, *input) and their true classes (N,), int64; with the goal `Targeted`, the
            targets; with the loss `KullbackLeibler`, probabilities (N, K); with the goal `RegressionTolerance`, the
            true values (N,), floats, of a model that answers (N, 1).
        generator: source of the random starts.

    Returns:
        Adversarial inputs, shape of `x`, inside the ball and inside [0, 1]. With `early_stop`, a row leaves
        the batch once it is won and is returned as soon as that is seen, a row that is won as it is
        untouched, and one that is never won at its point of lowest margin. Without, each row takes all
        steps and is returned at its point of highest loss, as adversarial training wants it.

    Raises:
        ValueError: pixels outside [0, 1], a class outside 0..K-1, a model in training mode, or one that answers with
            probabilities and has not declared them (`Reading`).
    """

    ball: Ball
    steps: int = 40
    step_size: float = 0.1  # in units of eps
    restarts: int = 1
    random_start: bool = True
    loss: Loss = CrossEntropy()
    goal: Goal = Untargeted()
    early_stop: bool = True

    def __post_init__(self) -> None:
        check_ball("PGD", self.ball)
        if self.steps < 1 or self.restarts < 1 or not self.step_size > 0:
            raise ValueError(f"steps, restarts and step_size must be positive: {self}")
        if self.early_stop:  # without, it is for training, where a weak attack may be meant
            fewest = FROM_ANYWHERE if self.random_start else FROM_CENTRE
            warn_of_short_steps("PGD", self.steps, self.step_size, fewest=fewest)

    def __call__(self, model: nn.Module, x: Tensor, y: Tensor, *, generator: torch.Generator) -> Tensor:
        x = prepare_inputs(model, x, y, generator, soft=not self.early_stop, real=is_regression(self.goal, self.loss))
        with scored(model):
            search = self._until_won if self.early_stop else self._to_the_end
            return search(model, x, y, generator)

    def _until_won(self, model: nn.Module, x: Tensor, y: Tensor, generator: torch.Generator) -> Tensor:
        found = LowestMargin(model, x, y, self.goal)
        for _ in range(self.restarts):
            rows = found.active_rows
            delta = self._start(x[rows], generator)
            for _ in range(self.steps):
                if not len(rows):
                    return found.x_adv
                z = x[rows] + delta
                logits, _, grad = self._ascent(model, z, y[rows])
                alive = found.update(rows, z, logits)
                rows = rows[alive]
                delta = self._step(x[rows], delta[alive], grad[alive])
            z = x[rows] + delta
            with torch.no_grad():
                found.update(rows, z, model(z))
        return found.x_adv

    def _to_the_end(self, model: nn.Module, x: Tensor, y: Tensor, generator: torch.Generator) -> Tensor:
        best, highest = x, torch.full((len(x),), -torch.inf, dtype=x.dtype, device=x.device)

        def take(z: Tensor, losses: Tensor) -> None:
            nonlocal best, highest
            best = torch.where(per_row(losses > highest, z), z, best)
            highest = torch.maximum(losses, highest)

        for _ in range(self.restarts):
            delta = self._start(x, generator)
            for _ in range(self.steps):
                _, losses, grad = self._ascent(model, x + delta, y)
                take(x + delta, losses)
                delta = self._step(x, delta, grad)
            with torch.no_grad():
                take(x + delta, signed_loss(self.loss, self.goal, y)(model(x + delta)))
        return best

    def _start(self, x: Tensor, generator: torch.Generator) -> Tensor:
        return self.ball.sample(x, generator) if self.random_start else torch.zeros_like(x)

    def _ascent(self, model: nn.Module, z: Tensor, y: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        return loss_and_gradient(model, z, signed_loss(self.loss, self.goal, y))

    def _step(self, x: Tensor, delta: Tensor, grad: Tensor) -> Tensor:
        step = self.step_size * self.ball.eps * self.ball.ascent_direction(mask_blocked(x, delta, grad))
        return self.ball.project(x, delta + step)
