"""The vault gives back exactly what was sealed, or nothing."""

import os
import re
import signal
import stat
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from random import Random
from typing import NamedTuple

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from aisec_lab.trust.vault import open_sealed, seal
from aisec_lab.trust.vault_passphrase import Passphrase
from aisec_lab.trust.vault_rsa import PrivateKey, PublicKey, generate_keys
from benchmarks import vault_by_hand as by_hand
from benchmarks.vault_tampering import TAMPERS, Tamper, tampered

CHUNK = 16  # of plaintext: any file has many
QUICK = Passphrase("correct horse", n=2)
REASONS = r"not a sealed file|the header |wrong passphrase, or|sealed (for|by) |scrypt takes|chunk \d+ does not verify"
ANY = settings(deadline=None, max_examples=100, suppress_health_check=[HealthCheck.function_scoped_fixture])
plaintexts = st.sampled_from([0, 1, CHUNK - 1, CHUNK, CHUNK + 1, 3 * CHUNK, 3 * CHUNK + 5]).flatmap(
    lambda size: st.binary(min_size=size, max_size=size)
)


class Pair(NamedTuple):
    """A key that seals and the one that opens."""

    public: PublicKey
    private: PrivateKey


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Pair:
    files = generate_keys(tmp_path_factory.mktemp("keys") / "lab", QUICK)
    return Pair(PublicKey.read(files.public), PrivateKey.read(files.private, QUICK))


@pytest.fixture(scope="module")
def other(tmp_path_factory: pytest.TempPathFactory) -> Pair:
    files = generate_keys(tmp_path_factory.mktemp("keys") / "other", QUICK)
    return Pair(PublicKey.read(files.public), PrivateKey.read(files.private, QUICK))


@pytest.fixture
def folder() -> Iterator[Path]:
    """In memory where there is such a place: every file is flushed to its disk."""
    with tempfile.TemporaryDirectory(dir="/dev/shm" if Path("/dev/shm").is_dir() else None) as place:
        yield Path(place)


def sealed(content: bytes, folder: Path, key: Passphrase | PublicKey = QUICK) -> bytes:
    """The sealed bytes of a file with this content."""
    plain, target = folder / "plain", folder / "plain.sealed"
    plain.write_bytes(content)
    seal(plain, target, key, chunk=CHUNK)
    data = target.read_bytes()
    plain.unlink()
    target.unlink()
    return data


def opened(data: bytes, folder: Path, key: Passphrase | PrivateKey = QUICK) -> bytes | None:
    """What sealed bytes open to, None if they are refused; then nothing but themselves is in the folder."""
    source, target = folder / "it.sealed", folder / "it"
    source.write_bytes(data)
    try:
        open_sealed(source, target, key)
        reason = None
    except ValueError as error:
        reason = str(error)
    if reason is None:
        content = target.read_bytes()
        target.unlink()
        return content
    assert re.fullmatch(f"{re.escape(str(source))}: ({REASONS}).*; nothing was opened", reason)
    assert list(folder.iterdir()) == [source]
    return None


@ANY
@given(content=plaintexts, by_rsa=st.booleans())
def test_what_was_sealed_comes_back(content: bytes, by_rsa: bool, folder: Path, pair: Pair) -> None:
    """At every length around a chunk's border, under both kinds of key."""
    seals, opens = pair if by_rsa else (QUICK, QUICK)
    assert opened(sealed(content, folder, seals), folder, opens) == content


@ANY
@given(content=plaintexts)
def test_a_second_implementation_reads_the_same(content: bytes, folder: Path) -> None:
    """Header, slot, commitment and chunks as the documents say; the derivations are not the library's."""
    data = sealed(content, folder)
    assert by_hand.opened(data, lambda slot: by_hand.scrypt_data_key(slot, QUICK.text)) == content


def test_a_second_implementation_of_oaep_reads_the_same(folder: Path, pair: Pair) -> None:
    """Once: its integers are slow."""
    data = sealed(b"text", folder, pair.public)
    assert by_hand.opened(data, lambda slot: by_hand.rsa_data_key(slot, pair.private.key)) == b"text"


def test_a_file_of_the_first_version_opens(folder: Path) -> None:
    """The format does not drift: sealed once, kept here."""
    assert opened(bytes.fromhex(by_hand.KEPT), folder) == b"a sealed file that was kept"


def chunks_of(data: bytes) -> tuple[bytes, list[bytes]]:
    """What comes before the chunks, and the chunks."""
    layout = by_hand.parse(data)
    return data[: -len(layout.body)], layout.chunks


def flipped(data: bytes, bit: int) -> bytes:
    changed = bytearray(data)
    changed[bit // 8] ^= 1 << bit % 8
    return bytes(changed)


@ANY
@given(content=plaintexts, draw=st.data())
def test_any_flipped_bit_is_found(content: bytes, draw: st.DataObject, folder: Path, pair: Pair) -> None:
    """In magic, header, slot, commitment, text, tag."""
    seals, opens = draw.draw(st.sampled_from([(QUICK, QUICK), tuple(pair)]))
    data = sealed(content, folder, seals)
    bit = draw.draw(st.integers(0, 8 * len(data) - 1))
    assert opened(flipped(data, bit), folder, opens) is None


def test_every_bit_of_a_header_counts(folder: Path) -> None:
    """All of them, one after the other; costs that a changed header asks for are refused before they are paid."""
    data = sealed(b"", folder)
    assert [bit for bit in range(8 * len(data)) if opened(flipped(data, bit), folder) is not None] == []


@ANY
@given(content=plaintexts)
def test_a_file_cut_anywhere_is_refused(content: bytes, folder: Path) -> None:
    """At every border of a chunk, one byte before and after it, within the header, and to nothing."""
    data = sealed(content, folder)
    front, chunks = chunks_of(data)
    borders = [len(front) + sum(map(len, chunks[:number])) for number in range(len(chunks) + 1)]
    cuts = {cut + shift for cut in borders for shift in (-1, 0, 1)} | {0, 1, 22, len(front) - 33}
    assert {cut for cut in cuts if cut < len(data) and opened(data[:cut], folder) is not None} == set()


@pytest.mark.parametrize("tamper", TAMPERS, ids=lambda tamper: tamper.__name__)
@ANY
@given(last=st.integers(1, CHUNK), chunks=st.integers(2, 5), random=st.randoms(use_true_random=False))
def test_chunks_stay_in_their_place_and_file(
    tamper: Tamper, last: int, chunks: int, random: Random, folder: Path
) -> None:
    """The same key and the same content do not help: every file has its own data key."""
    own, other = (sealed(bytes(chunks * CHUNK + last), folder) for _ in range(2))
    assert opened(own, folder) is not None
    assert opened(tampered(tamper, own, other, random), folder) is None


def test_a_header_of_another_file_is_refused(folder: Path) -> None:
    """Whole, it opens to the other data key; in part, the commitment does not fit."""
    (front, own), (foreign, _) = (chunks_of(sealed(bytes(40), folder)) for _ in range(2))
    assert opened(foreign + b"".join(own), folder) is None
    assert opened(front[:-32] + foreign[-32:] + b"".join(own), folder) is None


@ANY
@given(content=plaintexts)
def test_a_wrong_key_opens_nothing(content: bytes, folder: Path, pair: Pair, other: Pair) -> None:
    """Another passphrase, another private key, or a key of the other kind."""
    by_passphrase, by_rsa = sealed(content, folder), sealed(content, folder, pair.public)
    assert opened(by_passphrase, folder, Passphrase("correct horsf", n=2)) is None
    assert opened(by_passphrase, folder, pair.private) is None
    assert opened(by_rsa, folder, other.private) is None
    assert opened(by_rsa, folder, QUICK) is None


def test_no_file_opens_under_two_data_keys(folder: Path) -> None:
    """A data key that fits the chunks but not the commitment is refused: AES-GCM alone would let two of them fit."""
    data = sealed(b"text", folder)
    layout = by_hand.parse(data)
    slot = Passphrase(QUICK.text, n=2).wrap(bytes(32))
    forged = layout.fixed + slot
    stream_key, _ = by_hand.derived(bytes(32), forged)
    body = by_hand.encrypted_chunk(stream_key, layout.prefix, forged, b"other")
    assert opened(forged + layout.commitment + body, folder) is None
    assert opened(forged + by_hand.derived(bytes(32), forged)[1] + body, folder) == b"other"


def test_a_sealed_file_is_whole_or_not_there_and_nothing_is_overwritten(folder: Path) -> None:
    """Both ways; and no target is made inside the folder that is being sealed."""
    (folder / "a").mkdir()
    (folder / "a/x").write_text("x")
    (folder / "taken").write_text("precious")
    with pytest.raises(FileExistsError, match="overwrites nothing"):
        seal(folder / "a", folder / "taken", QUICK)
    with pytest.raises(ValueError, match="lies inside"):
        seal(folder / "a", folder / "a/a.sealed", QUICK)
    with pytest.raises(FileNotFoundError, match="no file or folder"):
        seal(folder / "absent", folder / "absent.sealed", QUICK)
    with pytest.raises(FileNotFoundError, match="make it first"):
        seal(folder / "a", folder / "no/where.sealed", QUICK)
    with pytest.raises(ValueError, match="from 1 to 67108864"):
        seal(folder / "a", folder / "a.sealed", QUICK, chunk=0)
    seal(folder / "a", folder / "a.sealed", QUICK)
    with pytest.raises(FileExistsError, match="overwrites nothing"):
        open_sealed(folder / "a.sealed", folder / "taken", QUICK)
    with pytest.raises(ValueError, match="a is a folder, and a sealed file is wanted"):
        open_sealed(folder / "a", folder / "b", QUICK)
    assert (folder / "taken").read_text() == "precious"
    assert sorted(path.name for path in folder.iterdir()) == ["a", "a.sealed", "taken"]


def test_what_was_opened_is_its_owners_alone(folder: Path) -> None:
    """Whatever the umask."""
    (folder / "plain").write_text("x")
    seal(folder / "plain", folder / "sealed", QUICK)
    former = os.umask(0)
    try:
        open_sealed(folder / "sealed", folder / "again", QUICK)
    finally:
        os.umask(former)
    assert stat.S_IMODE((folder / "again").stat().st_mode) == 0o600


def test_without_nameless_files_the_guarantees_are_the_same(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """On a file system that does not have them, a hidden file takes their place."""
    really = os.open

    def refuses(path: str, flags: int, *rest: int, **more: int) -> int:
        if flags & os.O_TMPFILE == os.O_TMPFILE:
            raise OSError("Operation not supported")
        return really(path, flags, *rest, **more)

    monkeypatch.setattr(os, "open", refuses)
    data = sealed(bytes(50), folder)
    assert opened(data, folder) == bytes(50)
    assert opened(data[:-1], folder) is None


KILLED = """
import signal, time
signal.signal(signal.SIGINT, signal.default_int_handler)  # a test run in the background has it ignored
from aisec_lab.trust import vault, vault_format
from aisec_lab.trust.vault_passphrase import Passphrase

class Slow:
    def __init__(self, sink): self.sink = sink
    def write(self, block):
        self.sink.write(block); self.sink.flush()
        print("a chunk of plaintext is on the disk", flush=True)
        time.sleep(60)

vault.read_sealed = lambda source, sink, key: vault_format.read_sealed(source, Slow(sink), key)
vault.open_sealed("it.sealed", "it", Passphrase("correct horse", n=2))
"""


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_a_kill_amid_opening_leaves_no_plaintext(how: signal.Signals, folder: Path) -> None:
    """Neither at the target nor under another name."""
    (folder / "it.sealed").write_bytes(sealed(bytes(100), folder))
    root = Path(__file__).parents[2]
    child = subprocess.Popen(
        [sys.executable, "-c", KILLED], cwd=folder, env=os.environ | {"PYTHONPATH": str(root)},
        stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    assert child.stdout is not None
    with child:
        assert child.stdout.readline()
        child.send_signal(how)
        child.wait(30)
    assert child.returncode
    assert [path.name for path in folder.iterdir()] == ["it.sealed"]


def test_too_many_chunks_are_refused(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A counter that came round would use a nonce twice."""
    monkeypatch.setattr("aisec_lab.trust.vault_stream.LIMIT", 2)
    sealed(bytes(2 * CHUNK), folder)
    with pytest.raises(ValueError, match="more than 2 chunks"):
        sealed(bytes(2 * CHUNK + 1), folder)
    assert [path.name for path in folder.iterdir()] == ["plain"]
