"""Seeded generators: which numbers they draw."""

import pytest
import torch

from aisec_lab.core import generator


def drawn(source: torch.Generator) -> list[float]:
    return torch.rand(5, generator=source).tolist()


def test_a_stream_is_seeded_with_its_place_among_those_of_its_seed():
    """What every committed result was drawn from: the seed itself, 1000 seed + stream, or another distance."""
    for source, number in [
        (generator(7), 7),
        (generator(0, 0), 0),
        (generator(2, 3), 2003),
        (generator(2, 3, streams=100_000), 200_003),
    ]:
        assert source.initial_seed() == number
        assert drawn(source) == drawn(torch.Generator().manual_seed(number))


def test_each_call_gives_a_fresh_generator():
    """Draws from one leave the next as it would have been."""
    first = generator(1, 1)
    before = drawn(first)
    assert drawn(first) != before
    assert drawn(generator(1, 1)) == before
    assert drawn(generator(1, 2)) != before


@pytest.mark.parametrize(("stream", "streams"), [(-1, 1000), (0, 0)])
def test_a_stream_that_would_be_another_seed_s_is_refused(stream, streams):
    """A negative one belongs to the seed before."""
    with pytest.raises(ValueError, match="stream must be at least 0"):
        generator(1, stream, streams=streams)
