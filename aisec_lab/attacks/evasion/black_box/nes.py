"""NES: projected gradient ascent on gradients that are estimated from scores."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from aisec_lab.attacks.evasion.attack import prepare_inputs, scored
from aisec_lab.attacks.evasion.geometry.balls import Ball, check_ball
from aisec_lab.attacks.evasion.geometry.projections import mask_blocked, per_row
from aisec_lab.attacks.evasion.search.best import LowestMargin
from aisec_lab.attacks.evasion.search.goals import Goal, Untargeted
from aisec_lab.attacks.evasion.search.losses import CrossEntropy, Loss
from aisec_lab.attacks.evasion.search.objectives import signed_loss
from aisec_lab.core.row_noise import RowNoise

BATCH = 256  # points of a pass, about


@dataclass(frozen=True)
class NES:
    """The query-limited attack by natural evolution strategies (Ilyas et al., 2018, arXiv:1804.08598, section 2.2).

    Each step estimates the gradient from finite differences along random directions u, at x + sigma u and x - sigma u
    (algorithm 1), and goes along it as `PGD` does, with momentum. Call contract: docs/evasion-attacks.md; the model may
    be an `Oracle`.

    Args:
        ball: the threat model: Linf, L2, L1 or L0.
        queries: the most queries for each row, at least 2, the clean row included.
        samples: the paper's n, queries of an estimate: even, two for each direction.
        sigma: distance at which finite differences are taken, along each normal coordinate.
        step_size: length of a step, in units of eps.
        momentum: weight in [0, 1) of earlier estimates.
        loss: what is maximised; of logits (N, K) and `y`.
        goal: what makes a row adversarial.

    Returns:
        Of the call: adversarial inputs, shape of `x`, inside ball and box, each at its lowest margin seen. A row is not
        queried again once it is adversarial. Points of finite differences are inside the box, but can leave the ball.

    Raises:
        ValueError: settings outside their ranges, and what the call contract lists.
    """

    ball: Ball
    queries: int = 1000
    samples: int = 50
    sigma: float = 0.001
    step_size: float = 0.1
    momentum: float = 0.9
    loss: Loss = CrossEntropy()
    goal: Goal = Untargeted()

    def __post_init__(self) -> None:
        check_ball("NES", self.ball)
        if self.samples < 2 or self.samples % 2:
            raise ValueError(f"samples come in pairs and must be even and at least 2, got {self.samples}")
        if self.queries < 2 or not (self.sigma > 0 and self.step_size > 0 and 0 <= self.momentum < 1):
            raise ValueError(f"queries must be at least 2, sigma and step_size positive, momentum in [0, 1): {self}")

    def __call__(self, model: nn.Module, x: Tensor, y: Tensor, *, generator: torch.Generator) -> Tensor:
        x = prepare_inputs(model, x, y, generator)
        noise = RowNoise(x, generator)
        with scored(model), torch.no_grad():
            best = LowestMargin(model, x, y, self.goal)
            rows, left = best.active_rows, self.queries - 1
            delta, mean = torch.zeros_like(x), torch.zeros_like(x)
            counter = 0
            while len(rows) and left >= 3:  # two for a direction, one for the new point
                pairs = min(self.samples, left - 1) // 2
                origin, z = x[rows], x[rows] + delta[rows]
                grad = self.gradient(model, z, y[rows], noise.select(rows), pairs, counter)
                mean[rows] = self.momentum * mean[rows] + (1 - self.momentum) * grad
                step = (
                    self.step_size
                    * self.ball.eps
                    * self.ball.ascent_direction(mask_blocked(origin, delta[rows], mean[rows]))
                )
                delta[rows] = self.ball.project(origin, delta[rows] + step)
                z = origin + delta[rows]
                rows = rows[best.update(rows, z, model(z))]
                left -= 2 * pairs + 1
                counter += pairs
        return best.x_adv

    def gradient(self, model: nn.Module, z: Tensor, y: Tensor, noise: RowNoise, pairs: int, counter: int = 0) -> Tensor:
        """Estimate the gradient of the loss at z, with 2 queries for each direction.

        The estimate is unbiased where the loss is linear and the box is far; points outside the box are clipped.

        Args:
            model: classifier, frozen.
            z: points (n, *input).
            y: classes (n,).
            noise: of the rows.
            pairs: number of directions.
            counter: of the noise of the first direction.

        Returns:
            Shape of `z`.
        """
        grad = torch.zeros_like(z)
        per_pass = max(1, BATCH // (2 * len(z)))  # directions of a pass
        for first in range(0, pairs, per_pass):
            k = min(per_pass, pairs - first)
            u = torch.cat([noise.normal(z.shape[1:], counter + first + i) for i in range(k)])
            up, down = ((z.repeat(k, *(1,) * (z.ndim - 1)) + s * self.sigma * u).clamp(0, 1) for s in (1, -1))
            objective = signed_loss(self.loss, self.goal, y.repeat(2 * k))
            rise, fall = objective(model(torch.cat([up, down]))).chunk(2)
            grad += (per_row(rise - fall, u) * u).unflatten(0, (k, len(z))).sum(0)
        return grad / (2 * self.sigma * pairs)
