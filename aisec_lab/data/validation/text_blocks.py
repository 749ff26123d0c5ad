"""A text file of separated values, packed by gzip or not, in pieces of whole rows."""

import gzip
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

from aisec_lab.data.validation.layout import RefusedError

BLOCK = 2**26  # bytes; smaller ones cost more, as every chunk does
MOST_BLOCKS = 2  # without an end of a row in them: then a quotation mark is open, or it is no table

GZIP = b"\x1f\x8b"
OTHERS = {  # first bytes of what is no text
    b"\xff\xfe": "UTF-16: save it as UTF-8",
    b"\xfe\xff": "UTF-16: save it as UTF-8",
    b"PK\x03\x04": "a zip archive or a workbook: unpack it, or save its sheet as CSV",
    b"PAR1": "Parquet: name it .parquet",
}


def blocks(path: Path) -> Iterator[bytes]:
    """Pieces of a file, each of about 64 MiB, that end where a row does.

    A line break between quotation marks belongs to its cell.

    Raises:
        RefusedError: no text, or lines that end as on old Macs.
        ValueError: no end of a row within some pieces.
    """
    rest = b""
    with _opened(path) as file:
        while piece := file.read(BLOCK):
            if b"\r" in piece and b"\n" not in piece + rest:
                raise RefusedError(r"lines end in CR alone, as on old Macs: write LF (`tr '\r' '\n' < old > new`)")
            rest += piece
            cut = _end_of_row(rest)
            if cut:
                yield rest[:cut]
                rest = rest[cut:]
            elif len(rest) > MOST_BLOCKS * BLOCK:
                raise ValueError(f"no row ends within {len(rest)} bytes: a quotation mark was not closed, or no table")
    if rest:
        yield rest


def _opened(path: Path) -> IO[bytes]:
    """A text file for reading; it is unpacked if its first bytes are those of gzip, whatever its name."""
    with path.open("rb") as file:
        begin = file.read(4)
    for first, what in OTHERS.items():
        if begin.startswith(first):
            raise RefusedError(f"no text, but {what}")
    opened: Any = gzip.open if begin.startswith(GZIP) else open
    return opened(path, "rb")


def _end_of_row(block: bytes) -> int:
    """After the last line break that stands outside quotation marks; 0 without one."""
    cut = block.rfind(b"\n") + 1
    odd = block.count(b'"', 0, cut) % 2
    while cut and odd:
        before = block.rfind(b"\n", 0, cut - 1) + 1
        odd ^= block.count(b'"', before, cut) % 2
        cut = before
    return cut
