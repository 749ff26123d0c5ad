"""A text file of comma-separated values in pieces of whole rows."""

from collections.abc import Iterator
from pathlib import Path

BLOCK = 2**26  # bytes; smaller ones cost more, as every chunk does
MOST_BLOCKS = 2  # without an end of a row in them: then a quotation mark is open, or it is no table


def blocks(path: Path) -> Iterator[bytes]:
    """Pieces of a file, each of about 64 MiB, that end where a row does.

    A line break between quotation marks belongs to its cell.

    Raises:
        ValueError: no end of a row within some pieces.
    """
    rest = b""
    with path.open("rb") as file:
        while piece := file.read(BLOCK):
            rest += piece
            cut = _end_of_row(rest)
            if cut:
                yield rest[:cut]
                rest = rest[cut:]
            elif len(rest) > MOST_BLOCKS * BLOCK:
                raise ValueError(f"no row ends within {len(rest)} bytes: a quotation mark was not closed, or no table")
    if rest:
        yield rest


def _end_of_row(block: bytes) -> int:
    """After the last line break that stands outside quotation marks; 0 without one."""
    cut = block.rfind(b"\n") + 1
    odd = block.count(b'"', 0, cut) % 2
    while cut and odd:
        before = block.rfind(b"\n", 0, cut - 1) + 1
        odd ^= block.count(b'"', before, cut) % 2
        cut = before
    return cut
