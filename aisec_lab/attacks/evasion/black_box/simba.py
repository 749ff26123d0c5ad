"""SimBA: steps along single directions of a basis, kept if the score of the class falls."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from aisec_lab.attacks.evasion.attack import prepare_inputs, scored
from aisec_lab.attacks.evasion.black_box.basis import Basis, Pixels
from aisec_lab.attacks.evasion.geometry.balls import L2, Ball, Linf, check_ball
from aisec_lab.attacks.evasion.geometry.projections import per_row
from aisec_lab.attacks.evasion.search.best import LowestMargin
from aisec_lab.attacks.evasion.search.goals import Goal, Untargeted
from aisec_lab.attacks.evasion.search.losses import CrossEntropy, Loss
from aisec_lab.attacks.evasion.search.objectives import signed_loss
from aisec_lab.core.row_noise import RowNoise


@dataclass(frozen=True)
class SimBA:
    """The simple black-box attack (Guo et al., 2019, arXiv:1905.07121, algorithm 1), inside a ball.

    It tries the directions of an orthonormal basis in a random order for each row, again from the first after the last:
    a step of epsilon, and if it does not help, one in the opposite direction. A step is kept if the probability of the
    class falls, or with the goal `Targeted` rises. With the basis `DCT` it is SimBA-DCT. Call contract:
    docs/evasion-attacks.md; the model may be an `Oracle`.

    Args:
        ball: Linf or L2.
        queries: the most queries for each row, at least 2, the clean row included.
        epsilon: Euclidean length of a step, in units of the inputs.
        basis: the directions.
        loss: only its order matters: a step is kept where it rises.
        goal: what makes a row adversarial.

    Returns:
        Of the call: adversarial inputs, shape of `x`, inside ball and box, each at its lowest margin seen. After t
        directions the L2 norm of a perturbation is at most epsilon sqrt(t). A row is not queried again once it is
        adversarial, nor for a step that the box blocks.

    Raises:
        ValueError: another ball, settings outside their ranges, the basis `DCT` for inputs that are no images, and what
            the call contract lists.
    """

    ball: Ball
    queries: int = 1000
    epsilon: float = 0.2
    basis: Basis = Pixels()
    loss: Loss = CrossEntropy()
    goal: Goal = Untargeted()

    def __post_init__(self) -> None:
        check_ball("SimBA", self.ball, Linf, L2)
        if self.queries < 2 or not self.epsilon > 0:
            raise ValueError(f"queries must be at least 2 and epsilon positive: {self}")

    def __call__(self, model: nn.Module, x: Tensor, y: Tensor, *, generator: torch.Generator) -> Tensor:
        x = prepare_inputs(model, x, y, generator)
        order = self.basis.order(x, RowNoise(x, generator))
        with scored(model), torch.no_grad():
            best = LowestMargin(model, x, y, self.goal)
            delta, score = torch.zeros_like(x), signed_loss(self.loss, self.goal, y)(best.logits)
            tried = torch.zeros_like(y)  # number of directions a row has finished
            try_negative = torch.zeros_like(y, dtype=torch.bool)  # whether the positive step failed
            rows = best.active_rows
            for _ in range(1, self.queries):
                if not len(rows):
                    break
                origin, here = x[rows], delta[rows]
                step = self.epsilon * self.basis.directions(origin, order[rows, tried[rows] % order.shape[1]])
                along, opposite = (self.ball.project(origin, here + sign * step) for sign in (1, -1))
                blocked, opposite_blocked = ((z == here).flatten(1).all(1) for z in (along, opposite))
                negative = try_negative[rows] | blocked
                z = torch.where(per_row(negative, x), opposite, along)
                logits = model(origin + z)
                new = signed_loss(self.loss, self.goal, y[rows])(logits)
                better = new > score[rows]
                delta[rows[better]], score[rows[better]] = z[better], new[better]
                done = better | negative | opposite_blocked
                tried[rows] += done
                try_negative[rows] = ~done
                rows = rows[best.update(rows, origin + z, logits)]
        return best.x_adv
