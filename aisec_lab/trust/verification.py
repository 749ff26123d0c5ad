"""Finds what was done to a ledger behind its back."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from aisec_lab.trust.ledger import Ledger
from aisec_lab.trust.merkle import MerkleTree
from aisec_lab.trust.proof import check_proof
from aisec_lab.trust.records import LedgerHead, find_error


@dataclass(frozen=True)
class VerificationResult:
    """Whether a ledger is what was signed.

    Args:
        size: whole entries in the file.
        fault: what is wrong, in a sentence; None if nothing is.
        entry: the first bad entry; None if the ledger is intact, or if the fault is in no single entry.
        note: what a killed append left; it harms nothing.
    """

    size: int
    fault: str | None = None
    entry: int | None = None
    note: str | None = None

    @property
    def intact(self) -> bool:
        """Nothing was edited, taken out, put in, moved or cut off."""
        return self.fault is None

    def __str__(self) -> str:
        if self.fault:
            return self.fault if self.entry is None else f"entry {self.entry} {self.fault}"
        return f"intact, {self.size} {'entry' if self.size == 1 else 'entries'}" + (
            f"; {self.note}" if self.note else ""
        )


def verify(ledger: Ledger, public_key: Ed25519PublicKey, *, head: LedgerHead | None = None) -> VerificationResult:
    """Find any edit, deletion, insertion, reordering or truncation, and name the first bad entry.

    Each entry is signed by itself, with its index and the root over all lines before it. Without the private key an
    attacker can neither change nor make an entry: a line that was edited or inserted fails its own signature. Whole
    entries can be removed, repeated or moved: their indices show that. The first line with a fault is the first at
    which the file differs from what was written. The head shows entries that were cut off at the end. If one key
    signed two histories (two branches in git, both appended to) and they were mixed, the entry named is the first that
    does not continue the one before it.

    Two attacks show only against a head that was kept elsewhere: entries cut off together with a return to the
    `head.json` of that time, and a history that the owner of the private key wrote anew. For the second no entry can be
    named: the kept root shows that the first `head.size` entries have changed, not which of them.

    Args:
        ledger: read once, between two appends.
        public_key: the reader's own copy: a key beside the ledger could be replaced together with it.
        head: a head that was kept where an attacker cannot change it.

    Returns:
        The result, with the first bad entry if there is one.

    Raises:
        FileNotFoundError: no ledger there.
    """
    contents = ledger.read()
    size = len(contents.lines)
    tree = MerkleTree()
    roots = [tree.root.hex()]
    for index, line in enumerate(contents.lines):
        if fault := find_error(line, index, roots[-1], public_key):
            return VerificationResult(size, fault, index)
        tree.add(line)
        roots.append(tree.root.hex())

    try:
        own = LedgerHead.parse((contents.head or b"").removesuffix(b"\n"))
    except ValueError:
        own = None
    heads = {"head.json": own} | ({} if head is None else {"the head kept elsewhere": head})
    signed = {name: one for name, one in heads.items() if one is not None and one.is_signed(public_key)}
    for name, one in signed.items():
        if one.size > size:
            how = "is torn" if contents.torn and one.size == size + 1 else "is missing: the ledger was cut off there"
            return VerificationResult(size, f"{how} ({name} was signed over {one.size})", size)
    if contents.head is None:
        return VerificationResult(size, "head.json is missing")
    for name in heads:
        if name not in signed:
            return VerificationResult(size, f"{name} was edited, or not signed with this ledger's key")
        if signed[name].root != roots[signed[name].size]:
            return VerificationResult(size, f"{name} was signed over another history: who holds the key wrote two")
    assert own is not None
    if own.size < size - 1:
        return VerificationResult(size, f"head.json is an older one: it counts {own.size} of {size} entries")

    notes = []
    if own.size < size:
        notes.append(f"entry {own.size} is signed but not yet under the head (an append was killed)")
    if contents.torn:
        notes.append("the last line is torn and was never acknowledged: the next append removes it")
    return VerificationResult(size, note="; ".join(notes) or None)


def find_proof_error(
    proof: Mapping[str, Any], public_key: Ed25519PublicKey, *, head: LedgerHead | None = None
) -> str | None:
    """Check an exported proof: its hashes, and the signatures of its heads.

    Args:
        proof: what `Ledger.prove_inclusion` or `Ledger.prove_consistency` gave, from its JSON.
        public_key: the reader's own copy.
        head: a head that the reader has kept: the proof must be about it.

    Returns:
        What is wrong, in a sentence; None if nothing is.

    Raises:
        ValueError: not a proof.
    """
    holds = check_proof(proof)
    try:
        newer = LedgerHead(**proof["head"])
        readers = LedgerHead(**proof["old"]) if proof["kind"] == "consistency" else newer
    except TypeError as error:
        raise ValueError(f"not a proof of a ledger: {error}") from error
    if not (newer.is_signed(public_key) and readers.is_signed(public_key)):
        return "the proof's head was not signed with this ledger's key"
    if not holds:
        return "the proof's hashes do not lead to its head"
    if head not in (None, readers):
        return "the proof is about another head than the one that you hold"
    return None
