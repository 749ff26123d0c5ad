"""The ledger: what it records, and that nothing can be done to it unseen."""

import os
import stat
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from random import Random
from typing import Any, NamedTuple

import pytest
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from aisec_lab.trust import (
    ENTRIES,
    HEAD,
    PUBLIC_KEY,
    RECORDED,
    Ledger,
    LedgerChange,
    LedgerEntry,
    LedgerHead,
    check_proof,
    find_proof_error,
    read_head,
    read_signing_key,
    read_verifying_key,
    verify,
)
from aisec_lab.trust.records import canonical
from benchmarks.ledger_tampering import (
    NAMED,
    STRANGER,
    UNNAMED,
    Copy,
    Original,
    Tamper,
    intact,
    joined,
    resigned,
    written,
)

SIZE = 12
ONE, TWO = "1" * 64, "2" * 64


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Original:
    """A ledger of twelve entries, to be copied."""
    return written(tmp_path_factory.mktemp("original"), SIZE)


@pytest.fixture
def ledger(tmp_path: Path) -> Ledger:
    """One without entries."""
    return Ledger.create(tmp_path / "ledger", tmp_path / "keys/ledger.pem")


@pytest.fixture
def append(ledger: Ledger, tmp_path: Path) -> Callable[..., LedgerEntry]:
    """Append to it."""
    key = read_signing_key(tmp_path / "keys/ledger.pem")

    def call(name: str, action: str = "accept", **facts: Any) -> LedgerEntry:
        return ledger.append(LedgerChange("Ada", action, name, "because", **facts), key)

    return call


def test_an_entry_says_what_was_before(ledger: Ledger, append: Callable[..., LedgerEntry]) -> None:
    """Of its own object; what changed nothing says so; what was deleted leaves nothing."""
    entries = [
        append("data/digits", after=ONE, restore="dvc:0f.dir", commit="c" * 40, config="ab"),
        append("data/mnist", after=TWO),
        append("data/digits", after=TWO),
        append("data/digits", action="refuse"),
        append("data/digits", action="delete", after=None),
        append("data/digits", after=ONE),
        append("data/new", action="refuse"),
        append("data/new", before=ONE, after=None),
    ]
    changes = [(entry.before, entry.after) for entry in entries]
    assert changes == [
        (None, ONE),
        (None, TWO),
        (ONE, TWO),
        (TWO, TWO),
        (TWO, None),
        (None, ONE),
        (None, None),
        (ONE, None),
    ]
    assert [entry.index for entry in entries] == list(range(8))
    assert [LedgerEntry.parse(line) for line in ledger.read().lines] == entries
    assert ledger.last("data/digits") == entries[5]
    assert ledger.last("data/other") is None
    assert (entries[0].restore, entries[0].commit, entries[0].config) == ("dvc:0f.dir", "c" * 40, "ab")
    assert RECORDED not in str(ledger.read())


@pytest.mark.parametrize(
    ("facts", "match"),
    [
        ({"who": ""}, "who must be"),
        ({"why": "  "}, "why must be"),
        ({"why": "two\nlines"}, "why must be"),
        ({"why": "\x1b[2Jgone"}, "why must be"),
        ({"why": "\u202eturned"}, "why must be"),
        ({"why": "\udc80"}, "why must be"),
        ({"object": "a\x00b"}, "object must be"),
        ({"action": "Accept"}, "one lower-case word"),
        ({"action": "accept data"}, "one lower-case word"),
        ({"after": "abc"}, "after must be the 64"),
        ({"before": ONE.replace("1", "A")}, "before must be the 64"),
    ],
)
def test_a_change_that_could_not_be_read_back_is_refused(facts: dict[str, str], match: str) -> None:
    """Before anything is written."""
    good = {"who": "Ada Łukasz <a@b>", "action": "accept", "object": "data/digits", "why": "naïve 数字 “ok”"}
    LedgerChange(**good)
    with pytest.raises(ValueError, match=match):
        LedgerChange(**good | facts)


class Edit(NamedTuple):
    """What is done to a ledger of twelve, and what is said of it."""

    do: Callable[[Original], Copy]
    entry: int | None
    fault: str


def replaced(old: bytes, new: bytes) -> Callable[[Original], Copy]:
    return lambda original: Copy(joined(original.lines).replace(old, new), original.heads[-1])


def lines(change: Callable[[list[bytes]], Any]) -> Callable[[Original], Copy]:
    def do(original: Original) -> Copy:
        taken = list(original.lines)
        change(taken)
        return original.copy(taken)

    return do


EDITS = {
    "edited": Edit(replaced(b"entry 4,", b"entry x,"), 4, "was edited"),
    "line ends converted": Edit(replaced(b"\n", b"\r\n"), 0, "is no entry"),
    "deleted": Edit(lines(lambda taken: taken.pop(5)), 5, "is missing: entry 6 stands in its place"),
    "first deleted": Edit(lines(lambda taken: taken.pop(0)), 0, "is missing: entry 1"),
    "last deleted": Edit(lines(lambda taken: taken.pop()), 11, "is missing: the ledger was cut off there"),
    "repeated": Edit(lines(lambda taken: taken.insert(3, taken[2])), 3, "is out of its place: entry 2"),
    "moved": Edit(lines(lambda taken: taken.append(taken.pop(2))), 2, "is missing: entry 3"),
    "put in": Edit(lines(lambda taken: taken.insert(1, b"{}")), 1, "is no entry"),
    "empty line": Edit(lines(lambda taken: taken.insert(12, b"")), 12, "is no entry"),
    "nested": Edit(lines(lambda taken: taken.insert(12, b"[" * 100_000)), 12, "is no entry"),
    "long number": Edit(lines(lambda taken: taken.insert(12, b'{"index":' + b"9" * 5_000)), 12, "is no entry"),
    "no text": Edit(lines(lambda taken: taken.insert(12, b"\xff\x00")), 12, "is no entry"),
    "last newline gone": Edit(lambda o: Copy(joined(o.lines)[:-1], o.heads[-1]), 11, "is torn"),
    "all gone": Edit(lambda o: Copy(b"", o.heads[-1]), 0, "is missing"),
    "cut off with its head": Edit(lambda o: o.copy(o.lines[:7], 7, o.kept(9)), 7, "the head kept elsewhere"),
    "head of one more": Edit(lambda o: o.copy(o.lines[:7], 8), 7, "is missing"),
    "older head": Edit(lambda o: o.copy(o.lines, 3), None, "head.json is an older one: it counts 3 of 12"),
    "head edited": Edit(
        lambda o: Copy(joined(o.lines), o.heads[-1].replace(b"12", b"11")), None, "head.json was edited"
    ),
    "no head": Edit(lambda o: Copy(joined(o.lines), b""), None, "head.json was edited"),
    "head by a stranger": Edit(
        lambda o: Copy(joined(o.lines), o.kept(12).signed(STRANGER).line() + b"\n"), None, "head.json was edited"
    ),
    "kept head by a stranger": Edit(
        lambda o: o.copy(o.lines, None, o.kept(12).signed(STRANGER)), None, "the head kept elsewhere was edited"
    ),
    "all by a stranger": Edit(lambda o: resigned(o, list(o.lines), STRANGER), 0, "not written by the holder"),
}


@pytest.mark.parametrize("edit", EDITS.values(), ids=EDITS)
def test_an_edit_is_found_and_named(edit: Edit, original: Original, tmp_path: Path) -> None:
    """What was done is said in a sentence."""
    verdict = edit.do(original).verdict(tmp_path, original.public)
    assert not verdict.intact
    assert verdict.entry == edit.entry
    assert edit.fault in str(verdict)


def test_two_histories_of_one_key_do_not_mix(original: Original, tmp_path: Path) -> None:
    """Entries that are all signed, from two branches: seen where the second one does not continue the first."""
    ledger = Ledger(tmp_path)
    original.copy(original.lines[:4], 4).verdict(tmp_path, original.public)
    for _ in range(8):
        ledger.append(LedgerChange("Ada", "accept", "data/digits", "on another branch"), original.key)
    mixed = original.copy([*original.lines[:6], *ledger.read().lines[6:]])
    verdict = mixed.verdict(tmp_path, original.public)
    assert (verdict.entry, "two histories" in str(verdict)) == (6, True)
    grafted = [*original.lines[:11], ledger.read().lines[11]]
    assert original.copy(grafted).verdict(tmp_path, original.public).entry == 11


def test_a_signature_made_for_something_else_is_none(original: Original) -> None:
    """Over the same content without its kind, or with another kind."""
    head = original.kept(SIZE)
    content = canonical({name: value for name, value in vars(head).items() if name != "signature"})
    assert replace(head, signature=original.key.sign(LedgerHead.KIND + content).hex()).is_signed(original.public)
    for message in (content, LedgerEntry.KIND + content):
        assert not replace(head, signature=original.key.sign(message).hex()).is_signed(original.public)


def test_files_that_are_gone_are_found(original: Original, tmp_path: Path) -> None:
    """The head, or all entries; with neither there is no ledger."""
    ledger = Ledger(tmp_path)
    original.copy(original.lines).verdict(tmp_path, original.public)
    (tmp_path / HEAD).unlink()
    assert str(verify(ledger, original.public)) == "head.json is missing"
    assert verify(ledger, original.public, head=original.kept(5)).fault == "head.json is missing"
    original.copy(original.lines).verdict(tmp_path, original.public)
    (tmp_path / ENTRIES).unlink()
    assert verify(ledger, original.public).entry == 0
    with pytest.raises(ValueError, match="is gone"):
        ledger.append(LedgerChange("Ada", "accept", "data/digits", "because"), original.key)
    (tmp_path / HEAD).unlink()
    with pytest.raises(FileNotFoundError, match="no ledger at"):
        verify(ledger, original.public)


@pytest.mark.parametrize("tamper", NAMED + UNNAMED, ids=lambda tamper: tamper.__name__)
def test_tampered_copies_are_found(tamper: Tamper, original: Original, tmp_path: Path) -> None:
    """Fifteen of each kind, 210 in all; the first bad entry is named wherever it can be told."""
    random = Random(tamper.__name__)
    for _ in range(15):
        copy = tamper(original, random)
        verdict = copy.verdict(tmp_path, original.public)
        assert not verdict.intact
        assert verdict.entry == (original.first_difference(copy.entries) if tamper in NAMED else None), str(verdict)


def test_intact_copies_are_not_accused(original: Original, tmp_path: Path) -> None:
    """200, some as a kill leaves them, some before a reader who kept a head."""
    random = Random(0)
    for _ in range(200):
        verdict = intact(original, random).verdict(tmp_path, original.public)
        assert verdict.intact, str(verdict)


EDIT_LINES = st.lists(
    st.tuples(st.sampled_from(["edit", "delete", "insert", "swap", "cut"]), *[st.integers(0, 10**6)] * 3),
    min_size=1,
    max_size=4,
)


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(edits=EDIT_LINES)
def test_any_sequence_of_edits_is_found(
    edits: list[tuple[str, int, int, int]], original: Original, tmp_path: Path
) -> None:
    """Unless it gives back what was there."""
    taken = list(original.lines)
    for kind, one, other, byte in edits:
        place, second = one % max(1, len(taken)), other % max(1, len(taken))
        if kind == "insert":
            taken.insert(one % (len(taken) + 1), (original.lines[other % SIZE], b"{}")[byte % 2])
        elif not taken:
            continue
        elif kind == "edit":
            line = bytearray(taken[place] or b" ")
            line[other % len(line)] = byte % 256
            taken[place] = bytes(line)
        elif kind == "delete":
            del taken[place]
        elif kind == "swap":
            taken[place], taken[second] = taken[second], taken[place]
        else:
            del taken[place:]
    copy = original.copy(taken)
    first = original.first_difference(copy.entries)
    assume(first is not None)
    verdict = copy.verdict(tmp_path, original.public)
    assert (verdict.intact, verdict.entry) == (False, first)


@pytest.mark.parametrize(
    "spoil",
    [
        lambda o: replaced(b"entry 4,", b"entry x,")(o),
        lambda o: o.copy(o.lines[:-1]),
        lambda o: o.copy(o.lines, 3),
        lambda o: o.copy([*o.lines, o.lines[3]]),
        lambda o: Copy(joined(o.lines), b"{}\n"),
        lambda o: resigned(o, list(o.lines), STRANGER),
    ],
    ids=["edited", "cut off", "older head", "put in at the end", "no head", "by another key"],
)
def test_nothing_is_signed_over_a_ledger_that_was_tampered_with(
    spoil: Callable[[Original], Copy], original: Original, tmp_path: Path
) -> None:
    """No byte changes, and no proof is made."""
    copy = spoil(original)
    copy.verdict(tmp_path, original.public)
    with pytest.raises(ValueError, match=r"nothing was signed|no head"):
        Ledger(tmp_path).append(LedgerChange("Ada", "accept", "data/digits", "because"), original.key)
    assert ((tmp_path / ENTRIES).read_bytes(), (tmp_path / HEAD).read_bytes()) == (copy.entries, copy.head)


def test_proofs_hold_and_only_for_their_own_ledger(original: Original, tmp_path: Path) -> None:
    """Of every entry, and since every head; with another key, head, entry or index they do not."""
    original.copy(original.lines).verdict(tmp_path, original.public)
    ledger, last = Ledger(tmp_path), original.kept(SIZE)
    for index in range(SIZE):
        proof = ledger.prove_inclusion(index)
        assert check_proof(proof)
        assert find_proof_error(proof, original.public, head=last) is None
        assert "hashes" in str(find_proof_error(proof | {"entry": proof["entry"] + " "}, original.public))
        assert "hashes" in str(find_proof_error(proof | {"index": (index + 1) % SIZE}, original.public))
        for other in (proof, proof | {"old": asdict(original.kept(3))}):
            assert "another head" in str(find_proof_error(other, original.public, head=original.kept(3)))
        assert "signed" in str(find_proof_error(proof, STRANGER.public_key()))
    for size in range(SIZE + 1):
        proof = ledger.prove_consistency(original.kept(size))
        assert find_proof_error(proof, original.public, head=original.kept(size)) is None
        for which in ("old", "head"):
            forged = proof | {which: proof[which] | {"time": "yesterday"}}
            assert "signed" in str(find_proof_error(forged, original.public))
        if size:
            assert "another head" in str(find_proof_error(proof, original.public, head=original.kept(size - 1)))


def test_there_is_no_proof_of_what_is_not_there(original: Original, tmp_path: Path) -> None:
    """An entry that never was, a head that was cut off, a ledger that was edited."""
    ledger = Ledger(tmp_path)
    original.copy(original.lines[:7], 7).verdict(tmp_path, original.public)
    with pytest.raises(ValueError, match="no entry 7 among 7"):
        ledger.prove_inclusion(7)
    with pytest.raises(ValueError, match="counts 9 entries, the ledger 7"):
        ledger.prove_consistency(original.kept(9))
    EDITS["edited"].do(original).verdict(tmp_path, original.public)
    with pytest.raises(ValueError, match="not what its head was signed over"):
        ledger.prove_inclusion(0)


def test_a_ledger_and_its_key_are_never_written_over(ledger: Ledger, tmp_path: Path) -> None:
    """The private key is its owner's alone; a second ledger may use it."""
    key_file = tmp_path / "keys/ledger.pem"
    assert stat.S_IMODE(key_file.stat().st_mode) == 0o600
    before = key_file.read_bytes()
    with pytest.raises(ValueError, match="there is a ledger"):
        Ledger.create(ledger.folder, key_file)
    (tmp_path / "second").mkdir()
    (tmp_path / "second" / ENTRIES).touch()  # as a kill leaves it
    second = Ledger.create(tmp_path / "second", key_file)
    assert key_file.read_bytes() == before
    assert verify(second, read_verifying_key(ledger.folder / PUBLIC_KEY)).intact


def test_another_kind_of_key_is_refused_and_accuses_nobody(ledger: Ledger, append: Callable[..., LedgerEntry]) -> None:
    """A path, and an RSA key: its check of a signature fails on every entry, which is not the entries' fault."""
    other = rsa.generate_private_key(65537, 2048)
    append("a")
    proof = ledger.prove_inclusion(0)
    for key in (str(ledger.folder / PUBLIC_KEY), other.public_key()):
        for ask in (lambda key: verify(ledger, key), lambda key: find_proof_error(proof, key)):
            with pytest.raises(ValueError, match=r"public key verifies, got a .*: take read_verifying_key\(path\)"):
                ask(key)
    for key in ("ledger.pem", other):
        with pytest.raises(ValueError, match=r"private key signs, got a .*: take read_signing_key\(path\)"):
            ledger.append(LedgerChange("Ada", "accept", "a", "because"), key)


def test_what_is_no_key_is_refused(ledger: Ledger, tmp_path: Path) -> None:
    """None, one that others may read, one of another kind, none at all."""
    key_file, public = tmp_path / "keys/ledger.pem", ledger.folder / PUBLIC_KEY
    with pytest.raises(FileNotFoundError, match="no signing key"):
        read_signing_key(tmp_path / "none")
    key_file.chmod(0o640)
    with pytest.raises(ValueError, match="may be read by others: `chmod 600"):
        read_signing_key(key_file)
    key_file.chmod(0o600)
    key_file.write_bytes(
        rsa.generate_private_key(65537, 2048).private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    )
    with pytest.raises(ValueError, match="no Ed25519 key"):
        read_signing_key(key_file)
    with pytest.raises(ValueError, match="no public key"):
        read_verifying_key(key_file)
    with pytest.raises(ValueError, match="no private key"):
        os.chmod(public, 0o600)
        read_signing_key(public)
    with pytest.raises(FileNotFoundError, match="no public key"):
        read_verifying_key(tmp_path / "none")
    with pytest.raises(FileNotFoundError, match="no head at"):
        read_head(tmp_path / "none")
