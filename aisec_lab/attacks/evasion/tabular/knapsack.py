"""What a budget buys in a table: the best row of all that can be paid, exactly, by dynamic programming.

The budget is cut into `PARTS` equal parts, and each field is sold at a whole number of them. Where a sum over fields is
to be as large as possible, this is a knapsack of multiple choice: one pass over the fields gives its optimum.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from aisec_lab.attacks.evasion.tabular.constraints import TabularConstraints

PARTS = 24  # of the budget; a field that costs no whole number of them is paid with one part more
THRIFT = 1e-12  # of gain a part: of two rows that are as good, the cheaper one


@dataclass(frozen=True, eq=False)
class FieldOptions:
    """All that one field can become.

    Args:
        places: its columns, C of them.
        values: for each row and option the new values (n, M, C).
        price: in parts of the budget (n, M), int64; `PARTS + 1` where it cannot be paid.
    """

    places: list[int]
    values: Tensor
    price: Tensor


def field_options(table: TabularConstraints, x: Tensor, budget: float) -> list[FieldOptions]:
    """What each mutable field of rows x (n, D) can become for at most the budget."""
    return [(_words if table.is_word(name) else _numbers)(table, name, x, budget) for name in table.mutable_fields]


def _numbers(table: TabularConstraints, name: str, x: Tensor, budget: float) -> FieldOptions:
    """As far as each number of parts leads, in both directions."""
    places = table.fields[name]
    own, parts = x[:, places], torch.arange(PARTS + 1, dtype=torch.float64, device=x.device)
    far = parts * budget / PARTS / table.costs.get(name, 1.0)
    steps = table.steps.get(name)
    if steps is not None:
        far = (far * steps + 1e-9).floor() / steps
    low, high = table.bounds_within_budget(name, own[:, 0])
    walked = torch.cat([own.double() - far, own.double() + far], 1).to(x.dtype)  # (n, 2 (PARTS + 1))
    values = table.round_to_steps(name, walked.clamp(low[:, None], high[:, None]))
    return FieldOptions(places, values[:, :, None], parts.long().repeat(2).expand(len(x), -1))


def _words(table: TabularConstraints, name: str, x: Tensor, budget: float) -> FieldOptions:
    """Any word; the row's own is free."""
    places = table.fields[name]
    words = torch.eye(len(places)).to(x)
    cost = table.costs.get(name, 1.0)
    parts = math.ceil(cost * PARTS / budget - 1e-9) if cost <= budget * (1 + 1e-9) else PARTS + 1
    other = x[:, places].argmax(1, keepdim=True) != torch.arange(len(places), device=x.device)
    return FieldOptions(places, words.expand(len(x), -1, -1), parts * other.long())


def solve(x: Tensor, offered: list[FieldOptions], gain: Callable[[FieldOptions], Tensor]) -> Tensor:
    """The rows of largest gain among all that the budget buys.

    Args:
        x: rows (n, D).
        offered: for each mutable field.
        gain: of each option of an offer (n, M); the gains of the fields add up.

    Returns:
        Rows (n, D). The gain is at least that of any row for which at most the budget less one part a field is paid,
        and of any row at all if each field's costs are whole numbers of parts.
    """
    total = x.new_zeros(len(x), PARTS + 1, dtype=torch.float64)  # largest gain so far, for at most so many parts
    bought: list[tuple[Tensor, Tensor]] = []
    for offer in offered:
        gains = gain(offer).double() - THRIFT * offer.price
        here = torch.full((len(x), PARTS + 2), -torch.inf, dtype=torch.float64, device=x.device)
        here = here.scatter_reduce(1, offer.price, gains, "amax")[:, :-1]  # by price; the last cannot be paid
        rest = F.pad(total, (PARTS, 0), value=-torch.inf).unfold(1, PARTS + 1, 1)  # (n, in all, PARTS - for this field)
        total, kept = (rest + here.flip(1)[:, None, :]).max(2)
        bought.append((gains, PARTS - kept))
    z, left = x.clone(), torch.full((len(x), 1), PARTS, device=x.device)
    for offer, (gains, price) in zip(reversed(offered), reversed(bought), strict=True):
        paid = price.gather(1, left)
        option = gains.masked_fill(offer.price != paid, -torch.inf).argmax(1)
        z[:, offer.places] = offer.values[torch.arange(len(x), device=x.device), option]
        left = left - paid
    return z


def linear_maximum(x: Tensor, offered: list[FieldOptions], grad: Tensor) -> Tensor:
    """The rows (n, D) in reach that a gradient, shape of `x`, points to the farthest."""
    return solve(x, offered, lambda offer: ((offer.values - _own(x, offer)) * _own(grad, offer)).sum(2))


def project_onto_options(x: Tensor, offered: list[FieldOptions], z: Tensor) -> Tensor:
    """The rows (n, D) in reach that are nearest to any z, shape of `x`: a projection onto a set that is not convex."""
    return solve(x, offered, lambda offer: -((offer.values - _own(z, offer)) ** 2).sum(2))


def _own(x: Tensor, offer: FieldOptions) -> Tensor:
    return x[:, None, offer.places]
