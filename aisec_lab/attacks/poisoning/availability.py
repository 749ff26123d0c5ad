"""Availability poisoning of a regression: added rows that raise its error on other rows."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from aisec_lab.attacks.evasion.attack import SLACK
from aisec_lab.attacks.poisoning.ascent import Ascent, gradient_ascent
from aisec_lab.attacks.poisoning.poisoned import check_rate

Learner = Callable[[Tensor, Tensor], nn.Module]
SMALLEST = 1e-4  # step of the line search, in widths of the box


@dataclass(frozen=True, eq=False)
class PoisonedRegression:
    """A poisoned training set of a regression, and which rows the attacker added.

    Args:
        x: the N clean rows, then the P added ones, (N + P, D).
        y: their numbers (N + P,).
        poison_mask: which were added, (N + P,), bool.
    """

    x: Tensor
    y: Tensor
    poison_mask: Tensor


@dataclass(frozen=True)
class OptP:
    """Rows added to a regression's training set where they raise its squared error on other rows most.

    Jagielski et al. (2018, arXiv:1804.00308, section 4: OptP against validation rows). The added rows start as training
    rows with the number farthest from their own (`inv_flip`). Rows and numbers then follow the gradient of the error,
    through the solution of the learner, inside [0, 1]. All added rows move together here; in the paper they move one
    after the other.

    Args:
        learner: from rows (N, D) and numbers (N,) to a model in closed form whose outputs can be differentiated in
            both, such as `Ridge` or `KernelRidge`; the implicit differentiation of eq. 6 is the gradient of its solver.
        rate: share of the added rows in all rows that the learner gets, in (0, 1).
        steps: of the ascent at most, at least 1.
    """

    learner: Learner
    rate: float = 0.1
    steps: int = 100

    def __post_init__(self) -> None:
        check_rate(self.rate)
        if self.steps < 1 or self.rate == 1:
            raise ValueError(f"steps must be positive, and a rate of 1 leaves no clean row: {self}")

    def __call__(
        self, x: Tensor, y: Tensor, *, targets: tuple[Tensor, Tensor], generator: torch.Generator
    ) -> PoisonedRegression:
        """Poison the training set of a regression.

        Args:
            x: clean rows (N, D), floats in [0, 1].
            y: their numbers (N,), floats in [0, 1].
            targets: rows (M, D) and true numbers (M,), both in [0, 1], on which the error is to rise.
            generator: source of the choice of the rows that the added ones start as.

        Returns:
            The clean rows, unchanged to the bit, and after them the added ones.

        Raises:
            ValueError: rows or numbers of another shape or outside [0, 1], or a rate that asks for no row or for more
                than N.
        """
        check_numbers(x, y)
        check_numbers(*targets)
        rows, numbers = inv_flip(x, y, self.rate, generator)
        added = torch.cat([rows, numbers[:, None]], 1)  # (P, D + 1): a row and its number

        def loss(added: Tensor) -> tuple[float, Tensor]:
            return self._error(x, y, added, targets)

        def move(at: Ascent, step: float) -> Tensor:
            if not at.gradient.any():
                return at.point
            return (at.point + step * at.gradient / at.gradient.abs().max()).clamp(0, 1)

        begin = Ascent(added, *loss(added))
        best = gradient_ascent(begin, loss, move, steps=self.steps, growth=1.5, smallest=SMALLEST).point
        return append_points(x, y, best[:, :-1], best[:, -1])

    def _error(self, x: Tensor, y: Tensor, added: Tensor, targets: tuple[Tensor, Tensor]) -> tuple[float, Tensor]:
        """The mean squared error on the targets after training on the added rows, and its gradient (P, D + 1)."""
        z = added.clone().requires_grad_()
        model = self.learner(torch.cat([x, z[:, :-1]]), torch.cat([y, z[:, -1]]))
        error = (model(targets[0]).squeeze(1) - targets[1]).square().mean()
        (grad,) = torch.autograd.grad(error, z)
        return error.item(), grad


def check_numbers(x: Tensor, y: Tensor) -> None:
    """Refuse, with a ValueError, what are no rows (N, D) and numbers (N,), floats in [0, 1]."""
    if x.ndim != 2 or y.shape != (len(x),) or not x.is_floating_point() or not y.is_floating_point():
        raise ValueError(
            f"a regression learns from rows (N, D) and numbers (N,), floats, got {x.dtype} {tuple(x.shape)} and "
            f"{y.dtype} {tuple(y.shape)}"
        )
    for name, values in {"rows": x, "numbers": y}.items():
        if not (len(x) and values.min() >= -SLACK and values.max() <= 1 + SLACK):
            raise ValueError(f"{name} must lie in [0, 1], and there must be one: scale them by their own range")


def inv_flip(x: Tensor, y: Tensor, rate: float, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """InvFlip: copies of some rows, with number 1 where theirs is below a half, else 0 (Jagielski et al., section 4).

    Args:
        x, y: clean rows (N, D) and their numbers (N,), floats in [0, 1].
        rate: share of the copies in all rows, the clean ones included, in (0, 1).
        generator: source of the choice of rows.

    Returns:
        Rows (P, D) and numbers (P,).

    Raises:
        ValueError: a rate that asks for no row or for more than N.
    """
    p = round(rate / (1 - rate) * len(x))
    if not 1 <= p <= len(x):
        raise ValueError(
            f"a rate of {rate} asks for {p} rows beside {len(x)} clean ones, of which they are copies: "
            f"choose one from {1 / (len(x) + 1):.2g} to 0.5"
        )
    rows = torch.randperm(len(x), generator=generator)[:p]
    return x[rows], (y[rows] < 0.5).to(y.dtype)


def append_points(x: Tensor, y: Tensor, added: Tensor, numbers: Tensor) -> PoisonedRegression:
    """Append rows to a clean training set.

    Args:
        x, y: clean rows (N, D) and their numbers (N,).
        added, numbers: the added rows (P, D) and their numbers (P,); P may be 0.

    Returns:
        All N + P rows; the mask is true for the last P.
    """
    mask = torch.arange(len(x) + len(added)) >= len(x)
    return PoisonedRegression(torch.cat([x, added]), torch.cat([y, numbers]), mask)
