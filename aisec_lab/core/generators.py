"""Generators that are seeded in one way everywhere."""

import torch

STREAMS = 1000  # how far apart the streams of two neighbouring seeds begin


def generator(seed: int, stream: int | None = None, *, streams: int = STREAMS) -> torch.Generator:
    """A generator on the CPU, seeded with a study's seed, or with one of the streams that belong to it.

    An experiment that draws for several purposes gives each purpose a stream of its own. Then a change of one purpose
    leaves the draws of all others as they were.

    Args:
        seed: of the experiment.
        stream: number of the purpose, from 0 on; None seeds with `seed` itself.
        streams: how many streams a seed has. Streams below this number are never those of another seed.

    Returns:
        A new generator, seeded with `seed`, or with `streams * seed + stream`.

    Raises:
        ValueError: a stream below 0, or fewer than one stream.
    """
    if streams < 1 or (stream is not None and stream < 0):
        raise ValueError(f"stream must be at least 0 and streams at least 1, got {stream} and {streams}")
    return torch.Generator().manual_seed(seed if stream is None else streams * seed + stream)
