"""A chain of filters within a time budget: the cheap ones first, and what does not fit is skipped and counted."""

import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Generic

import torch
from torch import Tensor

from aisec_lab.guard.filters import Filter, FilterDecision, FilterResult, Rows

SMOOTHING = 1 / 8  # weight of a new duration in its mean, as for the round-trip time of TCP (RFC 6298, section 2)
DEVIATION = 1 / 4  # and in its mean deviation
DEVIATIONS = 4  # a filter fits if its mean duration and so many deviations are left
FADING = 0.9  # of the expected duration at each skip, so that a filter that was slow once is tried again


@dataclass
class Duration:
    """The expected duration of a filter: a smoothed mean and mean deviation (RFC 6298, section 2), in seconds."""

    mean: float = 0.0
    deviation: float = 0.0

    @property
    def expected(self) -> float:
        """The time to reserve, in seconds; 0 before the first measurement."""
        return self.mean + DEVIATIONS * self.deviation

    def measured(self, seconds: float) -> None:
        """Take a new duration into account."""
        if not self.mean:
            self.mean, self.deviation = seconds, seconds / 2
        else:
            self.deviation += DEVIATION * (abs(seconds - self.mean) - self.deviation)
            self.mean += SMOOTHING * (seconds - self.mean)

    def fade(self) -> None:
        """Expect less, after a skip."""
        self.mean, self.deviation = self.mean * FADING, self.deviation * FADING


@dataclass(frozen=True)
class ChainResult(FilterResult[Rows], Generic[Rows]):
    """What a chain decided on the N rows of a request.

    Args:
        rows, decisions, reasons: those of the filter that decided, see `FilterResult`.
        scores: those of the filter that decided; NaN for a row that passes as it is.
        decided_by: for each row the name of the filter that decided; empty for a row that passes as it is.
        filter_scores: for each filter that ran its scores (N,), NaN for rows that it did not get.
        skipped: names of the filters that did not fit the budget, in their order.
    """

    decided_by: tuple[str, ...] = ()
    filter_scores: Mapping[str, Tensor] = field(default_factory=dict)
    skipped: tuple[str, ...] = ()


@dataclass(eq=False)
class FilterChain(Generic[Rows]):
    """Run filters in order; a row that one rejects is not given to the next.

    Before each filter the chain compares its expected duration with the time that is left. If it does not fit, the
    filter is skipped, counted, and named in the result. `required` filters always run. An attacker who slows the
    service down can so switch filters off: `skip_rejects` refuses such requests instead.

    Args:
        filters: with different names. The cheap ones should come first.
        budget: seconds for a request, from its arrival; infinite for no limit.
        required: names of the filters that are never skipped.
        skip_rejects: reject all rows of a request that skipped a filter, instead of passing them unchecked.
        clock: returns the current time in seconds; it never decreases.
        name: of the chain, which is itself a filter.

    Attributes:
        skips: how often each filter was skipped.
        decisions: how many rows each filter sanitised and rejected, by (name, `FilterDecision`).

    Raises:
        ValueError: no filter, two of one name, a budget that is not positive, an unknown name in `required`.
    """

    filters: Sequence[Filter[Rows]]
    budget: float = float("inf")
    required: Sequence[str] = ()
    skip_rejects: bool = False
    clock: Callable[[], float] = time.perf_counter
    name: str = "chain"
    skips: Counter[str] = field(default_factory=Counter, init=False)
    decisions: Counter[tuple[str, FilterDecision]] = field(default_factory=Counter, init=False)

    def __post_init__(self) -> None:
        names = [each.name for each in self.filters]
        if not names or len(set(names)) < len(names):
            raise ValueError(f"a chain has at least one filter, and no two of one name, got {names}")
        if not self.budget > 0:
            raise ValueError(f"the budget is a time in seconds above 0, got {self.budget}")
        if unknown := sorted(set(self.required) - set(names)):
            raise ValueError(f"required names {', '.join(unknown)}: the filters are {', '.join(names)}")
        self._durations = {name: Duration() for name in names}

    def check(self, rows: Rows, *, client: str, arrived: float | None = None) -> ChainResult[Rows]:
        """Judge the rows of a request.

        Args:
            rows: inputs (N, *input), or N texts; they are not changed.
            client: name of the credential that asks.
            arrived: when the request arrived, by `clock`; now by default. Time in a queue counts against the budget.

        Returns:
            The decision on each row.
        """
        begin = now = self.clock()
        left = self.budget - (0 if arrived is None else begin - arrived)
        state, skipped = _Rows(rows), []
        for each in self.filters:
            duration = self._durations[each.name]
            if each.name not in self.required and duration.expected > left - (now - begin):
                duration.fade()
                self.skips[each.name] += 1
                skipped.append(each.name)
            elif len(state.standing):
                state.add(each.name, each.check(state.current, client=client))
                before, now = now, self.clock()
                duration.measured(now - before)
        if skipped and self.skip_rejects:
            state.reject(f"too busy: {', '.join(skipped)} skipped")
        for name, decision in zip(state.decided_by, state.decisions.tolist(), strict=True):
            if name:
                self.decisions[name, FilterDecision(decision)] += 1
        return state.result(tuple(skipped))


class _Rows(Generic[Rows]):
    """The rows of a request on their way through a chain."""

    def __init__(self, rows: Rows) -> None:
        n = len(rows)
        self.rows: Rows = rows
        self.current: Rows = rows
        self.standing = torch.arange(n)
        self.decisions, self.scores = torch.zeros(n, dtype=torch.int64), torch.full((n,), torch.nan).double()
        self.reasons, self.decided_by = [""] * n, [""] * n
        self.filter_scores: dict[str, Tensor] = {}

    def add(self, name: str, result: FilterResult[Rows]) -> None:
        """Take over a filter's decisions on the rows that still stand."""
        self.filter_scores[name] = self._on_all(result.scores)
        self.current = result.rows
        if not result.decisions.any():
            return
        decided = result.decisions.nonzero()[:, 0]
        places = self.standing[decided]
        self.decisions[places], self.scores[places] = result.decisions[decided], result.scores[decided]
        for row, place in zip(decided.tolist(), places.tolist(), strict=True):
            self.reasons[place], self.decided_by[place] = result.reasons[row], name
        kept = (~result.rejected).nonzero()[:, 0]
        if len(kept) < len(self.standing):
            self.standing, self.current = self.standing[kept], _taken(self.current, kept)

    def _on_all(self, scores: Tensor) -> Tensor:
        """The scores of the standing rows, with NaN for the others."""
        if len(self.standing) == len(self.rows):
            return scores
        return torch.full((len(self.rows),), torch.nan).double().index_copy(0, self.standing, scores)

    def reject(self, reason: str) -> None:
        """Reject what still stands."""
        self.decisions[self.standing] = int(FilterDecision.REJECT)
        for place in self.standing.tolist():
            self.reasons[place], self.decided_by[place] = reason, "budget"
        self.standing = self.standing[:0]

    def result(self, skipped: tuple[str, ...]) -> ChainResult[Rows]:
        rows = self.rows
        if (self.decisions == FilterDecision.SANITISE).any():
            rows = _replaced(rows, self.standing, self.current)
        return ChainResult(
            rows, self.decisions, self.scores, tuple(self.reasons), tuple(self.decided_by), self.filter_scores, skipped
        )


def _taken(rows: Rows, places: Tensor) -> Rows:
    return rows[places] if isinstance(rows, Tensor) else tuple(rows[place] for place in places.tolist())


def _replaced(rows: Rows, places: Tensor, new: Rows) -> Rows:
    """The rows with others at some places."""
    if isinstance(rows, Tensor):
        return rows.index_copy(0, places, new)
    texts = list(rows)
    for place, text in zip(places.tolist(), new, strict=True):
        texts[place] = text
    return tuple(texts)
