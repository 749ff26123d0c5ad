"""The chain: the first decision holds, and filters that do not fit the budget are skipped and counted."""

from dataclasses import dataclass

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from aisec_lab.guard import FilterChain, FilterDecision, FilterResult, SchemaFilter

REJECT, SANITISE = int(FilterDecision.REJECT), int(FilterDecision.SANITISE)


@dataclass
class Clock:
    """Time that only filters spend."""

    now: float = 0.0

    def __call__(self):
        return self.now


@dataclass
class Scripted:
    """A filter of numbers (N, 1) that decides by their value, takes a stated time, and remembers what it got."""

    name: str
    rejects: set[int] = frozenset()
    halves: set[int] = frozenset()
    clock: Clock = None
    seconds: float = 0.0

    def __post_init__(self):
        self.got = []

    def check(self, rows, *, client):
        values = [int(value) for value in rows[:, 0].tolist()]
        self.got.append((client, values))
        if self.clock is not None:
            self.clock.now += self.seconds
        decisions = [REJECT if v in self.rejects else SANITISE if v in self.halves else 0 for v in values]
        halved = torch.tensor([[value / 2 if value in self.halves else value] for value in values]).view(-1, 1).float()
        return FilterResult(
            halved,
            torch.tensor(decisions).long(),
            torch.tensor(values).double(),
            tuple(
                f"{self.name} {value}" if decision else "" for value, decision in zip(values, decisions, strict=True)
            ),
        )


def numbers(*values):
    return torch.tensor(values).view(-1, 1).float()


VALUES = st.sets(st.sampled_from(range(0, 12, 2)))


@given(
    st.lists(st.tuples(VALUES, VALUES), min_size=1, max_size=4), st.lists(st.sampled_from(range(0, 12, 2)), max_size=8)
)
@settings(max_examples=100, deadline=None)
def test_a_chain_is_its_filters_one_after_the_other_on_each_row(scripts, values):
    """Against a loop over rows; a filter gets the rows that stand, as the former filters have left them."""
    filters = [Scripted(f"f{place}", rejects, halves) for place, (rejects, halves) in enumerate(scripts)]
    chain = FilterChain(filters)
    result = chain.check(numbers(*values), client="a")
    for row, value in enumerate(values):
        decided, reason, by = 0, "", ""
        for each in filters:
            decision = REJECT if value in each.rejects else SANITISE if value in each.halves else 0
            if decision:
                decided, reason, by = decision, f"{each.name} {value}", each.name
            if decision == REJECT:
                break
            if decision == SANITISE:
                value = int(value / 2)
        assert (result.decisions[row], result.reasons[row], result.decided_by[row]) == (decided, reason, by)
        if decided != REJECT:
            assert result.rows[row].item() == value
    assert sum(chain.decisions.values()) == (result.decisions > 0).sum()


def test_rows_that_pass_are_handed_on_as_they_are():
    """The same tensor, so that filters can share what they compute of it."""
    rows = torch.rand(4, 3)
    result = FilterChain([SchemaFilter((3,))]).check(rows, client="a")
    assert result.rows is rows
    assert result.scores.isnan().all()
    assert result.filter_scores["schema"].tolist() == [0] * 4


def test_a_filter_that_does_not_fit_is_skipped_and_tried_again():
    """The slow one takes all: it is skipped until its expected duration has faded, and the required one never is."""
    clock = Clock()
    first, slow, last = (Scripted(name, clock=clock, seconds=s) for name, s in (("a", 0.1), ("b", 5.0), ("c", 0.1)))
    chain = FilterChain([first, slow, last], budget=1.0, required=["c"], clock=clock)
    skipped = [chain.check(numbers(1), client="x").skipped for _ in range(60)]
    assert skipped[0] == ()  # nothing is known of it
    assert skipped[1:12] == [("b",)] * 11
    assert 2 <= len(slow.got) <= 5
    assert len(first.got) == len(last.got) == 60
    assert chain.skips == {"b": 60 - len(slow.got)}


def test_time_in_the_queue_counts_and_load_that_ends_brings_every_filter_back():
    clock = Clock()
    filters = [Scripted(name, clock=clock, seconds=0.1) for name in "ab"]
    chain = FilterChain(filters, budget=1.0, clock=clock)
    for _ in range(30):
        chain.check(numbers(1), client="x")
    clock.now = 100.0
    assert chain.check(numbers(1), client="x", arrived=99.05).skipped == ("a", "b")
    assert chain.check(numbers(1), client="x", arrived=99.7).skipped == ()


def test_skipping_may_reject_instead():
    """Else who slows the service down switches its filters off."""
    clock = Clock(10.0)
    chain = FilterChain(
        [Scripted("a", rejects={2}, clock=clock, seconds=0.1), Scripted("b", clock=clock, seconds=9)],
        budget=1.0,
        skip_rejects=True,
        clock=clock,
    )
    chain.check(numbers(1), client="x")
    result = chain.check(numbers(1, 2), client="x")
    assert result.rejected.all()
    assert result.reasons == ("too busy: b skipped", "a 2")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"filters": []}, "at least one filter"),
        ({"filters": [Scripted("a"), Scripted("a")]}, "no two of one name"),
        ({"filters": [Scripted("a")], "budget": 0}, "seconds above 0"),
        ({"filters": [Scripted("a")], "required": ["b"]}, "required names b: the filters are a"),
    ],
)
def test_chains_that_cannot_work_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        FilterChain(**settings)
