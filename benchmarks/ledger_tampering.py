"""Copies of a ledger, tampered with in every way that we could think of, and intact ones; for tests and benchmarks."""

import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from random import Random
from typing import NamedTuple

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from aisec_lab.trust import (
    ENTRIES,
    HEAD,
    Ledger,
    LedgerChange,
    LedgerEntry,
    LedgerHead,
    VerificationResult,
    read_signing_key,
    verify,
)
from aisec_lab.trust.merkle import MerkleTree
from aisec_lab.trust.records import canonical

STRANGER = Ed25519PrivateKey.generate()  # has no part in any ledger here


class Copy(NamedTuple):
    """The two files of a ledger, and the head that its reader kept elsewhere."""

    entries: bytes
    head: bytes
    kept: LedgerHead | None = None

    def verdict(self, folder: Path, key: Ed25519PublicKey) -> VerificationResult:
        """Lay it down and verify it."""
        for name, content in ((ENTRIES, self.entries), (HEAD, self.head)):
            (folder / name).unlink(missing_ok=True)  # ext4 writes a truncated file out at once: ten times as slow
            (folder / name).write_bytes(content)
        return verify(Ledger(folder), key, head=self.kept)


@dataclass(frozen=True)
class Original:
    """A ledger as bytes: its lines, its heads after 0, 1, 2, … entries, and its key."""

    lines: tuple[bytes, ...]
    heads: tuple[bytes, ...]
    key: Ed25519PrivateKey

    @property
    def public(self) -> Ed25519PublicKey:
        return self.key.public_key()

    def kept(self, size: int) -> LedgerHead:
        """The head of that size."""
        return LedgerHead.parse(self.heads[size].removesuffix(b"\n"))

    def copy(
        self, lines: list[bytes] | tuple[bytes, ...], size: int | None = None, kept: LedgerHead | None = None
    ) -> Copy:
        """These lines under the head of `size`, the last one where none is given."""
        return Copy(joined(lines), self.heads[len(self.lines) if size is None else size], kept)

    def first_difference(self, entries: bytes) -> int | None:
        """The first place where whole lines differ from the original's."""
        lines = entries.split(b"\n")[:-1]
        pairs = zip(lines, self.lines, strict=False)
        shorter = min(len(lines), len(self.lines))
        changed = next((index for index, (one, other) in enumerate(pairs) if one != other), shorter)
        return None if changed == len(lines) == len(self.lines) else changed


def joined(lines: list[bytes] | tuple[bytes, ...]) -> bytes:
    """Lines as they lie in the file."""
    return b"".join(line + b"\n" for line in lines)


def written(folder: Path, size: int) -> Original:
    """Write a ledger of `size` entries with the code under test."""
    ledger = Ledger.create(folder / "ledger", folder / "key.pem")
    key = read_signing_key(folder / "key.pem")
    heads = [(ledger.folder / HEAD).read_bytes()]
    for index in range(size):
        name = ("data/digits", "data/mnist", "models/standard-0")[index % 3]
        why = f"the reason of entry {index}, in König's words"
        ledger.append(LedgerChange("Ada <ada@localhost>", "accept", name, why, after=f"{index:064x}"), key)
        heads.append((ledger.folder / HEAD).read_bytes())
    return Original(ledger.read().lines, tuple(heads), key)


def resigned(original: Original, lines: list[bytes], key: Ed25519PrivateKey) -> Copy:
    """The same contents as a history of `key`: indices, roots and signatures made anew."""
    tree = MerkleTree()
    for line in lines:
        entry = replace(LedgerEntry.parse(line), index=tree.size, root=tree.root.hex())
        tree.add(entry.signed(key).line())
        lines[tree.size - 1] = entry.signed(key).line()
    head = replace(original.kept(len(original.lines)), size=tree.size, root=tree.root.hex()).signed(key)
    return Copy(joined(lines), head.line() + b"\n")


def flip_byte(original: Original, random: Random) -> Copy:
    entries = bytearray(joined(original.lines))
    entries[random.randrange(len(entries))] ^= random.randrange(1, 256)
    return Copy(bytes(entries), original.heads[-1])


def change_field(original: Original, random: Random) -> Copy:
    lines, index = list(original.lines), random.randrange(len(original.lines))
    field = random.choice(["who", "why", "object", "after", "before", "time", "root", "signature", "restore", "index"])
    record = json.loads(lines[index])
    record[field] = 7 * index + 1 if field == "index" else random.choice(["", "x", f"{random.getrandbits(256):064x}"])
    lines[index] = canonical(record)
    return original.copy(lines)


def change_spelling(original: Original, random: Random) -> Copy:
    lines, index = list(original.lines), random.randrange(len(original.lines))
    line, record = lines[index], json.loads(lines[index])
    capitals = record["signature"].upper()
    lines[index] = random.choice(
        [
            json.dumps(record).encode(),
            line + b" ",
            line + b"\r",
            b"\xef\xbb\xbf" + line,
            line.replace(b'"who"', b'"wh\\u006f"'),
            line.replace(b'"who":', b'"who":"Eve","who":'),
            line.replace(record["signature"].encode(), capitals.encode()),
        ]
    )
    return original.copy(lines)


def delete(original: Original, random: Random) -> Copy:
    lines = list(original.lines)
    for _ in range(random.choice([1, 1, 2, 5])):
        del lines[random.randrange(len(lines))]
    return original.copy(lines)


def insert_copy(original: Original, random: Random) -> Copy:
    lines = list(original.lines)
    lines.insert(random.randrange(len(lines) + 1), random.choice(lines))
    return original.copy(lines)


def insert_forged(original: Original, random: Random) -> Copy:
    lines, index = list(original.lines), random.randrange(len(original.lines) + 1)
    entry = replace(LedgerEntry.parse(lines[0]), index=index, root=MerkleTree(lines[:index]).root.hex(), why="forged")
    lines.insert(index, entry.signed(STRANGER).line() if random.random() < 0.5 else entry.line())
    return original.copy(lines)


def swap(original: Original, random: Random) -> Copy:
    lines = list(original.lines)
    one, other = random.sample(range(len(lines)), 2)
    lines[one], lines[other] = lines[other], lines[one]
    return original.copy(lines)


def cut_lines(original: Original, random: Random) -> Copy:
    return original.copy(original.lines[: random.randrange(len(original.lines))])


def cut_bytes(original: Original, random: Random) -> Copy:
    entries = joined(original.lines)
    return Copy(entries[: random.randrange(len(entries))], original.heads[-1])


def cut_with_its_head(original: Original, random: Random) -> Copy:
    """Nothing inside the folder can show it."""
    size = random.randrange(len(original.lines))
    return original.copy(original.lines[:size], size, original.kept(random.randint(size + 1, len(original.lines))))


def rewrite_as_stranger(original: Original, random: Random) -> Copy:
    lines, index = list(original.lines), random.randrange(len(original.lines))
    copy = resigned(original, [*lines[:index], *lines[index + 1 :]], STRANGER)
    sound = [*lines[:index], *copy.entries.split(b"\n")[index:-1]]  # what comes before keeps its true signatures
    return Copy(joined(sound), random.choice([copy.head, original.heads[len(sound)]]), original.kept(len(lines)))


def change_head(original: Original, random: Random) -> Copy:
    head = bytearray(original.heads[-1])
    head[random.randrange(len(head))] ^= random.randrange(1, 256)
    return Copy(joined(original.lines), bytes(head))


def older_head(original: Original, random: Random) -> Copy:
    return original.copy(original.lines, random.randrange(len(original.lines) - 1))


def rewrite_with_the_key(original: Original, random: Random) -> Copy:
    """Only a head kept elsewhere shows it, and not which entry it was."""
    lines, index = list(original.lines), random.randrange(len(original.lines))
    lines[index] = replace(LedgerEntry.parse(lines[index]), why="a better story").line()
    return resigned(original, lines, original.key)._replace(kept=original.kept(random.randint(index + 1, len(lines))))


Tamper = Callable[[Original, Random], Copy]
NAMED: tuple[Tamper, ...] = (  # the first bad entry must be told
    flip_byte,
    change_field,
    change_spelling,
    delete,
    insert_copy,
    insert_forged,
    swap,
    cut_lines,
    cut_bytes,
    cut_with_its_head,
    rewrite_as_stranger,
)
UNNAMED: tuple[Tamper, ...] = (change_head, older_head, rewrite_with_the_key)  # found, but no entry can be told


def intact(original: Original, random: Random) -> Copy:
    """A ledger at some time of its life, perhaps after a kill, before a reader who kept some head of it or none."""
    size = random.randint(0, len(original.lines))
    kept = random.choice([None, original.kept(random.randint(0, size))])
    more = original.lines[size] if size < len(original.lines) else b'{"action":"accept","after":null}'
    killed = random.choice([b"", b"", more[: random.randint(1, len(more))], joined(original.lines[size : size + 1])])
    return Copy(joined(original.lines[:size]) + killed, original.heads[size], kept)
