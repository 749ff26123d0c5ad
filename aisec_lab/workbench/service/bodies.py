"""Reads the body of a request within limits of size and time."""

import asyncio
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from starlette.requests import ClientDisconnect, Request

from aisec_lab.workbench.service.door import RequestRefusedError
from aisec_lab.workbench.service.settings import RequestSettings

Body = TypeVar("Body", bound=BaseModel)


class ReleaseBody(BaseModel):
    """What a person sends to release a row."""

    model_config = ConfigDict(extra="forbid", strict=True)
    passphrase: str = Field(min_length=8, max_length=1024, description="Of the quarantine's private key.")


class RollbackBody(BaseModel):
    """What a person sends to roll back."""

    model_config = ConfigDict(extra="forbid", strict=True)
    why: str = Field(min_length=1, max_length=200, description="For the ledger.")


class ThresholdBody(BaseModel):
    """What a person sends to change a threshold."""

    model_config = ConfigDict(extra="forbid", strict=True)
    filter: str = Field(min_length=1, max_length=64, description="Name of a detector.")
    threshold: float = Field(allow_inf_nan=False, description="The largest score that passes.")
    why: str = Field(min_length=1, max_length=200, description="For the ledger.")


async def read_body(request: Request, limits: RequestSettings) -> bytes:
    """The body.

    Args:
        request: whose body was not read.
        limits: of size and time.

    Raises:
        RequestRefusedError: 413 if it is too large, 408 if it comes too slowly, 415 if compressed, 400 if cut short.
    """
    if request.headers.get("content-encoding", "identity") != "identity":
        raise RequestRefusedError(415, "a compressed body is not read")
    stated = request.headers.get("content-length", "0")
    if stated.isdecimal() and int(stated) > limits.bytes:
        raise RequestRefusedError(413, f"a body has at most {limits.bytes} bytes")
    parts, size = [], 0
    try:
        async with asyncio.timeout(limits.seconds):
            async for part in request.stream():
                size += len(part)
                if size > limits.bytes:
                    raise RequestRefusedError(413, f"a body has at most {limits.bytes} bytes")
                parts.append(part)
    except TimeoutError:
        raise RequestRefusedError(408, f"the body did not arrive within {limits.seconds} seconds") from None
    except ClientDisconnect:
        raise RequestRefusedError(400, "the body broke off") from None
    return b"".join(parts)


async def read_json(request: Request, limits: RequestSettings, kind: type[Body]) -> Body:
    """The body as JSON of a certain form.

    Raises:
        RequestRefusedError: as `read_body`, and 422 for what has not that form.
    """
    body = await read_body(request, limits)
    try:
        return kind.model_validate_json(body)
    except ValidationError as error:
        raise RequestRefusedError(422, first_error(error)) from None


def first_error(error: ValidationError) -> str:
    """The first thing that is wrong, in a line that does not repeat what was sent."""
    first: Any = error.errors(include_url=False, include_context=False, include_input=False)[0]
    return f"{'.'.join(map(str, first['loc'])) or 'the body'}: {first['msg']}"
