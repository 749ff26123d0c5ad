"""Limits that several processes share, on the embedded store."""

import asyncio
import multiprocessing
import os
import random
import signal
import time
from collections import Counter
from collections.abc import Iterator
from itertools import chain
from pathlib import Path

import pytest

from aisec_lab.workbench.service.rate_limits import Admission, SharedRateLimiter
from aisec_lab.workbench.service.settings import LimitSettings, RateLimit
from aisec_lab.workbench.service.store import EmbeddedStore

ADMITTED, CLIENT, TOTAL, LOST = Admission
PATIENCE = 10.0
SPAWN = multiprocessing.get_context("spawn")


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedStore]:
    store = EmbeddedStore(tmp_path_factory.mktemp("limits") / "store")
    try:
        store.start()
        yield store
    finally:
        store.stop()


def limiter(
    url: str, each: int, everybody: int = 10**6, seconds: int = 3600, patience: float = PATIENCE
) -> SharedRateLimiter:
    return SharedRateLimiter(
        LimitSettings(RateLimit(each, seconds), RateLimit(everybody, seconds), patience=patience), url
    )


def ask(url: str, each: int, credentials: list[str], everybody: int = 10**6) -> list[Admission]:
    """What becomes of requests of these credentials that come at once."""

    async def all_of_them() -> list[Admission]:
        one = limiter(url, each, everybody)
        return list(await asyncio.gather(*map(one.admit, credentials)))

    return asyncio.run(all_of_them())


@pytest.fixture
def empty(store: EmbeddedStore) -> str:
    """The URL of the store, without what other tests counted."""
    import valkey

    store.start()
    with valkey.Valkey(unix_socket_path=str(store.socket)) as client:
        client.flushall()
    return store.url


@pytest.mark.parametrize("workers", [1, 2, 4])
def test_exactly_100_of_300_are_admitted(workers: int, empty: str) -> None:
    """However many processes they come to at the same time."""
    with SPAWN.Pool(workers) as pool:
        share = [["one key"] * (300 // workers)] * workers
        answers = Counter(chain.from_iterable(pool.starmap(ask, [(empty, 100, each) for each in share])))
    assert answers == {ADMITTED: 100, CLIENT: 200}


def test_many_keys_of_one_thief_share_the_limit_of_all(empty: str) -> None:
    """Forty accounts, each far below its own limit."""
    keys = [f"account {place % 40}" for place in range(300)]
    assert Counter(ask(empty, 100, keys, everybody=100)) == {ADMITTED: 100, TOTAL: 200}


def test_what_one_limit_refuses_uses_up_none_of_the_other(empty: str) -> None:
    answers = ask(empty, 2, ["a"] * 50 + ["b"] * 50, everybody=3)
    assert answers[:50] == [ADMITTED] * 2 + [CLIENT] * 48
    assert answers[50:] == [ADMITTED] + [TOTAL] * 49
    assert ask(empty, 2, ["b"] * 2, everybody=5) == [ADMITTED, CLIENT]  # one was used, not fifty


def test_a_window_moves(empty: str) -> None:
    """Requests are admitted again, and between any one and the twentieth after it a whole window has passed."""

    async def flood() -> list[tuple[float, float]]:
        one, admitted, generator = limiter(empty, 20, seconds=1), [], random.Random(0)
        while len(admitted) < 50:
            before = time.monotonic()
            if await one.admit("key") is ADMITTED:
                admitted.append((before, time.monotonic()))
            await asyncio.sleep(generator.random() / 50)
        return admitted

    admitted = asyncio.run(flood())
    assert all(later[1] - earlier[0] >= 1 for earlier, later in zip(admitted, admitted[20:], strict=False))


def test_a_killed_store_counts_on_where_it_was(tmp_path: Path) -> None:
    """Twice: SIGKILL, what cannot be counted meanwhile, and a new server in which the window is as full as before."""
    store = EmbeddedStore(tmp_path / "store")
    try:
        store.start()
        assert Counter(ask(store.url, 100, ["key"] * 60)) == {ADMITTED: 60}
        for more, expected in ((30, {ADMITTED: 30}), (30, {ADMITTED: 10, CLIENT: 20})):
            pid = store.pid
            assert pid is not None
            os.kill(pid, signal.SIGKILL)
            assert store._process is not None
            store._process.wait()
            assert ask(store.url, 100, ["key"]) == [LOST]
            store.start()
            assert store.pid not in (None, pid)
            assert Counter(ask(store.url, 100, ["key"] * more)) == expected
    finally:
        store.stop()


def test_a_limiter_finds_the_store_again(tmp_path: Path) -> None:
    """The same connection, as a worker has it, and the same script, which a new server does not know."""
    store = EmbeddedStore(tmp_path / "store")

    async def through_a_kill() -> list[Admission]:
        one = limiter(store.url, 2)
        answers = [await one.admit("key")]
        assert store._process is not None
        store._process.kill()
        store._process.wait()
        answers.append(await one.admit("key"))
        store.start()
        return [*answers, await one.admit("key"), await one.admit("key")]

    try:
        store.start()
        assert asyncio.run(through_a_kill()) == [ADMITTED, LOST, ADMITTED, CLIENT]
    finally:
        store.stop()


def test_a_store_that_hangs_is_lost(tmp_path: Path) -> None:
    """It is stopped, so that it accepts and never answers; the request does not wait for ever."""
    store = EmbeddedStore(tmp_path / "store")
    try:
        store.start()
        assert store.pid is not None
        os.kill(store.pid, signal.SIGSTOP)
        try:
            assert asyncio.run(limiter(store.url, 2, patience=0.2).admit("key")) is LOST
        finally:
            os.kill(store.pid, signal.SIGCONT)
    finally:
        store.stop()


def _start_and_die(folder: Path) -> None:
    store = EmbeddedStore(folder)
    store.start()
    ask(store.url, 100, ["key"] * 60)
    os.kill(os.getpid(), signal.SIGKILL)


def test_the_store_dies_with_the_service_and_the_next_one_counts_on(tmp_path: Path) -> None:
    """SIGKILL of the service: its server ends too, and gives the folder free."""
    process = SPAWN.Process(target=_start_and_die, args=(tmp_path / "store",))
    process.start()
    process.join()
    assert process.exitcode == -signal.SIGKILL
    store = EmbeddedStore(tmp_path / "store")
    try:
        store.start()
        assert Counter(ask(store.url, 100, ["key"] * 60)) == {ADMITTED: 40, CLIENT: 20}
    finally:
        store.stop()
    assert not store.runtime.exists()


def test_two_services_do_not_share_a_folder(store: EmbeddedStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("aisec_lab.workbench.service.store.PATIENCE", 0.0)
    other = EmbeddedStore(store.folder)
    try:
        with pytest.raises(ValueError, match="another service keeps its limits"):
            other.start()
    finally:
        other.stop()
