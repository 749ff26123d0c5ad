"""What every search for a misclassified row keeps: the best point of each row, and the rows still in work."""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from aisec_lab.attacks.evasion.door import check_answer
from aisec_lab.attacks.evasion.goals import Goal


class Lowest:
    """The point of lowest margin seen so far for each row, beginning with the row itself.

    Args:
        model: classifier, frozen; asked once about all rows.
        x: clean inputs (N, *input).
        y: classes (N,), true or target ones, as the goal has it.
        goal: what the margin is.

    Attributes:
        x_adv: the points, shape of `x`. Rows that are won as they are stay as they are.
        margin: their margins (N,).
        logits: the model's answer (N, K) to the rows themselves.
    """

    def __init__(self, model: nn.Module, x: Tensor, y: Tensor, goal: Goal) -> None:
        with torch.no_grad():
            self.logits = model(x)
        check_answer(self.logits, y)
        self.goal, self.y = goal, y
        self.x_adv, self.margin = x.clone(), goal.margin(self.logits, y)

    @property
    def unsolved(self) -> Tensor:
        """Positions, in the whole batch, of the rows that are not yet won."""
        return (~(self.margin < 0)).nonzero().squeeze(1)

    def see(self, rows: Tensor, z: Tensor, logits: Tensor) -> Tensor:
        """Take note of points z for the rows at positions `rows`, and of the model's answers to them.

        Returns:
            A mask over `rows`: which are still not won.

        Raises:
            ValueError: logits that are NaN, since a row at which the model breaks down would pass for robust.
        """
        check_answer(logits, self.y[rows])
        margin = self.goal.margin(logits.detach(), self.y[rows])
        lower = margin < self.margin[rows]
        self.x_adv[rows[lower]], self.margin[rows[lower]] = z[lower], margin[lower]
        return ~(margin < 0)


def ascent(model: nn.Module, z: Tensor, loss: Callable[[Tensor], Tensor]) -> tuple[Tensor, Tensor, Tensor]:
    """One pass forward and backward.

    Args:
        model: classifier, frozen.
        z: points (N, *input).
        loss: of logits (N, K), one number a row.

    Returns:
        Logits (N, K), losses (N,), and the gradient of each row's loss, shape of `z`; an entry of it that is
        no number, as behind the logarithm of a probability rounded to 0, counts as 0.
    """
    z = z.detach().requires_grad_()
    with torch.enable_grad():
        logits = model(z)
        losses = loss(logits)
        (grad,) = torch.autograd.grad(losses.sum(), z)
    return logits.detach(), losses.detach(), grad.nan_to_num(nan=0.0)
