"""The budget book: what is written, what is refused, and two writers at once."""

import fcntl
import json
import math
import multiprocessing
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import pytest
from scipy.optimize import brentq
from scipy.stats import norm

from aisec_lab.privacy.accounting import Mechanism, PrivacyStatement, SampledGaussian
from aisec_lab.trust import budget
from aisec_lab.trust.budget import Account, BudgetBook, Charge

ONE, TWO = "1" * 64, "2" * 64
DELTA = 1e-5


@pytest.fixture
def book(tmp_path: Path) -> BudgetBook:
    """With one account: epsilon 1 at delta 1e-5, on a thousand rows."""
    book = BudgetBook(tmp_path / "budget.json")
    book.open("data/adult", Account(ONE, 1000, 1.0, DELTA))
    return book


def release(name: str, epsilon: float, delta: float = 0.0) -> Charge:
    return Charge(name, (PrivacyStatement(epsilon, delta),))


def test_the_file_says_who_spent_what(book: BudgetBook) -> None:
    """For git: sorted, and nothing that another day or machine would write otherwise."""
    run = SampledGaussian(1, 20.0, 4)
    account = book.charge("data/adult", ONE, Charge("train", (run, PrivacyStatement(0.1))))
    alone = account.charges[0].alone
    assert json.loads(book.path.read_text()) == {
        "schema": 1,
        "datasets": {
            "data/adult": {
                "sha256": ONE,
                "rows": 1000,
                "epsilon": 1.0,
                "delta": DELTA,
                "charges": [
                    {
                        "name": "train",
                        "mechanisms": [
                            {"kind": "sampled_gaussian", "q": 1, "sigma": 20.0, "steps": 4},
                            {"kind": "statement", "epsilon": 0.1, "delta": 0.0},
                        ],
                        "alone": alone,
                    }
                ],
            }
        },
    }
    assert alone == account.spent
    assert book.accounts() == {"data/adult": account}
    other = BudgetBook(book.path.with_name("other.json"))
    for name, sha256 in (("data/zoo", TWO), ("data/adult", ONE)):
        other.open(name, Account(sha256, 1000, 1.0, DELTA))
    other.charge("data/adult", ONE, Charge("train", (run, PrivacyStatement(0.1))))
    book.open("data/zoo", Account(TWO, 1000, 1.0, DELTA))
    assert book.path.read_bytes() == other.path.read_bytes()


def test_runs_compose_and_promises_add(book: BudgetBook) -> None:
    """Without sampling, runs are one Gaussian mechanism (Balle & Wang, 2018, arXiv:1805.06530, eq. 6)."""
    sigmas = [16.0, 20.0, 12.0]
    for number, sigma in enumerate(sigmas):
        account = book.charge("data/adult", ONE, Charge(f"run {number}", (SampledGaussian(1, sigma, 1),)))
    total = math.sqrt(sum(sigma**-2 for sigma in sigmas))

    def excess(epsilon: float) -> float:
        within = norm.cdf(total / 2 - epsilon / total)
        return float(within - math.exp(epsilon) * norm.cdf(-total / 2 - epsilon / total) - DELTA)

    runs = brentq(excess, 0.01, 5)
    assert account.spent == pytest.approx(runs, rel=1e-3)
    assert account.spent < 0.7 * math.fsum(each.alone or math.nan for each in account.charges)
    left = 1 - account.spent
    assert book.charge("data/adult", ONE, release("count", left)).spent <= 1
    with pytest.raises(ValueError, match="past its limit 1 at delta 1e-05"):
        book.charge("data/adult", ONE, release("again", 0.1))


@pytest.mark.parametrize(("limit", "part", "parts"), [(1.0, 0.1, 10), (0.30015, 0.10005, 3)])
def test_a_budget_can_be_spent_to_its_end(limit: float, part: float, parts: int, tmp_path: Path) -> None:
    """Ten tenths are one, and so on, which floats are not always, in epsilon and in delta."""
    book = BudgetBook(tmp_path / "budget.json")
    book.open("data/adult", Account(ONE, 1000, limit, DELTA))
    for number in range(parts):
        account = book.charge("data/adult", ONE, release(f"{number}", part, DELTA / parts))
    assert account.spent == pytest.approx(limit)
    with pytest.raises(ValueError, match=f"past its limit {limit:g}"):
        book.charge("data/adult", ONE, release("more", 0.001))


class Refused(NamedTuple):
    call: Callable[[BudgetBook], object]
    match: str


@pytest.mark.parametrize(
    "case",
    [
        Refused(lambda book: book.charge("data/adult", ONE, release("more", 0.6)), "from epsilon 0.5 to 1.1, past"),
        Refused(lambda book: book.charge("data/adult", ONE, release("more", 0.1, 2e-5)), "to inf, past"),
        Refused(
            lambda book: book.charge("data/adult", ONE, Charge("bare", (SampledGaussian(0.01, 0.0, 1),))), "to inf"
        ),
        Refused(lambda book: book.charge("data/adult", ONE, release("first", 0.1)), "first was charged.*fresh noise"),
        Refused(lambda book: book.charge("data/adult", TWO, release("more", 0.1)), "has sha256 2222.*opened for 1111"),
        Refused(lambda book: book.charge("data/other", ONE, release("more", 0.1)), "no budget.*aisec budget open"),
        Refused(lambda book: book.open("data/adult", Account(ONE, 1000, 9.0, DELTA)), "data/adult has a budget"),
        Refused(lambda book: book.open("data/copy", Account(ONE, 1000, 9.0, DELTA)), "is data/adult byte for byte"),
        Refused(lambda book: book.open("data/new", Account(TWO, 1000, 0.0, DELTA)), "epsilon must be positive"),
        Refused(lambda book: book.open("data/new", Account(TWO, 1000, 1.0, 1e-3)), "delta must lie.*1/1000"),
        Refused(lambda book: book.open("data/new", Account("2", 1000, 1.0, DELTA)), "64 hexadecimal"),
        Refused(lambda book: book.charge("data/adult", ONE, release("two\nlines", 0.1)), "one printable line"),
        Refused(lambda book: book.charge("data/adult", ONE, Charge("empty", ())), "needs a mechanism"),
    ],
    ids=lambda case: case.match,
)
def test_what_is_refused_leaves_the_book_as_it_was(case: Refused, book: BudgetBook) -> None:
    """To the byte, with one line."""
    book.charge("data/adult", ONE, release("first", 0.5))
    before = book.path.read_bytes()
    with pytest.raises(ValueError, match=case.match) as caught:
        case.call(book)
    assert "\n" not in str(caught.value)
    assert book.path.read_bytes() == before


@pytest.mark.parametrize(
    ("old", "new", "match"),
    [
        ('"schema": 1', '"schema": 2', "schema 2, not 1"),
        ('"schema": 1', '"version": 1', "no budget book"),
        ("}", "", "no budget book"),
        ('"statement"', '"promise"', "no budget book"),
        ('"epsilon": 0.5', '"epsilon": -0.5', "no budget book"),
        ('"epsilon": 0.5', '"epsilon": NaN', "no budget book"),
        ('"rows": 1000', '"rows": 1000000', "no budget book.*delta"),
    ],
)
def test_a_book_that_says_otherwise_is_not_read(old: str, new: str, match: str, book: BudgetBook) -> None:
    """Nor written over."""
    book.charge("data/adult", ONE, release("first", 0.5))
    text = book.path.read_text()
    assert old in text
    book.path.write_text(text.replace(old, new))
    for call in (book.accounts, lambda: book.charge("data/adult", ONE, release("more", 0.1))):
        with pytest.raises(ValueError, match=match):
            call()
    assert book.path.read_text() == text.replace(old, new)


def test_a_merge_that_spends_too_much_is_seen(book: BudgetBook) -> None:
    """Each branch kept to the limit; both together do not, and nothing more is charged."""
    book.charge("data/adult", ONE, release("first", 0.9))
    merged = json.loads(book.path.read_text())
    charges = merged["datasets"]["data/adult"]["charges"]
    charges.append(charges[0] | {"name": "theirs"})
    book.path.write_text(json.dumps(merged))
    account = book.accounts()["data/adult"]
    assert account.exceeded
    assert account.spent == pytest.approx(1.8, rel=1e-3)
    with pytest.raises(ValueError, match="past its limit"):
        book.charge("data/adult", ONE, release("more", 0.001))


def test_nobody_waits_while_an_epsilon_is_computed(book: BudgetBook, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another charge is made meanwhile: it is counted, as is the one that was computed before it; the limit holds."""
    computed, others = budget.epsilon, iter([release("second", 0.3), release("third", 0.3)])

    def slow(mechanisms: Sequence[Mechanism], delta: float) -> float:
        with book.path.with_name(f".{book.path.name}.lock").open("a") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)  # fails where somebody holds it
        if len(mechanisms) > 1 and (other := next(others, None)):
            monkeypatch.setattr(budget, "epsilon", computed)
            book.charge("data/adult", ONE, other)
            monkeypatch.setattr(budget, "epsilon", slow)
        return computed(mechanisms, delta)

    book.charge("data/adult", ONE, release("first", 0.3))
    monkeypatch.setattr(budget, "epsilon", slow)
    with pytest.raises(ValueError, match=r"late would bring data/adult from epsilon 0\.8999 to 1\.2, past"):
        book.charge("data/adult", ONE, release("late", 0.3))
    assert [charge.name for charge in book.accounts()["data/adult"].charges] == ["first", "second", "third"]
    assert book.charge("data/adult", ONE, release("small", 0.1)).spent == pytest.approx(1.0, rel=1e-3)


def spend(book: BudgetBook, writer: str, start: object, done: object) -> None:
    """Charge ten tenths; say which were taken."""
    start.wait()  # type: ignore[attr-defined]
    taken = []
    for number in range(10):
        try:
            book.charge("data/adult", ONE, release(f"{writer}{number}", 0.1))
            taken.append(f"{writer}{number}")
        except ValueError as error:
            if "past its limit" not in str(error):
                raise
    done.put(taken)  # type: ignore[attr-defined]


def test_two_writers_lose_nothing_and_never_pass_the_limit(tmp_path: Path) -> None:
    """Twenty charges by two processes at once, of which fifteen fit: those and no others are in the book."""
    book = BudgetBook(tmp_path / "budget.json")
    book.open("data/adult", Account(ONE, 1000, 1.5, 1e-9))
    fresh = multiprocessing.get_context("spawn")  # a fork beside the threads of another test's JAX may deadlock
    start, done = fresh.Barrier(2), fresh.SimpleQueue()
    writers = [fresh.Process(target=spend, args=(book, name, start, done), daemon=True) for name in "ab"]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    assert [writer.exitcode for writer in writers] == [0, 0]
    taken = sorted([*done.get(), *done.get()])
    account = book.accounts()["data/adult"]
    assert sorted(charge.name for charge in account.charges) == taken
    assert len(taken) == 15
    assert not account.exceeded
