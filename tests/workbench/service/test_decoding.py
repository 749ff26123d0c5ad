"""Bodies of requests: three formats mean the same, and everything else is refused."""

import json
import math
import pickle

import numpy as np
import pyarrow as pa
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save
from torch import Tensor

from aisec_lab.workbench.service.decoding import ARROW, JSON, SAFETENSORS, Decoder

SHAPE, ROWS = (1, 2, 3), 4
DECODER = Decoder(SHAPE, ROWS)


def as_json(x: Tensor) -> bytes:
    return json.dumps({"inputs": x.tolist()}).encode()


def as_arrow(x: Tensor, *, batches: int = 1, **options: object) -> bytes:
    flat = pa.array(x.reshape(-1).numpy())
    batch = pa.record_batch([pa.FixedSizeListArray.from_arrays(flat, math.prod(x.shape[1:]))], names=["inputs"])
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, batch.schema, options=pa.ipc.IpcWriteOptions(**options)) as writer:
        for _ in range(batches):
            writer.write_batch(batch)
    return sink.getvalue().to_pybytes()


def as_safetensors(x: Tensor) -> bytes:
    return save({"inputs": x.contiguous()})


WRITERS = {JSON: as_json, ARROW: as_arrow, SAFETENSORS: as_safetensors}
every_kind = pytest.mark.parametrize("kind", WRITERS)
X = torch.rand(3, *SHAPE, generator=torch.Generator().manual_seed(0))


@every_kind
def test_what_was_written_is_read(kind: str) -> None:
    x = DECODER(WRITERS[kind](X), kind)
    assert torch.equal(x, X)
    assert x.dtype == torch.float32


def test_arrow_may_have_several_batches() -> None:
    one = X[:1]
    assert torch.equal(DECODER(as_arrow(one, batches=3), ARROW), torch.cat([one] * 3))


@every_kind
@pytest.mark.parametrize(
    "x",
    [
        X[:0],
        torch.cat([X, X]),
        X[:, :, :, :2].contiguous(),
        torch.full_like(X, math.nan),
        torch.full_like(X, math.inf),
        X + 1,
        X - 1,
    ],
    ids=["none", "too many", "another shape", "NaN", "infinity", "above", "below"],
)
def test_what_is_no_input_is_refused(kind: str, x: Tensor) -> None:
    with pytest.raises(ValueError):  # noqa: PT011  # each format says it in its own words
        DECODER(WRITERS[kind](x), kind)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float16, torch.int64, torch.bool, torch.uint8])
def test_other_numbers_are_refused(dtype: torch.dtype) -> None:
    with pytest.raises(ValueError, match="float32"):
        DECODER(save({"inputs": X.to(dtype)}), SAFETENSORS)


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"null",
        b"[]",
        b"{}",
        b'{"inputs": null}',
        b'{"inputs": "0.5"}',
        b'{"inputs": [[[["0.5", 0, 0], [0, 0, 0]]]]}',
        b'{"inputs": [[[[true, 0, 0], [0, 0, 0]]]]}',
        b'{"inputs": [[[[1e999, 0, 0], [0, 0, 0]]]]}',
        b'{"inputs": [[[[NaN, 0, 0], [0, 0, 0]]]]}',
        b'{"inputs": [[[[0, 0, 0], [0, 0]]]]}',
        b'{"inputs": [[[[0, 0, 0], [0, 0, 0]]]], "more": 1}',
        b'{"inputs": [[[[0, 0, 0], [0, 0, 0]]]]}}',
        b'{"inputs": ' + b"[" * 100_000,
        b'{"inputs": ' + b"9" * 100_000 + b"}",
        b"\xff\xfe\x00",
    ],
    ids=lambda body: body[:40].decode(errors="replace"),
)
def test_other_json_is_refused_in_one_short_line(body: bytes) -> None:
    with pytest.raises(ValueError) as caught:  # noqa: PT011
        DECODER(body, JSON)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 200


@pytest.mark.parametrize("codec", ["lz4", "zstd"])
def test_compressed_arrow_is_refused_before_it_is_unpacked(codec: str) -> None:
    with pytest.raises(ValueError, match="compressed buffers are not read"):
        DECODER(as_arrow(X, compression=codec), ARROW)


def test_other_columns_are_refused() -> None:
    def stream(**columns: pa.Array) -> bytes:
        table, sink = pa.table(columns), pa.BufferOutputStream()
        with pa.ipc.new_stream(sink, table.schema) as writer:
            writer.write_table(table)
        return sink.getvalue().to_pybytes()

    flat = pa.array(np.zeros(6, dtype=np.float32))
    good = pa.FixedSizeListArray.from_arrays(flat, 6)
    assert DECODER(stream(inputs=good), ARROW).shape == (1, *SHAPE)
    holes = pa.FixedSizeListArray.from_arrays(pa.array([0, None, 0, 0, 0, 0], pa.float32()), 6)
    lists = pa.array([[0.0] * 6], pa.list_(pa.float32()))
    for columns in (
        {"x": good},
        {"inputs": good, "more": good},
        {"inputs": flat},
        {"inputs": lists},
        {"inputs": holes},
        {"inputs": pa.array([None], pa.list_(pa.float32(), 6))},
        {"inputs": good.cast(pa.list_(pa.float64(), 6))},
        {"inputs": pa.DictionaryArray.from_arrays(pa.array([0]), pa.array(["a"]))},
    ):
        with pytest.raises(ValueError):  # noqa: PT011
            DECODER(stream(**columns), ARROW)


def test_other_tensors_are_refused() -> None:
    for tensors in ({"x": X}, {"inputs": X, "more": X.clone()}, {"inputs": torch.tensor(0.5)}):
        with pytest.raises(ValueError):  # noqa: PT011
            DECODER(save(tensors), SAFETENSORS)


@pytest.mark.parametrize("kind", ["", "application/octet-stream", "application/x-pickle", "text/json"])
def test_other_formats_are_not_read(kind: str) -> None:
    """Never pickle, under whatever name it comes."""
    with pytest.raises(LookupError, match="a body is application/json"):
        DECODER(pickle.dumps(X), kind)
    for known in WRITERS:
        with pytest.raises(ValueError):  # noqa: PT011
            DECODER(pickle.dumps(X), known)


@every_kind
@settings(max_examples=150, deadline=None)
@given(edits=st.lists(st.tuples(st.integers(0, 2000), st.integers(0, 255)), max_size=4), cut=st.integers(0, 4000))
def test_damaged_bodies_are_inputs_or_refused(kind: str, edits: list[tuple[int, int]], cut: int) -> None:
    """Any bytes: a tensor that keeps all promises, or a ValueError."""
    body = bytearray(WRITERS[kind](X))
    for place, value in edits:
        body[place % len(body)] = value
    try:
        x = DECODER(bytes(body[:cut]), kind)
    except ValueError:
        return
    assert x.dtype == torch.float32
    assert x.shape[1:] == SHAPE
    assert 1 <= len(x) <= ROWS
    assert bool(((x >= 0) & (x <= 1)).all())
