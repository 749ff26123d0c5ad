"""Checks the proofs of a ledger: nothing but SHA-256, so that an auditor can read it in a minute and copy it alone.

A Merkle tree as in RFC 6962, section 2.1: a leaf is `sha256(0x00 | line)`, a node is `sha256(0x01 | left | right)`,
and the left half of a tree holds the largest power of two below its size.
"""

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any

EMPTY = hashlib.sha256(b"").digest()  # root of the tree without leaves


def leaf_hash(line: bytes) -> bytes:
    """The leaf of a line (without its newline)."""
    return hashlib.sha256(b"\x00" + line).digest()


def node_hash(left: bytes, right: bytes) -> bytes:
    """The node above two others."""
    return hashlib.sha256(b"\x01" + left + right).digest()


def check_inclusion(leaf: bytes, index: int, size: int, path: Sequence[bytes], root: bytes) -> bool:
    """Whether a leaf stands at `index` of the tree with this size and root (RFC 9162, section 2.1.3.2).

    Args:
        leaf: `leaf_hash` of the line.
        index, size: from 0; the tree's number of leaves.
        path: hashes beside the way up from the leaf, lowest first.
        root: of the tree, from a head that is trusted.

    Returns:
        True if the path leads from the leaf to the root.
    """
    if not 0 <= index < size:
        return False
    at, last, found = index, size - 1, leaf
    for beside in path:
        if last == 0:
            return False  # the path is longer than the tree is high
        if at % 2 or at == last:
            found = node_hash(beside, found)
            while at and not at % 2:  # a last node without a neighbour rises as it is
                at, last = at // 2, last // 2
        else:
            found = node_hash(found, beside)
        at, last = at // 2, last // 2
    return last == 0 and found == root


def check_consistency(old_size: int, old_root: bytes, size: int, root: bytes, path: Sequence[bytes]) -> bool:
    """Whether the larger tree begins with all of the smaller one, unchanged (RFC 9162, section 2.1.4.2).

    Args:
        old_size, old_root: of the smaller tree, from a head kept since then.
        size, root: of the larger one.
        path: hashes of subtrees, in the RFC's order; empty if the sizes are equal or the smaller tree is empty.

    Returns:
        True if the path leads to both roots.
    """
    if not 0 <= old_size <= size:
        return False
    if old_size in (0, size):
        return not path and old_root == (EMPTY if old_size == 0 else root) and (size > 0 or root == EMPTY)
    if old_size & (old_size - 1) == 0:  # the old root is itself a node of the new tree
        path = [old_root, *path]
    at, last = old_size - 1, size - 1
    while at % 2:
        at, last = at // 2, last // 2
    if not path:
        return False
    old = new = path[0]
    for beside in path[1:]:
        if last == 0:
            return False
        if at % 2 or at == last:
            old, new = node_hash(beside, old), node_hash(beside, new)
            while at and not at % 2:
                at, last = at // 2, last // 2
        else:
            new = node_hash(new, beside)
        at, last = at // 2, last // 2
    return last == 0 and old == old_root and new == root


def check_proof(proof: Mapping[str, Any]) -> bool:
    """Check an exported proof against the heads in it, whose signatures are not verified.

    Args:
        proof: the JSON that `aisec ledger prove` writes.

    Returns:
        True if the hashes of the proof lead to the roots in its heads.

    Raises:
        ValueError: not such a proof.
    """
    try:
        path = [bytes.fromhex(digest) for digest in proof["path"]]
        size, root = _size_and_root(proof["head"])
        if proof["kind"] == "inclusion":
            leaf = leaf_hash(proof["entry"].encode())
            return check_inclusion(leaf, _whole(proof["index"]), size, path, root)
        if proof["kind"] == "consistency":
            return check_consistency(*_size_and_root(proof["old"]), size, root, path)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise ValueError(f"not a proof of a ledger: {type(error).__name__} {error}") from error
    raise ValueError(f"a proof is of inclusion or of consistency, this one is of {proof['kind']!r}")


def _size_and_root(head: Mapping[str, Any]) -> tuple[int, bytes]:
    return _whole(head["size"]), bytes.fromhex(head["root"])


def _whole(number: Any) -> int:
    if type(number) is not int:
        raise TypeError(f"{number!r} is no integer")
    return number
