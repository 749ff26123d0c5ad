"""The constraints of tabular attacks: valid rows of a table, and the changes that an attacker can make."""

import difflib
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import torch
from torch import Tensor

from aisec_lab.core.validation import SLACK


@dataclass(frozen=True)
class TabularConstraints:
    """The valid rows of a table, and the changes to them that an attacker can make.

    A *field* is a number, in one column, or a category, one-hot in a group of columns `name=word`. Numbers are in units
    of their column's range, [0, 1].

    Args:
        features: names of the D columns, as a dataset has them.
        mutable: the fields that the attacker can change; None for all.
        steps: for each integer-valued number, the number of steps from its smallest to its largest value.
        ranges: lowest and highest value that the attacker can give a number; 0 and 1 by default.
        rising: mutable numbers that can only increase.
        falling: mutable numbers that can only decrease.
        costs: cost of moving a number over its whole range, or of changing a category; 1 by default.

    Raises:
        ValueError: two fields of one name; a field that the table does not have, or has as a category and not as a
            number; ranges, steps or costs outside their domains.
    """

    features: Sequence[str]
    mutable: Sequence[str] | None = None
    steps: Mapping[str, int] = field(default_factory=dict)
    ranges: Mapping[str, Sequence[float]] = field(default_factory=dict)
    rising: Sequence[str] = ()
    falling: Sequence[str] = ()
    costs: Mapping[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        twice = [name for name, places in self.fields.items() if name in self.features and len(places) > 1]
        if twice or len(set(self.features)) < len(self.features):
            again = twice or [name for name in self.features if list(self.features).count(name) > 1]
            raise ValueError(
                f"the column {again[0]!r} appears twice, or as a number and as a category "
                f"({again[0]}=…): give each field a name of its own"
            )
        numbers = [name for name in self.fields if name in self.features]
        self._check_names("mutable", self.mutable or (), self.fields)
        self._check_names("costs", self.costs, self.fields)
        for where in ("steps", "ranges", "rising", "falling"):
            self._check_names(where, getattr(self, where), numbers)
        if not all(steps >= 1 and steps == int(steps) for steps in self.steps.values()):
            raise ValueError(f"steps are whole numbers from 1 up, got {dict(self.steps)}")
        if not all(0 <= low <= high <= 1 for low, high in self.ranges.values()):
            raise ValueError(f"ranges are pairs 0 <= low <= high <= 1, in units of a column's own, got {self.ranges}")
        if not all(0 < cost < float("inf") for cost in self.costs.values()):
            raise ValueError(f"costs are positive and finite (what cannot be paid is not mutable), got {self.costs}")

    @cached_property
    def fields(self) -> dict[str, list[int]]:
        """The positions of each field's columns."""
        places: dict[str, list[int]] = {}
        for place, name in enumerate(self.features):
            places.setdefault(name.partition("=")[0], []).append(place)
        return places

    @property
    def mutable_fields(self) -> list[str]:
        """The fields that can be changed, in the order of the table."""
        return [name for name in self.fields if self.mutable is None or name in self.mutable]

    def is_categorical(self, name: str) -> bool:
        """Whether a field is a category, one-hot in a group of columns."""
        return name not in self.features

    def bounds_within_budget(self, name: str, own: Tensor) -> tuple[Tensor, Tensor]:
        """The least and the largest value (n,) that the attacker can give a number.

        Args:
            name: of the number.
            own: its values (n,) in the rows. A value that is already outside the range cannot move farther out.
        """
        low, high = self.ranges.get(name, (0.0, 1.0))
        steps = self.steps.get(name)
        if steps is not None:  # the outermost integers in the range
            low, high = math.ceil(low * steps - SLACK) / steps, math.floor(high * steps + SLACK) / steps
        least = own if name in self.rising else own.clamp(max=low)
        return least, own if name in self.falling else own.clamp(min=high)

    def round_to_steps(self, name: str, values: Tensor) -> Tensor:
        """The nearest valid values of a number: in [0, 1], and on its grid if it is integer-valued."""
        values = values.clamp(0, 1)
        steps = self.steps.get(name)
        return values if steps is None else ((values.double() * steps).round() / steps).to(values.dtype)

    def project(self, x: Tensor) -> Tensor:
        """The nearest valid rows to any rows (N, D), in Euclidean distance."""
        z = x.clone()
        for name, places in self.fields.items():
            if self.is_categorical(name):
                z[:, places] = torch.eye(len(places)).to(x)[x[:, places].argmax(1)]
            else:
                z[:, places[0]] = self.round_to_steps(name, x[:, places[0]])
        return z

    def check(self, x: Tensor) -> None:
        """Refuse, with a ValueError that names row and field, rows (N, D) that are not valid."""
        if x.ndim != 2 or x.shape[1] != len(self.features):
            raise ValueError(f"the table has {len(self.features)} columns, got rows of shape {tuple(x.shape)}")
        off = (x - self.project(x)).abs() > SLACK
        if off.any():
            row, place = off.nonzero()[0].tolist()
            name = self.features[place]
            raise ValueError(f"row {row} has {x[row, place]:.6g} in {name!r}, which the table does not allow: mend it")

    def cost(self, x: Tensor, z: Tensor) -> Tensor:
        """The cost (N,), float64, of changing rows x (N, D) to rows z (N, D)."""
        moved = (z.double() - x.double()).abs()
        each = [
            self.costs.get(name, 1.0) * (moved[:, places].amax(1) if self.is_categorical(name) else moved[:, places[0]])
            for name, places in self.fields.items()
        ]
        return torch.stack(each, 1).sum(1)

    def _check_names(self, where: str, names: Iterable[str], known: Iterable[str]) -> None:
        """Refuse names of fields that are not known, with the nearest one as a hint."""
        for name in names:
            if name not in known:
                near = difflib.get_close_matches(name, list(known), 1)
                hint = f"did you mean {near[0]!r}? " if near else ""
                raise ValueError(f"{where} names no field {name!r}: {hint}there are {', '.join(known)}")
