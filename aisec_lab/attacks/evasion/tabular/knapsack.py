"""The best valid row within a budget, exactly, by dynamic programming over fields.

The budget is divided into `PARTS` equal parts, and each option of a field costs a whole number of them. Maximising a
sum over fields is then a multiple-choice knapsack problem: one pass over the fields finds its optimum.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from aisec_lab.attacks.evasion.tabular.constraints import TabularConstraints

PARTS = 24  # of the budget; a cost that is no whole number of them is rounded up
PRICE_PENALTY = 1e-12  # subtracted from the gain for each part, so that the cheaper of two equal rows wins


@dataclass(frozen=True, eq=False)
class FieldOptions:
    """The options of one field, in each row.

    Args:
        places: positions of its C columns.
        values: new values (n, M, C) for each row and option.
        price: in parts of the budget (n, M), int64; `PARTS + 1` for options above the budget.
    """

    places: list[int]
    values: Tensor
    price: Tensor


def field_options(table: TabularConstraints, x: Tensor, budget: float) -> list[FieldOptions]:
    """The options of each mutable field within a budget.

    Args:
        table: the constraints.
        x: rows (n, D).
        budget: the largest total cost.
    """
    options = {True: _categories, False: _numbers}
    return [options[table.is_categorical(name)](table, name, x, budget) for name in table.mutable_fields]


def _numbers(table: TabularConstraints, name: str, x: Tensor, budget: float) -> FieldOptions:
    """For each number of parts, the values at that distance, in both directions."""
    places = table.fields[name]
    own, parts = x[:, places], torch.arange(PARTS + 1, dtype=torch.float64, device=x.device)
    distance = parts * budget / PARTS / table.costs.get(name, 1.0)
    steps = table.steps.get(name)
    if steps is not None:
        distance = (distance * steps + 1e-9).floor() / steps
    low, high = table.bounds_within_budget(name, own[:, 0])
    moved = torch.cat([own.double() - distance, own.double() + distance], 1).to(x.dtype)  # (n, 2 (PARTS + 1))
    values = table.round_to_steps(name, moved.clamp(low[:, None], high[:, None]))
    return FieldOptions(places, values[:, :, None], parts.long().repeat(2).expand(len(x), -1))


def _categories(table: TabularConstraints, name: str, x: Tensor, budget: float) -> FieldOptions:
    """Any category; the row's own is free."""
    places = table.fields[name]
    words = torch.eye(len(places)).to(x)
    cost = table.costs.get(name, 1.0)
    parts = math.ceil(cost * PARTS / budget - 1e-9) if cost <= budget * (1 + 1e-9) else PARTS + 1
    other = x[:, places].argmax(1, keepdim=True) != torch.arange(len(places), device=x.device)
    return FieldOptions(places, words.expand(len(x), -1, -1), parts * other.long())


def solve(x: Tensor, options: list[FieldOptions], gain: Callable[[FieldOptions], Tensor]) -> Tensor:
    """The rows of largest total gain within the budget.

    Args:
        x: rows (n, D).
        options: of each mutable field.
        gain: gains (n, M) of a field's options; those of all fields add up.

    Returns:
        Rows (n, D). Their gain is at least that of any row that costs the budget less one part for each field, and is
        the maximum if each field's costs are whole numbers of parts.
    """
    total = x.new_zeros(len(x), PARTS + 1, dtype=torch.float64)  # largest gain so far, for each budget in parts
    chosen: list[tuple[Tensor, Tensor]] = []
    for field in options:
        gains = gain(field).double() - PRICE_PENALTY * field.price
        best_at_price = torch.full((len(x), PARTS + 2), -torch.inf, dtype=torch.float64, device=x.device)
        # the last price is that of options above the budget
        best_at_price = best_at_price.scatter_reduce(1, field.price, gains, "amax")[:, :-1]
        rest = F.pad(total, (PARTS, 0), value=-torch.inf).unfold(1, PARTS + 1, 1)  # (n, in all, PARTS - for this field)
        total, remaining = (rest + best_at_price.flip(1)[:, None, :]).max(2)
        chosen.append((gains, PARTS - remaining))
    z, budget_left = x.clone(), torch.full((len(x), 1), PARTS, device=x.device)
    for field, (gains, price) in zip(reversed(options), reversed(chosen), strict=True):
        paid = price.gather(1, budget_left)
        choice = gains.masked_fill(field.price != paid, -torch.inf).argmax(1)
        z[:, field.places] = field.values[torch.arange(len(x), device=x.device), choice]
        budget_left = budget_left - paid
    return z


def linear_maximum(x: Tensor, options: list[FieldOptions], grad: Tensor) -> Tensor:
    """The rows (n, D) that maximise the linear function of gradient `grad`, shape of `x`."""
    return solve(x, options, lambda field: ((field.values - _own(x, field)) * _own(grad, field)).sum(2))


def project_onto_options(x: Tensor, options: list[FieldOptions], z: Tensor) -> Tensor:
    """The reachable rows (n, D) nearest to any points z, shape of `x`; the set is not convex."""
    return solve(x, options, lambda field: -((field.values - _own(z, field)) ** 2).sum(2))


def _own(x: Tensor, field: FieldOptions) -> Tensor:
    """The columns (n, 1, C) of a field."""
    return x[:, None, field.places]
