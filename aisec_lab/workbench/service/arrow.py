"""Rows in an Arrow IPC stream, from somebody who may lie."""

import struct
from collections.abc import Iterator

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

HEADER, BATCH = 2, 3  # fields of a Message and of a RecordBatch in Arrow's Message.fbs: header, compression


def read_arrow(body: bytes, column: str, width: int, rows: int) -> NDArray[np.float32]:
    """The column of a stream.

    Args:
        body: an Arrow IPC stream (https://arrow.apache.org/docs/format/Columnar.html#ipc-streaming-format).
        column: the name of its only column, a fixed-size list of `width` float32 without nulls.
        width: numbers in a row.
        rows: at most.

    Returns:
        Numbers (N, width); a copy, so that nothing of the body is left in use.

    Raises:
        ValueError: no such stream, or compressed buffers: these state a size that nobody has checked, and unpacking
            them would take as much memory as they say.
    """
    try:
        for header in _headers(body):
            if _field(header, _table(header, HEADER), BATCH):
                raise ValueError("compressed buffers are not read: write them plain")
        table = pa.ipc.open_stream(pa.py_buffer(body)).read_all()
        table.validate(full=True)
    except (pa.ArrowException, struct.error, OSError, MemoryError, NotImplementedError, KeyError) as error:
        raise ValueError(f"no Arrow stream: {' '.join(str(error).split())[:200]}") from None
    wanted = pa.list_(pa.float32(), width)
    if table.schema.names != [column] or not _same(table.schema.field(0).type, wanted):
        raise ValueError(f"one column is wanted, `{column}`, of {wanted}")
    if len(table) > rows:
        raise ValueError(f"a request has at most {rows} rows, got {len(table)}")
    lists = table.column(0).combine_chunks()
    values = lists.flatten() if isinstance(lists, pa.Array) else pa.concat_arrays([c.flatten() for c in lists.chunks])
    if table.column(0).null_count or values.null_count:
        raise ValueError(f"`{column}` has nulls")
    return np.array(values.to_numpy(zero_copy_only=False), dtype=np.float32).reshape(len(table), width)


def _same(given: pa.DataType, wanted: pa.DataType) -> bool:
    return (
        pa.types.is_fixed_size_list(given) and given.list_size == wanted.list_size and given.value_type == pa.float32()
    )


def _headers(body: bytes) -> Iterator[bytes]:
    """The metadata of each message that holds a record batch or a dictionary."""
    reader = pa.ipc.MessageReader.open_stream(pa.py_buffer(body))
    for message in reader:
        if message.type == "dictionary":
            raise ValueError("dictionaries are not read: write plain numbers")
        if message.type == "record batch":
            yield message.metadata.to_pybytes()


def _table(buffer: bytes, field: int) -> int:
    """Where the table in a field of the root table begins."""
    (root,) = struct.unpack_from("<I", buffer)
    place = _field(buffer, root, field)
    return place + struct.unpack_from("<I", buffer, place)[0]


def _field(buffer: bytes, table: int, field: int) -> int:
    """Where a field of a table lies, as FlatBuffers has it; 0 where it is absent."""
    vtable = table - struct.unpack_from("<i", buffer, table)[0]
    (size,) = struct.unpack_from("<H", buffer, vtable)
    place = 4 + 2 * field
    offset = struct.unpack_from("<H", buffer, vtable + place)[0] if place < size else 0
    return table + offset if offset else 0
