"""The ledger among processes: writers at once, and writers that are killed."""

import fcntl
import multiprocessing
import os
import resource
import shutil
import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from aisec_lab.trust import ENTRIES, HEAD, Ledger, LedgerChange, LedgerEntry, read_signing_key, verify

FORK = multiprocessing.get_context("fork")


@pytest.fixture
def key(tmp_path: Path) -> Ed25519PrivateKey:
    """Of the ledger below."""
    Ledger.create(tmp_path / "ledger", tmp_path / "key.pem")
    return read_signing_key(tmp_path / "key.pem")


@pytest.fixture
def ledger(key: Ed25519PrivateKey, tmp_path: Path) -> Ledger:
    """One without entries."""
    return Ledger(tmp_path / "ledger")


def change(why: str) -> LedgerChange:
    return LedgerChange("Ada", "accept", "data/digits", why)


def started(work: Callable[..., None], *arguments: Any) -> Any:
    process = FORK.Process(target=work, args=arguments, daemon=True)
    process.start()
    return process


def write(ledger: Ledger, key: Ed25519PrivateKey, writer: str, count: int) -> None:
    for number in range(count):
        ledger.append(change(f"{writer}{number}"), key)


def test_writers_at_once_lose_nothing_and_readers_see_no_half(ledger: Ledger, key: Ed25519PrivateKey) -> None:
    """Four processes, while a fifth verifies."""
    writers = [started(write, ledger, key, writer, 8) for writer in "abcd"]
    looks = 0
    while any(writer.is_alive() for writer in writers):
        verdict = verify(ledger, key.public_key())
        assert (verdict.fault, verdict.note) == (None, None)
        looks += 1
    assert looks > 1
    assert [writer.exitcode for writer in writers] == [0] * 4
    assert verify(ledger, key.public_key()).size == 32
    reasons = [LedgerEntry.parse(line).why for line in ledger.read().lines]
    for writer in "abcd":
        assert [why for why in reasons if why[0] == writer] == [f"{writer}{number}" for number in range(8)]


def test_a_kill_at_any_moment_leaves_it_valid(ledger: Ledger, key: Ed25519PrivateKey) -> None:
    """15 times, on one ledger: what was acknowledged is there, and at most one entry more."""
    random = Random(0)
    total = 0
    for _ in range(15):
        reader, writer = os.pipe()

        def work(acknowledge: int = writer) -> None:
            while True:
                os.write(acknowledge, b"%d\n" % ledger.append(change("x" * 5_000), key).index)

        process = started(work)
        os.close(writer)
        with os.fdopen(reader, "rb") as acknowledged:
            first = acknowledged.readline()
            time.sleep(random.uniform(0, 0.03))
            process.kill()
            process.join()
            last = int([first, *acknowledged.read().splitlines()][-1])
        verdict = verify(ledger, key.public_key())
        assert verdict.intact, str(verdict)
        assert last + 1 <= verdict.size <= last + 2
        assert verdict.size > total
        total = verdict.size


@pytest.mark.parametrize(
    ("sync", "entries", "note"),
    [
        (1, 3, "entry 2 is signed but not yet under the head"),  # the line is written
        (2, 3, "entry 2 is signed but not yet under the head"),  # and on the disk, and the new head lies beside
        (3, 3, None),  # and in its place
    ],
)
def test_a_kill_between_two_steps_leaves_it_valid(
    sync: int, entries: int, note: str | None, ledger: Ledger, key: Ed25519PrivateKey
) -> None:
    """Each time that an append waits for the disk; the next one goes on, and leaves nothing behind."""
    write(ledger, key, "before", 2)

    def work() -> None:
        calls = iter(range(1, 9))
        os.fsync = lambda _: os.kill(os.getpid(), signal.SIGKILL) if next(calls) == sync else None
        ledger.append(change("killed"), key)

    process = started(work)
    process.join()
    assert process.exitcode == -signal.SIGKILL
    verdict = verify(ledger, key.public_key())
    assert (verdict.intact, verdict.size) == (True, entries)
    assert (verdict.note or "").startswith(note or "")
    assert bool(verdict.note) == bool(note)
    assert ledger.append(change("after"), key).index == entries
    assert str(verify(ledger, key.public_key())) == f"intact, {entries + 1} entries"
    assert sorted(path.name for path in ledger.folder.iterdir()) == [
        ".gitattributes", ENTRIES, HEAD, "public_key.pem",
    ]  # fmt: skip


def test_a_torn_line_is_named_and_the_next_append_removes_it(ledger: Ledger, key: Ed25519PrivateKey) -> None:
    """A write that the system cut short at a hundred bytes."""
    write(ledger, key, "before", 2)
    size = (ledger.folder / ENTRIES).stat().st_size

    def work() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (size + 100, size + 100))
        try:
            ledger.append(change("torn"), key)
        finally:
            os.kill(os.getpid(), signal.SIGKILL)

    started(work).join()
    assert (ledger.folder / ENTRIES).stat().st_size == size + 100
    verdict = verify(ledger, key.public_key())
    assert (verdict.intact, verdict.size) == (True, 2)
    assert "the last line is torn and was never acknowledged" in str(verdict)
    assert ledger.append(change("after"), key).index == 2
    assert str(verify(ledger, key.public_key())) == "intact, 3 entries"
    assert "torn" not in str(ledger.read().lines)


def test_a_file_that_git_replaces_meanwhile_is_the_one_written_to(ledger: Ledger, key: Ed25519PrivateKey) -> None:
    """`git checkout` puts another file in place of the one for whose lock an append waits."""
    write(ledger, key, "before", 2)
    entries = ledger.folder / ENTRIES
    with entries.open("rb") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        waiting = threading.Thread(target=write, args=(ledger, key, "after", 1))
        waiting.start()
        time.sleep(0.1)
        shutil.copy(entries, ledger.folder / "other")
        (ledger.folder / "other").replace(entries)
    waiting.join()
    assert str(verify(ledger, key.public_key())) == "intact, 3 entries"
