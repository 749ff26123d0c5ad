"""A request's body as a tensor: JSON, Arrow IPC or safetensors, never pickle; anything else is refused."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Annotated, Any

import torch
from pydantic import ConfigDict, Field, TypeAdapter, ValidationError, create_model
from safetensors import SafetensorError
from safetensors.torch import load as load_safetensors
from torch import Tensor

from aisec_lab.workbench.service.arrow import read_arrow
from aisec_lab.workbench.service.bodies import first_error

JSON = "application/json"
ARROW = "application/vnd.apache.arrow.stream"
SAFETENSORS = "application/vnd.safetensors"
INPUTS = "inputs"  # the field, column or tensor


@dataclass(frozen=True)
class Decoder:
    """Reads inputs of one model.

    Args:
        shape: of one input.
        rows: at most, in one request.

    Args of the call:
        body: bytes of the request.
        kind: its media type, without parameters.

    Returns:
        Inputs (N, *shape), float32 in [0, 1], 1 <= N <= rows.

    Raises:
        LookupError: at the call, another media type.
        ValueError: at the call, a body that is not of its type, or inputs of another shape, type, number or range.
    """

    shape: tuple[int, ...]
    rows: int

    def __call__(self, body: bytes, kind: str) -> Tensor:
        """The inputs."""
        if kind not in self._readers:
            raise LookupError(f"a body is {', '.join(self._readers)}")
        x = self._readers[kind](body)
        if x.dtype != torch.float32 or x.shape[1:] != self.shape:
            given = f"{str(x.dtype).removeprefix('torch.')} {tuple(x.shape)}"
            raise ValueError(f"{INPUTS} are float32 (N, {', '.join(map(str, self.shape))}), got {given}")
        if not 1 <= len(x) <= self.rows:
            raise ValueError(f"a request has 1 to {self.rows} rows, got {len(x)}")
        if not bool(((x >= 0) & (x <= 1)).all()):  # NaN is in no interval
            raise ValueError(f"{INPUTS} are in [0, 1]")
        return x

    @property
    def request_body(self) -> dict[str, Any]:
        """What OpenAPI says of a body."""
        binary = {"schema": {"type": "string", "format": "binary"}}
        schemas = {JSON: {"schema": self._request.json_schema()}, ARROW: binary, SAFETENSORS: binary}
        return {"required": True, "content": schemas}

    @cached_property
    def _readers(self) -> dict[str, Callable[[bytes], Tensor]]:
        return {JSON: self._json, ARROW: self._arrow, SAFETENSORS: _safetensors}

    @cached_property
    def _request(self) -> TypeAdapter[Any]:
        """What JSON may hold: the lengths of the lists are those of the shape, so that nothing nests deeper."""
        kind: Any = Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)]
        for size in reversed(self.shape):
            kind = Annotated[list[kind], Field(min_length=size, max_length=size)]
        inputs = Annotated[list[kind], Field(min_length=1, max_length=self.rows)]
        forbidding = ConfigDict(extra="forbid", strict=True)
        return TypeAdapter(create_model("ScoreRequest", __config__=forbidding, **{INPUTS: (inputs, ...)}))  # type: ignore[call-overload]

    def _json(self, body: bytes) -> Tensor:
        try:
            request = self._request.validate_json(body)
        except ValidationError as error:
            raise ValueError(first_error(error)) from None
        return torch.tensor(request.inputs, dtype=torch.float32)

    def _arrow(self, body: bytes) -> Tensor:
        flat = torch.from_numpy(read_arrow(body, INPUTS, math.prod(self.shape), self.rows))
        return flat.reshape(len(flat), *self.shape)


def _safetensors(body: bytes) -> Tensor:
    try:
        tensors = load_safetensors(body)
    except (SafetensorError, ValueError, KeyError, AttributeError) as error:  # the last two: types torch has not
        raise ValueError(f"no safetensors: {' '.join(str(error).split())[:200]}") from None
    if list(tensors) != [INPUTS]:
        raise ValueError(f"one tensor is wanted, `{INPUTS}`, got {sorted(tensors)[:5]}")
    x = tensors[INPUTS]
    return x if x.ndim else x[None]
