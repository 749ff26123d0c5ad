"""The attacks that run Auto-PGD (`apgd.algorithm_1`): APGD on one loss, and APGD-T on several target classes."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from aisec_lab.attacks.evasion.attack import is_regression, prepare_inputs, scored
from aisec_lab.attacks.evasion.geometry.balls import L1, Ball, check_ball
from aisec_lab.attacks.evasion.gradient.apgd import APGDState, algorithm_1
from aisec_lab.attacks.evasion.gradient.apgd_l1 import L1APGDState
from aisec_lab.attacks.evasion.minimum_norm.tracker import top_wrong_classes
from aisec_lab.attacks.evasion.search.best import LowestMargin
from aisec_lab.attacks.evasion.search.goals import Goal, Untargeted
from aisec_lab.attacks.evasion.search.losses import CrossEntropy, Loss, TargetedDLR, TargetedLoss
from aisec_lab.attacks.evasion.search.objectives import loss_and_gradient

LARGER = (3, 2)  # radii before the ball's own, in units of it; each has three tenths of the steps


@dataclass(frozen=True)
class APGD:
    """Auto-PGD on one loss (Croce & Hein, 2020, arXiv:2003.01690, algorithm 1): APGD-CE, APGD-DLR with `DLR`.

    In L1 it is the variant of Croce & Hein (2021, arXiv:2103.01208). Call contract: docs/evasion-attacks.md.

    Args:
        ball: the threat model: Linf, L2, L1 or L0.
        steps: N_iter, iterations of each restart.
        restarts: random starts; each attacks only the rows that are not yet adversarial.
        loss: what is maximised; of logits (N, K) and classes (N,).
        goal: what makes a row adversarial.
        larger_first: whether to spend three tenths of the steps in a ball of radius 3 eps, then three tenths in one of
            2 eps, before the ball itself (Croce & Hein, 2021, section 3.3).

    Returns:
        Of the call: adversarial inputs, shape of `x`, inside ball and box. A row that becomes adversarial is returned
        at the first such point, any other row at its point of lowest margin.

    Raises:
        ValueError: steps or restarts below 1, and what the call contract lists.
    """

    ball: Ball
    steps: int = 100
    restarts: int = 1
    loss: Loss = CrossEntropy()
    goal: Goal = Untargeted()
    larger_first: bool = False

    def __post_init__(self) -> None:
        check_ball("APGD", self.ball)
        if self.steps < 1 or self.restarts < 1:
            raise ValueError(f"steps and restarts must be positive: {self}")

    def __call__(self, model: nn.Module, x: Tensor, y: Tensor, *, generator: torch.Generator) -> Tensor:
        x = prepare_inputs(model, x, y, generator, real=is_regression(self.goal, self.loss))
        with scored(model):
            best = LowestMargin(model, x, y, self.goal)
            for _ in range(self.restarts):
                run_apgd(
                    model,
                    best,
                    lambda logits, y: self.goal.sign * self.loss(logits, y),
                    y,
                    ball=self.ball,
                    steps=self.steps,
                    generator=generator,
                    larger_first=self.larger_first,
                )
        return best.x_adv


@dataclass(frozen=True)
class TargetedAPGD:
    """APGD-T (Croce & Hein, 2020, arXiv:2003.01690, section 5): Auto-PGD on one wrong class after the other.

    A row is adversarial in any wrong class, not only the target. Each target is tried only on rows that are not yet
    adversarial; few rows are attacked for several targets in one pass. Call contract: docs/evasion-attacks.md.

    Args:
        ball: the threat model: Linf, L2, L1 or L0.
        steps: N_iter, iterations for each target.
        targets: number of wrong classes, by clean logit from the highest.
        loss: what is maximised; of logits (N, K), true classes (N,) and targets (N,).
        larger_first: see `APGD`.

    Returns:
        Of the call: adversarial inputs, shape of `x`, inside ball and box, chosen in each row as by `APGD`.

    Raises:
        ValueError: steps or targets below 1, and what the call contract lists.
    """

    ball: Ball
    steps: int = 100
    targets: int = 9
    loss: TargetedLoss = TargetedDLR()
    larger_first: bool = False

    def __post_init__(self) -> None:
        check_ball("TargetedAPGD", self.ball)
        if self.steps < 1 or self.targets < 1:
            raise ValueError(f"steps and targets must be positive: {self}")

    def __call__(self, model: nn.Module, x: Tensor, y: Tensor, *, generator: torch.Generator) -> Tensor:
        x = prepare_inputs(model, x, y, generator)
        with scored(model):
            best = LowestMargin(model, x, y, Untargeted())
            for copies, target in best.per_target(top_wrong_classes(best.logits, y, self.targets)):
                run_apgd(
                    model,
                    copies,
                    self.loss,
                    copies.y,
                    target,
                    ball=self.ball,
                    steps=self.steps,
                    generator=generator,
                    larger_first=self.larger_first,
                )
        return best.x_adv


def run_apgd(
    model: nn.Module,
    best: LowestMargin,
    loss: Callable[..., Tensor],
    *labels: Tensor,
    ball: Ball,
    steps: int,
    generator: torch.Generator,
    larger_first: bool = False,
) -> None:
    """Run Auto-PGD once, from a random start, on the rows that are not yet adversarial.

    Args:
        model: classifier, frozen.
        best: the best point of each row so far; updated.
        loss: what is maximised; of logits (n, K) and the rows' labels, each (n,).
        labels: of all rows (N,).
        ball: the threat model.
        steps: N_iter.
        generator: source of the random starts; each copy of a row has its own.
        larger_first: see `APGD`. The x_max of one ball, projected onto the next, is where the next run starts.
    """
    x, rows = best.x, best.active_rows
    if not len(rows):
        return

    def objective(z: Tensor, rows: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        return loss_and_gradient(model, z, lambda logits: loss(logits, *(label[rows] for label in labels)))

    rule = L1APGDState if isinstance(ball, L1) else APGDState
    larger_steps = 3 * steps // 10 if larger_first else 0
    larger_balls = [ball.with_eps(factor * ball.eps) for factor in LARGER] if larger_steps else []
    first_ball = larger_balls[0] if larger_balls else ball
    delta = torch.cat([rule.random_start(part, first_ball, generator) for part in x[rows].chunk(best.copies)])
    for larger in larger_balls:
        delta = larger.project(x[rows], delta)
        delta = algorithm_1(objective, x, rows, delta, rule=rule, ball=larger, n_iter=larger_steps)
    if larger_balls:
        delta = ball.project(x[rows], delta)
    own_steps = steps - len(larger_balls) * larger_steps
    algorithm_1(objective, x, rows, delta, rule=rule, ball=ball, n_iter=own_steps, best=best)
