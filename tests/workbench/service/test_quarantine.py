"""The quarantine: sealed, on the disk before anybody is answered, and of limited size."""

import multiprocessing
import os
import signal
from pathlib import Path

import pytest
import torch

from aisec_lab.trust import Passphrase, PrivateKey, PublicKey, generate_keys
from aisec_lab.workbench.service.database import Database
from aisec_lab.workbench.service.quarantine import Quarantine, Suspicion

X = torch.rand(2, 1, 8, 8, generator=torch.Generator().manual_seed(0))
PASSPHRASE = Passphrase("correct horse", n=2**10)


def suspicion(place: int = 0) -> Suspicion:
    return Suspicion(X[place], "client", "mahalanobis: score 9 is above 3", 9.0)


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return generate_keys(tmp_path_factory.mktemp("keys") / "quarantine", PASSPHRASE).public


def quarantine(folder: Path, keys: Path, capacity: int = 2**20) -> Quarantine:
    database = Database(folder / "service.db")
    database.create()
    return Quarantine(database, PublicKey.read(keys), capacity)


def test_a_row_comes_back_with_the_private_key_alone(tmp_path: Path, keys: Path) -> None:
    kept = quarantine(tmp_path, keys)
    first, second = kept.keep([suspicion(0), suspicion(1)])
    assert first is not None
    assert second is not None
    assert [record.id for record in kept.records()] == [second, first]
    record = kept.record(first)
    assert (record.client, record.reason, record.score) == ("client", suspicion().reason, 9.0)
    assert (record.state, record.released_by, record.answer) == ("held", None, None)
    key = PrivateKey.read(keys.with_suffix(".key"), PASSPHRASE)
    assert torch.equal(kept.open(first, key), X[0])
    assert torch.equal(kept.open(second, key), X[1])
    other = generate_keys(tmp_path / "other", PASSPHRASE).private
    with pytest.raises(ValueError, match="sealed for the key"):
        kept.open(first, PrivateKey.read(other, PASSPHRASE))
    on_disk = b"".join(path.read_bytes() for path in tmp_path.glob("service.db*"))
    assert X[0].numpy().tobytes() not in on_disk


def test_an_unknown_id_is_an_error(tmp_path: Path, keys: Path) -> None:
    kept = quarantine(tmp_path, keys)
    with pytest.raises(LookupError):
        kept.record("0" * 32)
    with pytest.raises(LookupError):
        kept.open("0" * 32, PrivateKey.read(keys.with_suffix(".key"), PASSPHRASE))
    assert not kept.release("0" * 32, "ada", "{}")


def test_a_row_is_released_once(tmp_path: Path, keys: Path) -> None:
    kept = quarantine(tmp_path, keys)
    (identity,) = kept.keep([suspicion()])
    assert identity is not None
    assert kept.held() == 1
    assert kept.release(identity, "ada", '{"class": "3"}')
    assert not kept.release(identity, "bob", '{"class": "4"}')
    record = kept.record(identity)
    assert (record.state, record.released_by, record.answer) == ("released", "ada", '{"class": "3"}')
    assert kept.held() == 0


def test_a_full_quarantine_keeps_what_it_has(tmp_path: Path, keys: Path) -> None:
    """The rows that no longer fit are named as such, in their order."""
    (one,) = quarantine(tmp_path / "one", keys).keep([suspicion()])
    assert one
    ((size,),) = Database(tmp_path / "one" / "service.db").read("SELECT LENGTH(sealed) FROM quarantine")
    assert isinstance(size, int)
    kept = quarantine(tmp_path / "two", keys, capacity=2 * size)
    ids = kept.keep([suspicion()] * 3)
    assert [identity is None for identity in ids] == [False, False, True]
    assert kept.keep([suspicion()]) == [None]
    assert len(kept.records()) == 2


def _keep_and_die(folder: Path, keys: Path) -> None:
    (identity,) = quarantine(folder, keys).keep([suspicion()])
    (folder / "told").write_text(str(identity))
    os.kill(os.getpid(), signal.SIGKILL)


def test_what_was_told_is_kept_through_a_kill(tmp_path: Path, keys: Path) -> None:
    process = multiprocessing.get_context("spawn").Process(target=_keep_and_die, args=(tmp_path, keys))
    process.start()
    process.join()
    assert process.exitcode == -signal.SIGKILL
    assert quarantine(tmp_path, keys).record((tmp_path / "told").read_text()).state == "held"
