"""The tree and its proofs: Certificate Transparency's vectors, a recursion copied from the RFC's text, and pymerkle."""

import ast
import hashlib
from pathlib import Path
from typing import NamedTuple

import pymerkle
import pytest
from hypothesis import given
from hypothesis import strategies as st

from aisec_lab.trust import check_consistency, check_inclusion, check_proof, proof
from aisec_lab.trust.merkle import MerkleTree, consistency_path, inclusion_path
from aisec_lab.trust.proof import EMPTY, leaf_hash, node_hash

# What Certificate Transparency publishes: python/ct/crypto/merkle_test.py of google/certificate-transparency (commit
# 4bfca495) and, for the inclusion paths, merkle/log_verifier_test.go of google/trillian.
LEAVES = [
    bytes.fromhex(digits)
    for digits in (
        "",
        "00",
        "10",
        "2021",
        "3031",
        "40414243",
        "5051525354555657",
        "606162636465666768696a6b6c6d6e6f",
    )
]
ROOTS = [
    "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
    "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
    "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125",
    "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77",
    "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
    "4e3bbb1f7b478dcfe71fb631631519a3bca12c9aefca1612bfce4c13a86264d4",
    "76e67dadbcdf1e10e1b74ddc608abd2f98dfb16fbce75277b5232a127f2087ef",
    "ddb89be403809e325750d3d263cd78929c2942b7942a34b77e122c9594a74c8c",
    "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328",
]


class Vector(NamedTuple):
    """A published path: from `old` (an index or a size) to the root over the first `size` leaves."""

    old: int
    size: int
    path: tuple[str, ...]


INCLUSION = [
    Vector(0, 1, ()),
    Vector(
        0,
        8,
        (
            "96a296d224f285c67bee93c30f8a309157f0daa35dc5b87e410b78630a09cfc7",
            "5f083f0a1a33ca076a95279832580db3e0ef4584bdff1f54c8a360f50de3031e",
            "6b47aaf29ee3c2af9af889bc1fb9254dabd31177f16232dd6aab035ca39bf6e4",
        ),
    ),
    Vector(
        5,
        8,
        (
            "bc1a0643b12e4d2d7c77918f44e0f4f79a838b6cf9ec5b5c283e1f4d88599e6b",
            "ca854ea128ed050b41b35ffc1b87b8eb2bde461e9e3b5596ece6b9d5975a0ae0",
            "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
        ),
    ),
    Vector(2, 3, ("fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125",)),
    Vector(
        1,
        5,
        (
            "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
            "5f083f0a1a33ca076a95279832580db3e0ef4584bdff1f54c8a360f50de3031e",
            "bc1a0643b12e4d2d7c77918f44e0f4f79a838b6cf9ec5b5c283e1f4d88599e6b",
        ),
    ),
]
CONSISTENCY = [
    Vector(1, 1, ()),
    Vector(
        1,
        8,
        (
            "96a296d224f285c67bee93c30f8a309157f0daa35dc5b87e410b78630a09cfc7",
            "5f083f0a1a33ca076a95279832580db3e0ef4584bdff1f54c8a360f50de3031e",
            "6b47aaf29ee3c2af9af889bc1fb9254dabd31177f16232dd6aab035ca39bf6e4",
        ),
    ),
    Vector(
        6,
        8,
        (
            "0ebc5d3437fbe2db158b9f126a1d118e308181031d0a949f8dededebc558ef6a",
            "ca854ea128ed050b41b35ffc1b87b8eb2bde461e9e3b5596ece6b9d5975a0ae0",
            "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
        ),
    ),
    Vector(
        2,
        5,
        (
            "5f083f0a1a33ca076a95279832580db3e0ef4584bdff1f54c8a360f50de3031e",
            "bc1a0643b12e4d2d7c77918f44e0f4f79a838b6cf9ec5b5c283e1f4d88599e6b",
        ),
    ),
]
MANY = [bytes([index]) * (index % 5) for index in range(40)]


def root(lines: list[bytes]) -> bytes:
    """MTH of RFC 6962, section 2.1, word by word."""
    if not lines:
        return hashlib.sha256().digest()
    if len(lines) == 1:
        return hashlib.sha256(b"\x00" + lines[0]).digest()
    k = max(2**power for power in range(len(lines).bit_length()) if 2**power < len(lines))
    return hashlib.sha256(b"\x01" + root(lines[:k]) + root(lines[k:])).digest()


def subproof(m: int, lines: list[bytes], known: bool = True) -> list[bytes]:
    """SUBPROOF of RFC 6962, section 2.1.2, word by word."""
    if m == len(lines):
        return [] if known else [root(lines)]
    k = max(2**power for power in range(len(lines).bit_length()) if 2**power < len(lines))
    if m <= k:
        return [*subproof(m, lines[:k], known), root(lines[k:])]
    return [*subproof(m - k, lines[k:], False), root(lines[:k])]


def test_the_hashes_are_those_of_certificate_transparency() -> None:
    """A leaf and a node by themselves (`TreeHasherTest`)."""
    leaf, left, right = bytes(range(16, 32)), bytes(range(32)), bytes(range(32, 64))
    assert leaf_hash(leaf).hex() == "3bfb960453ebaebf33727da7a1f4db38acc051d381b6da20d6d4e88f0eabfd7a"
    assert node_hash(left, right).hex() == "1a378704c17da31e2d05b6d121c2bb2c7d76f6ee6fa8f983e596c2d034963c57"


@pytest.mark.parametrize("size", range(9))
def test_the_roots_are_those_of_certificate_transparency(size: int) -> None:
    """Of its test tree, leaf by leaf, from the empty one on."""
    assert MerkleTree(LEAVES[:size]).root.hex() == ROOTS[size]


@pytest.mark.parametrize("vector", INCLUSION, ids=lambda vector: f"{vector.old} in {vector.size}")
def test_inclusion_paths_are_those_of_certificate_transparency(vector: Vector) -> None:
    """Made here as published, and accepted."""
    path = inclusion_path(LEAVES[: vector.size], vector.old)
    assert tuple(digest.hex() for digest in path) == vector.path
    assert check_inclusion(leaf_hash(LEAVES[vector.old]), vector.old, vector.size, path, root(LEAVES[: vector.size]))


@pytest.mark.parametrize("vector", CONSISTENCY, ids=lambda vector: f"{vector.old} to {vector.size}")
def test_consistency_paths_are_those_of_certificate_transparency(vector: Vector) -> None:
    """Made here as published, and accepted."""
    path = consistency_path(LEAVES[: vector.size], vector.old)
    assert tuple(digest.hex() for digest in path) == vector.path
    roots = [bytes.fromhex(ROOTS[size]) for size in (vector.old, vector.size)]
    assert check_consistency(vector.old, roots[0], vector.size, roots[1], path)


@given(st.lists(st.binary(max_size=3), max_size=40))
def test_the_growing_root_is_that_of_the_definition(lines: list[bytes]) -> None:
    """At every size on the way."""
    tree = MerkleTree()
    for size, line in enumerate(lines):
        assert tree.root == root(lines[:size])
        tree.add(line)
    assert (tree.size, tree.root) == (len(lines), root(lines))


def test_consistency_paths_are_those_of_the_definition() -> None:
    """From every older size to every tree of up to 40 lines."""
    for size in range(1, 41):
        for old in range(1, size + 1):
            assert consistency_path(MANY[:size], old) == subproof(old, MANY[:size])


def test_roots_and_inclusion_paths_are_those_of_pymerkle() -> None:
    """In every tree of up to 20 lines. Its consistency paths are no RFC 6962 ones: they only accept the same roots."""
    peer = pymerkle.InmemoryTree.init_from_entries(MANY[:20])
    for size in range(1, 21):
        lines = MANY[:size]
        assert MerkleTree(lines).root == peer.get_root(size)
        for index in range(size):
            theirs = peer.prove_inclusion(index + 1, size)
            assert theirs.path == [leaf_hash(lines[index]), *inclusion_path(lines, index)]
            assert check_inclusion(leaf_hash(lines[index]), index, size, theirs.path[1:], peer.get_root(size))
        for old in range(1, size + 1):
            pymerkle.verify_consistency(
                MerkleTree(lines[:old]).root, MerkleTree(lines).root, peer.prove_consistency(old, size)
            )
            assert check_consistency(old, peer.get_root(old), size, peer.get_root(size), consistency_path(lines, old))


def test_a_proof_of_inclusion_holds_for_nothing_else() -> None:
    """Another place, size, line or root, a hash changed, put in or left out: refused, in trees of up to 16 lines."""
    for size in range(1, 17):
        lines, top = MANY[:size], root(MANY[:size])
        for index in range(size):
            leaf, path = leaf_hash(lines[index]), inclusion_path(lines, index)
            assert check_inclusion(leaf, index, size, path, top)
            assert not any(check_inclusion(leaf, other, size, path, top) for other in range(-1, 34) if other != index)
            assert not check_inclusion(leaf_hash(b"other"), index, size, path, top)
            assert not check_inclusion(leaf, index, size, path, EMPTY)
            assert not any(check_inclusion(leaf, index, size, other, top) for other in neighbours(path))


def test_a_proof_of_consistency_holds_for_nothing_else() -> None:
    """Another size or root, a hash changed, put in or left out: refused, in trees of up to 16 lines."""
    for size in range(1, 17):
        top = root(MANY[:size])
        for old in range(size + 1):
            before, path = root(MANY[:old]), consistency_path(MANY[:size], old)
            assert check_consistency(old, before, size, top, path)
            others = [other for other in range(-1, 34) if other != old and root(MANY[: max(0, other)]) != before]
            assert not any(check_consistency(other, before, size, top, path) for other in others)
            assert not check_consistency(old, leaf_hash(b"other"), size, top, path)
            assert not check_consistency(old, before, size, leaf_hash(b"other"), path) or old == 0
            assert not any(check_consistency(old, before, size, top, other) for other in neighbours(path))
    assert not check_consistency(0, EMPTY, 0, leaf_hash(b"other"), [])
    assert not check_consistency(2, root(MANY[:2]), 1, root(MANY[:1]), [])


def neighbours(path: list[bytes]) -> list[list[bytes]]:
    """Paths that differ in one hash."""
    return [
        [*path, EMPTY],
        [EMPTY, *path],
        *[path[:place] + path[place + 1 :] for place in range(len(path))],
        *[[*path[:place], EMPTY, *path[place + 1 :]] for place in range(len(path))],
        *[[*path[:place], path[place][:-1], *path[place + 1 :]] for place in range(len(path))],
    ]


def test_a_tree_says_what_it_does_not_have() -> None:
    """Counts from 0."""
    for index in (-1, 3):
        with pytest.raises(ValueError, match="among 3"):
            inclusion_path(MANY[:3], index)
    for size in (-1, 4):
        with pytest.raises(ValueError, match="within 3"):
            consistency_path(MANY[:3], size)


GOOD = {
    "kind": "inclusion",
    "index": 0,
    "entry": "line",
    "path": [],
    "head": {"size": 1, "root": leaf_hash(b"line").hex()},
}


@pytest.mark.parametrize(
    "proof",
    [
        [],
        {},
        GOOD | {"kind": "hearsay"},
        GOOD | {"path": ["xy"]},
        GOOD | {"path": [7]},
        GOOD | {"index": 0.0},
        GOOD | {"index": "0"},
        GOOD | {"index": False},
        GOOD | {"head": {"size": 1}},
        GOOD | {"head": None},
        GOOD | {"entry": None},
        GOOD | {"kind": "consistency"},
    ],
    ids=str,
)
def test_what_is_no_proof_is_refused(proof: object) -> None:
    """With a sentence; a well-formed one is judged."""
    assert check_proof(GOOD)
    assert not check_proof(GOOD | {"entry": "other"})
    with pytest.raises(ValueError, match="proof"):
        check_proof(proof)  # type: ignore[arg-type]


def test_the_checker_needs_nothing_but_hashlib() -> None:
    """An auditor may copy this one file; types aside."""
    source = ast.parse(Path(proof.__file__).read_text())
    names = {node.module for node in ast.walk(source) if isinstance(node, ast.ImportFrom)}
    names |= {alias.name for node in ast.walk(source) if isinstance(node, ast.Import) for alias in node.names}
    assert names == {"hashlib", "collections.abc", "typing"}
