"""The gate: what was claimed against what was found."""

import re
from collections.abc import Iterator

import pytest
import torch

from aisec_lab.evaluation import claims, compare_claims, machine, metrics, rate, tidy

CLAIMED = {
    "a": {"value": 0.8, "low": 0.7, "high": 0.9},
    "b": {"value": 0.5, "low": 0.4, "high": 0.6},
}


def found(a: float, b: float) -> dict[str, dict[str, float]]:
    """Measurements with intervals that the gate should not look at."""
    return {name: {"value": value, "low": 0.0, "high": 1.0} for name, value in (("a", a), ("b", b))}


@pytest.mark.parametrize(
    ("a", "identical", "reproduced"),
    [
        (0.8, True, True),
        (0.8000001, True, False),
        (0.8000001, False, True),
        (0.7, False, True),
        (0.9, False, True),
        (0.699, False, False),
        (0.901, False, False),
        (float("nan"), False, False),
    ],
)
def test_the_same_machine_owes_equal_values_another_one_the_claimed_interval(
    a: float, identical: bool, reproduced: bool
) -> None:
    """The ends belong to the interval."""
    verdicts = compare_claims(found(a, 0.5), CLAIMED, identical=identical)
    assert [verdict.reproduced for verdict in verdicts] == [reproduced, True]
    assert [verdict.claim for verdict in verdicts] == ["a", "b"]
    assert (verdicts[0].claimed, verdicts[0].low, verdicts[0].high) == (0.8, 0.7, 0.9)


@pytest.mark.parametrize("identical", [True, False])
def test_a_claim_that_was_not_computed_is_not_reproduced(identical: bool) -> None:
    """Nor does what nobody claimed count."""
    here = {"b": CLAIMED["b"], "c": CLAIMED["a"]}
    first, second = compare_claims(here, CLAIMED, identical=identical)
    assert not first.reproduced
    assert first.found is None
    assert second.reproduced
    assert compare_claims({}, {}, identical=identical) == []


def test_a_verdict_reads_as_a_line() -> None:
    """What was claimed, with its interval, and what was found."""
    good, bad = compare_claims(found(0.8, 0.61), CLAIMED, identical=False)
    assert str(good) == "reproduced      a: claimed 0.8000 [0.7000, 0.9000], found 0.8000"
    assert str(bad) == "NOT reproduced  b: claimed 0.5000 [0.4000, 0.6000], found 0.6100"
    (missing,) = compare_claims({}, {"a": CLAIMED["a"]}, identical=True)
    assert str(missing).endswith("found not computed")


def test_claims_name_every_measurement_that_has_an_interval() -> None:
    """By study, data, model, defense, seed, metric and threat; costs have no interval and are not claimed."""
    common = {"study": "robustness", "data": "digits", "model": "cnn", "defense": "trades", "seed": 0}
    threat = {"attack": "pgd", "knob": "Linf", "level": 0.15}
    table = tidy(
        [
            rate("clean_accuracy", 9, 10, attack="none", **common),
            rate("robust_accuracy", 5, 10, **common, **threat),
            rate("robust_accuracy", 4, 10, **common, **threat | {"level": 0.2}),
            {"metric": "training_forward_passes", "value": 20, "attack": "none"} | common,
        ]
    )
    claimed = claims(table)
    assert {name: claim["value"] for name, claim in claimed.items()} == {
        "robustness, digits, cnn, trades, seed 0: clean_accuracy": 0.9,
        "robustness, digits, cnn, trades, seed 0: robust_accuracy under pgd at Linf 0.15": 0.5,
        "robustness, digits, cnn, trades, seed 0: robust_accuracy under pgd at Linf 0.2": 0.4,
    }
    assert claimed["robustness, digits, cnn, trades, seed 0: clean_accuracy"]["low"] == rate("", 9, 10)["low"]
    assert metrics(table, {"name": "digits", "sha256": "ab", "licence": "x"}, "0123") == {
        "data": {"name": "digits", "sha256": "ab"},
        "machine": "0123",
        "claims": claimed,
    }


def test_claims_that_their_names_do_not_tell_apart_are_refused() -> None:
    """Else one of them would silently not be held to: a name gives a level to six digits."""
    common = {"study": "robustness", "data": "digits", "model": "cnn", "defense": "trades", "seed": 0, "attack": "pgd"}
    table = tidy([rate("robust_accuracy", 5, 10, knob="Linf", level=level, **common) for level in (0.1, 0.1 + 1e-9)])
    with pytest.raises(
        ValueError, match="two measurements are called 'robustness, digits, cnn, trades, seed 0: robust"
    ):
        claims(table)


@pytest.fixture
def _two_threads() -> Iterator[None]:
    """And back to the number before."""
    threads = torch.get_num_threads()
    torch.set_num_threads(threads + 1)
    yield
    torch.set_num_threads(threads)


def test_a_machine_is_named_without_saying_which_it_is() -> None:
    """Twelve digits, the same each time."""
    assert re.fullmatch("[0-9a-f]{12}", machine())
    assert machine() == machine()


def test_a_machine_has_one_name_whoever_asks(request: pytest.FixtureRequest) -> None:
    """The stages' kernels have one thread, whatever the shell has that collects their results."""
    before = machine()
    request.getfixturevalue("_two_threads")
    assert machine() == before
