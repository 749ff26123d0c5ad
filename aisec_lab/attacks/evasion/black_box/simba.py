"""SimBA: one direction after another, kept where the score falls."""

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
    """The simple black-box attack (Guo et al., 2019, arXiv:1905.07121, algorithm 1), held to a ball.

    It tries the directions of an orthonormal basis in a random order, each row in its own and again from the
    first once it is through: a step of epsilon along one, and against it where that does not help. A step stays if the
    probability of the class falls, or rises with the goal `Targeted`. In the basis `DCT` it is SimBA-DCT.

    Args of the call:
        model: classifier in evaluation mode, or an `Oracle`; inputs in [0, 1], shape (N, *input), to logits (N, K).
        x, y: clean inputs and their true classes (N,), int64; with the goal `Targeted`, the targets.
        generator: source of the order.

    Returns:
        Adversarial inputs, shape of `x`, inside ball and box, at the lowest margin seen. After t directions the
        perturbation is no longer than epsilon times the root of t. The model sees no row more than `queries` times,
        the clean row included, none again once it is won, and none where a step would end at a face of the box
        that it stands at.

    Raises:
        ValueError: another ball; the basis `DCT` for inputs that are no images; and what `PGD` refuses.
    """

    ball: Ball
    queries: int = 1000
    epsilon: float = 0.2  # length of a step, in widths of the box
    basis: Basis = Pixels()
    loss: Loss = CrossEntropy()  # of which only the order counts: it rises where the probability falls
    goal: Goal = Untargeted()

    def __post_init__(self) -> None:
        check_ball("SimBA", self.ball, Linf, L2)
        if self.queries < 2 or not self.epsilon > 0:
            raise ValueError(f"queries must be at least 2 and epsilon positive: {self}")

    def __call__(self, model: nn.Module, x: Tensor, y: Tensor, *, generator: torch.Generator) -> Tensor:
        x = prepare_inputs(model, x, y, generator)
        order = self.basis.order(x, RowNoise(x, generator))
        with scored(model), torch.no_grad():
            found = LowestMargin(model, x, y, self.goal)
            delta, score = torch.zeros_like(x), signed_loss(self.loss, self.goal, y)(found.logits)
            tried = torch.zeros_like(y)  # directions that a row is through with
            against = torch.zeros_like(y, dtype=torch.bool)  # whether the step along the next one has failed
            rows = found.active_rows
            for _ in range(1, self.queries):
                if not len(rows):
                    break
                origin, here = x[rows], delta[rows]
                step = self.epsilon * self.basis.directions(origin, order[rows, tried[rows] % order.shape[1]])
                along, back = (self.ball.project(origin, here + sign * step) for sign in (1, -1))
                stuck, last = ((z == here).flatten(1).all(1) for z in (along, back))
                turned = against[rows] | stuck
                z = torch.where(per_row(turned, x), back, along)
                logits = model(origin + z)
                new = signed_loss(self.loss, self.goal, y[rows])(logits)
                better = new > score[rows]
                delta[rows[better]], score[rows[better]] = z[better], new[better]
                through = better | turned | last
                tried[rows] += through
                against[rows] = ~through
                rows = rows[found.update(rows, origin + z, logits)]
        return found.x_adv
