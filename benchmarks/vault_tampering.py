"""What a hostile hand may do to a sealed file; for tests and benchmarks."""

from collections.abc import Callable
from random import Random

from benchmarks.vault_by_hand import Layout, parse

Tamper = Callable[
    [Layout, Layout, Random], bytes
]  # a file, another sealed by the same key, of as many chunks (3 or more)


def whole(layout: Layout, **changed: bytes) -> bytes:
    """The bytes of a file, some of its parts exchanged."""
    parts = {name: getattr(layout, name) for name in ("fixed", "slot", "commitment", "body")}
    return b"".join((parts | changed).values())


def rearranged(own: Layout, chunks: list[bytes]) -> bytes:
    """The file with other chunks."""
    return whole(own, body=b"".join(chunks))


def flip_a_bit(own: Layout, other: Layout, random: Random) -> bytes:
    data = bytearray(whole(own))
    data[random.randrange(len(data))] ^= 1 << random.randrange(8)
    return bytes(data)


def overwrite(own: Layout, other: Layout, random: Random) -> bytes:
    data = bytearray(whole(own))
    start = random.randrange(len(data))
    length = min(random.randrange(1, 40), len(data) - start)
    data[start : start + length] = bytes(byte ^ random.randrange(1, 256) for byte in data[start : start + length])
    return bytes(data)


def flip_in_the_header(own: Layout, other: Layout, random: Random) -> bytes:
    header = bytearray(own.fixed + own.slot + own.commitment)
    header[random.randrange(len(header))] ^= 1 << random.randrange(8)
    return bytes(header) + own.body


def cut_anywhere(own: Layout, other: Layout, random: Random) -> bytes:
    data = whole(own)
    return data[: random.randrange(len(data))]


def cut_at_a_border(own: Layout, other: Layout, random: Random) -> bytes:
    return rearranged(own, own.chunks[: random.randrange(len(own.chunks))])


def cut_the_front(own: Layout, other: Layout, random: Random) -> bytes:
    return rearranged(own, own.chunks[random.randrange(1, len(own.chunks)) :])


def append(own: Layout, other: Layout, random: Random) -> bytes:
    return whole(own) + random.choice(
        [b"\0", random.randbytes(own.chunk + 16), other.body, other.chunks[-1], whole(own)]
    )


def swap(own: Layout, other: Layout, random: Random) -> bytes:
    chunks = own.chunks
    one, two = random.sample(range(len(chunks)), 2)
    chunks[one], chunks[two] = chunks[two], chunks[one]
    return rearranged(own, chunks)


def repeat(own: Layout, other: Layout, random: Random) -> bytes:
    chunks = own.chunks
    return rearranged(own, [*chunks, chunks[-1]] if random.random() < 0.5 else [chunks[0], *chunks])


def drop(own: Layout, other: Layout, random: Random) -> bytes:
    chunks = own.chunks
    del chunks[random.randrange(len(chunks))]
    return rearranged(own, chunks)


def splice(own: Layout, other: Layout, random: Random) -> bytes:
    chunks, place = own.chunks, random.randrange(len(own.chunks))
    chunks[place] = other.chunks[place]
    return rearranged(own, chunks)


def splice_the_end(own: Layout, other: Layout, random: Random) -> bytes:
    place = random.randrange(len(own.chunks))
    return rearranged(own, own.chunks[:place] + other.chunks[place:])


def exchange_a_part(own: Layout, other: Layout, random: Random) -> bytes:
    """Everything but the body, or one part of the header, or only the nonces' prefix, from the other file."""
    prefix = own.fixed[:13] + other.prefix + own.fixed[20:]
    parts = random.choice(
        [{"body": other.body}, {"slot": other.slot}, {"commitment": other.commitment}, {"fixed": prefix}]
    )
    return whole(own, **parts)


def relabel(own: Layout, other: Layout, random: Random) -> bytes:
    """A file called a folder; another length of chunks."""
    folder = own.fixed[:8] + b"\1" + own.fixed[9:]
    longer = own.fixed[:9] + random.choice([1, own.chunk + 1, 2 * own.chunk, 2**26]).to_bytes(4, "big") + own.fixed[13:]
    return whole(own, fixed=random.choice([folder, longer]))


TAMPERS: tuple[Tamper, ...] = (
    flip_a_bit,
    overwrite,
    flip_in_the_header,
    cut_anywhere,
    cut_at_a_border,
    cut_the_front,
    append,
    swap,
    repeat,
    drop,
    splice,
    splice_the_end,
    exchange_a_part,
    relabel,
)


def tampered(tamper: Tamper, own: bytes, other: bytes, random: Random) -> bytes:
    """A copy of `own` that is not `own`."""
    copy = tamper(parse(own), parse(other), random)
    assert copy != own, tamper.__name__
    return copy
