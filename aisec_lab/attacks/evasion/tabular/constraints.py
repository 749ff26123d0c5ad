"""What a row of a table may be, and what an attacker may turn it into: the space of tabular attacks."""

import difflib
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import torch
from torch import Tensor

from aisec_lab.attacks.evasion.attack import SLACK


@dataclass(frozen=True)
class TabularConstraints:
    """The space of a table's rows, and the changes to them that an attacker can make.

    A *field* is what a person would fill in: a column, or a group of columns `name=word` of which one is 1. Numbers are
    in units of their column's range, [0, 1].

    Args:
        features: names of the columns, D of them, as a dataset has them.
        mutable: the fields that the attacker can change; all of them where it is None.
        steps: whole numbers; for each the number of steps from its smallest to its largest value.
        ranges: the lowest and highest value to which the attacker can bring a number; 0 and 1 where it is not named.
        rising, falling: mutable numbers that can only become larger, or smaller.
        costs: what it costs to move a number over its whole range, or to change a word; 1 where it is not named.

    Raises:
        ValueError: two fields of one name; a field that the table lacks, or has as a word and not as a number; a range,
            a step or a cost that cannot be.
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
                f"the column {again[0]!r} stands twice, or as a number and as a group of words "
                f"({again[0]}=…): give each field a name of its own"
            )
        numbers = [name for name in self.fields if name in self.features]
        self._known("mutable", self.mutable or (), self.fields)
        self._known("costs", self.costs, self.fields)
        for where in ("steps", "ranges", "rising", "falling"):
            self._known(where, getattr(self, where), numbers)
        if not all(steps >= 1 and steps == int(steps) for steps in self.steps.values()):
            raise ValueError(f"steps are whole numbers from 1 up, got {dict(self.steps)}")
        if not all(0 <= low <= high <= 1 for low, high in self.ranges.values()):
            raise ValueError(f"ranges are pairs 0 <= low <= high <= 1, in units of a column's own, got {self.ranges}")
        if not all(0 < cost < float("inf") for cost in self.costs.values()):
            raise ValueError(f"costs are positive and finite (what cannot be paid is not mutable), got {self.costs}")

    @cached_property
    def fields(self) -> dict[str, list[int]]:
        """The places of each field's columns."""
        places: dict[str, list[int]] = {}
        for place, name in enumerate(self.features):
            places.setdefault(name.partition("=")[0], []).append(place)
        return places

    @property
    def mutable_fields(self) -> list[str]:
        """The fields that can be changed, in the order of the table."""
        return [name for name in self.fields if self.mutable is None or name in self.mutable]

    def is_word(self, name: str) -> bool:
        """Whether a field is a group of columns, one of them 1."""
        return name not in self.features

    def bounds_within_budget(self, name: str, own: Tensor) -> tuple[Tensor, Tensor]:
        """The least and the largest value (n,) to which the attacker can bring the values `own` (n,) of a number.

        A value that lies outside the range already can be brought no farther out.
        """
        low, high = self.ranges.get(name, (0.0, 1.0))
        steps = self.steps.get(name)
        if steps is not None:  # the outermost whole numbers inside
            low, high = math.ceil(low * steps - SLACK) / steps, math.floor(high * steps + SLACK) / steps
        least = own if name in self.rising else own.clamp(max=low)
        return least, own if name in self.falling else own.clamp(min=high)

    def round_to_steps(self, name: str, values: Tensor) -> Tensor:
        """The nearest values that a number may take: in [0, 1], and on its grid if it is whole."""
        values = values.clamp(0, 1)
        steps = self.steps.get(name)
        return values if steps is None else ((values.double() * steps).round() / steps).to(values.dtype)

    def project(self, x: Tensor) -> Tensor:
        """The nearest rows of the space to any rows (N, D), in Euclidean distance."""
        z = x.clone()
        for name, places in self.fields.items():
            if self.is_word(name):
                z[:, places] = torch.eye(len(places)).to(x)[x[:, places].argmax(1)]
            else:
                z[:, places[0]] = self.round_to_steps(name, x[:, places[0]])
        return z

    def check(self, x: Tensor) -> None:
        """Refuse, with a ValueError that names row and field, rows (N, D) that are not in the space."""
        if x.ndim != 2 or x.shape[1] != len(self.features):
            raise ValueError(f"the table has {len(self.features)} columns, got rows of shape {tuple(x.shape)}")
        off = (x - self.project(x)).abs() > SLACK
        if off.any():
            row, place = off.nonzero()[0].tolist()
            name = self.features[place]
            raise ValueError(f"row {row} has {x[row, place]:.6g} in {name!r}, which the table does not allow: mend it")

    def cost(self, x: Tensor, z: Tensor) -> Tensor:
        """What it costs to turn rows x (N, D) into rows z: shape (N,), float64."""
        moved = (z.double() - x.double()).abs()
        each = [
            self.costs.get(name, 1.0) * (moved[:, places].amax(1) if self.is_word(name) else moved[:, places[0]])
            for name, places in self.fields.items()
        ]
        return torch.stack(each, 1).sum(1)

    def _known(self, where: str, names: Iterable[str], known: Iterable[str]) -> None:
        for name in names:
            if name not in known:
                near = difflib.get_close_matches(name, list(known), 1)
                hint = f"did you mean {near[0]!r}? " if near else ""
                raise ValueError(f"{where} names no field {name!r}: {hint}there are {', '.join(known)}")
