"""Requests that never end, or never come, are cut off; others are not."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
import uvicorn
from uvicorn.server import ServerState

from aisec_lab.workbench.service import http_protocol
from aisec_lab.workbench.service.http_protocol import LARGEST_HEAD, BoundedHttpProtocol

Talk = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[bytes]]
OK = b"HTTP/1.1 200 OK"


async def app(scope: dict[str, Any], receive: Any, send: Any) -> None:
    """Reads all of a body, and answers with its length."""
    size, more = 0, True
    while more:
        message = await receive()
        size, more = size + len(message.get("body", b"")), message.get("more_body", False)
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": str(size).encode()})


def talk(talking: Talk) -> bytes:
    """What a client hears until the connection ends."""

    async def both() -> bytes:
        loop, config, state = asyncio.get_running_loop(), uvicorn.Config(app, ws="none", lifespan="off"), ServerState()
        server = await loop.create_server(lambda: BoundedHttpProtocol(config, state, {}, loop), "127.0.0.1", 0)
        async with server:
            reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname()[:2])
            try:
                return await asyncio.wait_for(talking(reader, writer), 60)
            finally:
                writer.close()

    return asyncio.run(both())


async def heard(reader: asyncio.StreamReader) -> bytes:
    try:
        return await reader.read()
    except ConnectionResetError:
        return b"reset"


def after(*parts: bytes) -> Talk:
    """A client that sends these, and then listens to the end."""

    async def talking(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bytes:
        for part in parts:
            writer.write(part)
            await asyncio.sleep(0)
        return await heard(reader)

    return talking


CLOSE = b"Connection: close\r\n\r\n"


def test_usual_requests_are_answered() -> None:
    """Two on one connection; a large body; a body in pieces."""
    assert talk(after(b"GET / HTTP/1.1\r\n\r\nGET / HTTP/1.1\r\n" + CLOSE)).count(OK) == 2
    large = 4 * LARGEST_HEAD
    body = b"POST / HTTP/1.1\r\nContent-Length: %d\r\n%s%s" % (large, CLOSE, b"x" * large)
    assert b"\r\n%d\r\n" % large in talk(after(body))
    pieces = b"".join(b"400\r\n" + b"x" * 1024 + b"\r\n" for _ in range(200)) + b"0\r\n\r\n"
    chunked = b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n" + CLOSE
    assert b"\r\n%d\r\n" % (200 * 1024) in talk(after(chunked + pieces))


ENDLESS = {
    "a line": b"GET /" + b"x" * (2 * LARGEST_HEAD),
    "a header": b"GET / HTTP/1.1\r\nX: " + b"x" * (2 * LARGEST_HEAD),
    "headers": b"GET / HTTP/1.1\r\n" + b"X: y\r\n" * LARGEST_HEAD,
    "trailers": b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n" + b"X: y\r\n" * LARGEST_HEAD,
    "tiny pieces": b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n" + b"1\r\nx\r\n" * LARGEST_HEAD,
}


@pytest.mark.parametrize("what", ENDLESS)
def test_what_has_no_end_is_cut_off(what: str) -> None:
    """Without an answer; and soon: much less was read than the client would send."""
    request = ENDLESS[what]
    assert OK not in talk(after(*(request[place : place + 4096] for place in range(0, len(request), 4096))))


@pytest.mark.parametrize("begin", [b"", b"GET / HTTP/1.1\r\nX: ", b"GET / HTTP/1.1\r\n\r\nGET / HT"])
def test_what_does_not_come_is_not_waited_for(begin: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing at all, half a request, half a second request."""
    monkeypatch.setattr(http_protocol, "HEAD_SECONDS", 0.05)
    answers = talk(after(begin))
    assert answers.count(OK) == begin.count(b"\r\n\r\n")
