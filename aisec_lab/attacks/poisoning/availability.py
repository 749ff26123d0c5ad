"""Availability poisoning of a regression: rows that make its answers wrong everywhere."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from aisec_lab.attacks.evasion.attack import SLACK
from aisec_lab.attacks.poisoning.poisoned import check_rate

Learner = Callable[[Tensor, Tensor], nn.Module]
FIRST, LAST = 1.0, 1e-4  # steps of the line search, in widths of the box


@dataclass(frozen=True, eq=False)
class PoisonedRegression:
    """Rows and numbers as a regression gets them, and which of them the attacker has added.

    Args:
        x: the clean rows, then the added ones, (N + P, D).
        y: their numbers (N + P,).
        where: which were added, (N + P,), bool.
    """

    x: Tensor
    y: Tensor
    poison_mask: Tensor


@dataclass(frozen=True)
class OptP:
    """Rows added to a regression's training set that raise its squared error on other rows most.

    Jagielski et al. (2018, arXiv:1804.00308, section 4: OptP against validation rows). The added rows begin as training
    rows with the number farthest from their own (InvFlip); rows and numbers then climb the gradient of the error
    inside [0, 1], through the solution of the learner. All rows climb together here, the paper's one after the other.

    Args:
        learner: from rows (N, D) and numbers (N,) to a model in closed form, whose answers can be differentiated in
            both, such as `Ridge` or `KernelRidge`; the implicit differentiation of eq. 6 is the gradient of its solver.
        rate: share of the added rows in all that the learner gets.
        steps: of the climb, at most.

    Args of the call:
        x: clean rows (N, D) in [0, 1].
        y: their numbers (N,) in [0, 1].
        targets: rows (M, D) and true numbers (M,) on which the error shall rise.
        generator: source of the choice of rows to begin with.

    Returns:
        The clean rows to the bit, with the added ones behind them.

    Raises:
        ValueError: a rate outside (0, 1) or that asks for no row or for more than there are to begin with; no step;
            rows or numbers outside [0, 1], or not as many of the one as of the other.
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
        check_numbers(x, y)
        check_numbers(*targets)
        begin, numbers = inverted(x, y, self.rate, generator)
        added = torch.cat([begin, numbers[:, None]], 1)  # (P, D + 1): a row and its number
        best, grad = self._error(x, y, added, targets)
        step = FIRST
        for _ in range(self.steps):
            if step < LAST or not grad.any():
                break
            tried = (added + step * grad / grad.abs().max()).clamp(0, 1)
            error, slope = self._error(x, y, tried, targets)
            if error > best:
                added, best, grad, step = tried, error, slope, min(1.5 * step, FIRST)
            else:
                step /= 2
        return behind(x, y, added[:, :-1], added[:, -1])

    def _error(self, x: Tensor, y: Tensor, added: Tensor, targets: tuple[Tensor, Tensor]) -> tuple[float, Tensor]:
        """The squared error on the targets once the added rows are learned, and its gradient (P, D + 1)."""
        z = added.clone().requires_grad_()
        model = self.learner(torch.cat([x, z[:, :-1]]), torch.cat([y, z[:, -1]]))
        error = (model(targets[0]).squeeze(1) - targets[1]).square().mean()
        (grad,) = torch.autograd.grad(error, z)
        return error.item(), grad


def check_numbers(x: Tensor, y: Tensor) -> None:
    """Refuse what are no rows (N, D) and numbers (N,), floats in [0, 1]."""
    if x.ndim != 2 or y.shape != (len(x),) or not x.is_floating_point() or not y.is_floating_point():
        raise ValueError(
            f"a regression learns from rows (N, D) and numbers (N,), floats, got {x.dtype} {tuple(x.shape)} and "
            f"{y.dtype} {tuple(y.shape)}"
        )
    for name, values in {"rows": x, "numbers": y}.items():
        if not (len(x) and values.min() >= -SLACK and values.max() <= 1 + SLACK):
            raise ValueError(f"{name} must lie in [0, 1], and there must be one: scale them by their own range")


def inverted(x: Tensor, y: Tensor, rate: float, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Some of the rows, with 1 for a number below a half and 0 for another (Jagielski et al., section 4: InvFlip).

    Args:
        x, y: clean rows (N, D) and their numbers (N,) in [0, 1].
        rate: share that they would be of all rows, the clean ones included.
        generator: source of the choice.

    Returns:
        Rows (P, D) and numbers (P,).
    """
    p = round(rate / (1 - rate) * len(x))
    if not 1 <= p <= len(x):
        raise ValueError(
            f"a rate of {rate} asks for {p} rows beside {len(x)} clean ones, which are all there is to begin with: "
            f"choose one from {1 / (len(x) + 1):.2g} to 0.5"
        )
    rows = torch.randperm(len(x), generator=generator)[:p]
    return x[rows], (y[rows] < 0.5).to(y.dtype)


def behind(x: Tensor, y: Tensor, added: Tensor, numbers: Tensor) -> PoisonedRegression:
    """Clean rows, and behind them the added ones."""
    where = torch.arange(len(x) + len(added)) >= len(x)
    return PoisonedRegression(torch.cat([x, added]), torch.cat([y, numbers]), where)
