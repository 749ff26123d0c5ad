"""Refusals in the ledger: each is counted, few are entries."""

import threading
from pathlib import Path

import pytest

from aisec_lab.trust import Ledger, LedgerEntry, read_signing_key, verify
from aisec_lab.workbench.service.database import Database
from aisec_lab.workbench.service.journal import Bookkeeper, Event, Every, Journal

NOW = 1_700_000_000.0  # 2023-11-14T22:13:20Z
EVENT = Event("client", "refuse", "models/cnn", "over the limit of its key")
OTHER = Event("nobody", "refuse", "models/cnn", "no valid key")


@pytest.fixture
def book(tmp_path: Path) -> Bookkeeper:
    database = Database(tmp_path / "service.db")
    database.create()
    ledger = Ledger.create(tmp_path / "ledger", tmp_path / "key.pem")
    return Bookkeeper(database, ledger, read_signing_key(tmp_path / "key.pem"))


def said(book: Bookkeeper) -> list[tuple[str, str]]:
    entries = map(LedgerEntry.parse, book.ledger.read().lines)
    return [(entry.who, entry.why) for entry in entries]


def test_a_flood_is_two_entries_a_minute(book: Bookkeeper, monkeypatch: pytest.MonkeyPatch) -> None:
    """The first at once; all others of the minute when it is over; every single one counted."""
    monkeypatch.setattr("time.time", lambda: NOW)
    journal = Journal(book.database)
    journal.count(EVENT)
    journal.flush()
    assert book.write(now=NOW) == 1
    for _ in range(5000):
        journal.count(EVENT)
    journal.count(OTHER)
    journal.flush()
    assert book.write(now=NOW + 1) == 1
    assert book.write(now=NOW + 2) == 0
    monkeypatch.setattr("time.time", lambda: NOW + 60)
    journal.count(EVENT)
    journal.flush()
    assert book.write(now=NOW + 60) == 2
    assert book.write(now=NOW + 120) == 0
    assert said(book) == [
        ("client", "over the limit of its key: 1 in the minute 2023-11-14T22:13Z"),
        ("nobody", "no valid key: 1 in the minute 2023-11-14T22:13Z"),
        ("client", "over the limit of its key: 5000 more in the minute 2023-11-14T22:13Z"),
        ("client", "over the limit of its key: 1 in the minute 2023-11-14T22:14Z"),
    ]
    assert verify(book.ledger, book.key.public_key()).intact
    assert book.database.read("SELECT * FROM events") == []


def test_workers_add_up(book: Bookkeeper, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also while they count and flush at the same time."""
    monkeypatch.setattr("time.time", lambda: NOW)
    journals = [Journal(book.database) for _ in range(3)]

    def work(journal: Journal) -> None:
        for _ in range(10):
            for _ in range(7):
                journal.count(EVENT)
            journal.flush()

    threads = [threading.Thread(target=work, args=(journal,)) for journal in journals]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    book.write(now=NOW)
    assert said(book) == [("client", "over the limit of its key: 210 in the minute 2023-11-14T22:13Z")]


def test_what_was_counted_before_a_kill_is_written_after_it(book: Bookkeeper) -> None:
    """Another bookkeeper on the same files."""
    journal = Journal(book.database)
    journal.count(EVENT)
    journal.flush()
    assert Bookkeeper(Database(book.database.path), book.ledger, book.key).write() == 1


def test_a_repeated_call_outlives_its_errors_and_comes_once_more_at_the_end() -> None:
    calls: list[int] = []
    errors: list[Exception] = []
    twice = threading.Event()

    def call() -> None:
        calls.append(1)
        if len(calls) > 1:
            twice.set()
        raise OSError("the disk is full")

    thread = Every(0.001, call, errors.append)
    thread.start()
    assert twice.wait(60)
    before = len(calls)
    thread.stop()
    assert not thread.is_alive()
    assert len(calls) > before - 1
    assert len(errors) == len(calls) >= 2
