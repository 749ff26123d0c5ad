"""The Merkle tree over the lines of a ledger, with proofs of inclusion and of consistency (RFC 6962, section 2.1)."""

from collections.abc import Iterable, Sequence

from aisec_lab.trust.proof import EMPTY, leaf_hash, node_hash


class MerkleTree:
    """A tree that grows by one line at a time and always knows its root.

    It keeps only the roots of its perfect subtrees, the largest first. Their number is that of the ones in the binary
    form of `size`.
    """

    def __init__(self, lines: Iterable[bytes] = ()) -> None:
        self.size = 0
        self._perfect: list[bytes] = []
        for line in lines:
            self.add(line)

    def add(self, line: bytes) -> None:
        """Append a line (without its newline)."""
        self._add(leaf_hash(line))

    def _add(self, node: bytes) -> None:
        carry = self.size  # adding one in binary: each trailing 1 is a perfect subtree that this leaf completes
        while carry % 2:
            node = node_hash(self._perfect.pop(), node)
            carry //= 2
        self._perfect.append(node)
        self.size += 1

    @property
    def root(self) -> bytes:
        """The root over the lines so far, 32 bytes."""
        if not self._perfect:
            return EMPTY
        *others, root = self._perfect
        for left in reversed(others):
            root = node_hash(left, root)
        return root


def inclusion_path(lines: Sequence[bytes], index: int) -> list[bytes]:
    """The hashes that lead from line `index` up to the root over `lines`, lowest first.

    Raises:
        ValueError: no such line.
    """
    if not 0 <= index < len(lines):
        raise ValueError(f"no entry {index} among {len(lines)}: they count from 0")
    leaves = [leaf_hash(line) for line in lines]
    path: list[bytes] = []
    while len(leaves) > 1:
        left = _left(len(leaves))
        if index < left:
            path.append(_root(leaves[left:]))
            leaves = leaves[:left]
        else:
            path.append(_root(leaves[:left]))
            leaves, index = leaves[left:], index - left
    return path[::-1]


def consistency_path(lines: Sequence[bytes], old_size: int) -> list[bytes]:
    """The hashes that prove that the tree over `lines` extends the tree over the first `old_size` lines.

    Raises:
        ValueError: `old_size` above the number of lines, or negative.
    """
    if not 0 <= old_size <= len(lines):
        raise ValueError(f"no tree of {old_size} entries within {len(lines)}")
    leaves = [leaf_hash(line) for line in lines]
    path: list[bytes] = []
    known = True  # the current subtree is the whole old tree, whose root the reader has
    while old_size not in (0, len(leaves)):
        left = _left(len(leaves))
        if old_size <= left:
            path.append(_root(leaves[left:]))
            leaves = leaves[:left]
        else:
            path.append(_root(leaves[:left]))
            leaves, old_size, known = leaves[left:], old_size - left, False
    if not known:
        path.append(_root(leaves))
    return path[::-1]


def _root(leaves: Sequence[bytes]) -> bytes:
    tree = MerkleTree()
    for leaf in leaves:
        tree._add(leaf)
    return tree.root


def _left(size: int) -> int:
    """The largest power of two below `size`."""
    return 1 << ((size - 1).bit_length() - 1)
