"""HTTP for strangers: what a request says beside its body is limited in size, and must arrive in time."""

import asyncio

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

LARGEST_HEAD = 2**16  # bytes of a request that are no body: its line, headers, trailers and marks of chunks
HEAD_SECONDS = 10.0  # for line and headers, from the connection or the first byte on


class BoundedHttpProtocol(HttpToolsProtocol):
    """Uvicorn's protocol, which by itself collects headers without end and waits for them for ever.

    A client that goes too far is cut off without an answer; it has shown no key yet.
    """

    _head = 0
    _clock: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Expect a request in time."""
        super().connection_made(transport)
        self._start_clock()

    def connection_lost(self, exc: Exception | None) -> None:
        """Expect nothing more."""
        self._stop_clock()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Count what is no body."""
        self._head += len(data)
        super().data_received(data)
        if self._head > LARGEST_HEAD:
            self.transport.abort()

    def on_message_begin(self) -> None:
        """Expect the headers in time."""
        super().on_message_begin()
        self._start_clock()

    def on_headers_complete(self) -> None:
        """The headers are there."""
        self._stop_clock()
        super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        """A body has limits of its own."""
        self._head -= len(body)
        super().on_body(body)

    def on_message_complete(self) -> None:
        """The next request begins at nothing."""
        self._head = 0
        super().on_message_complete()

    def _start_clock(self) -> None:
        self._stop_clock()
        self._clock = self.loop.call_later(HEAD_SECONDS, self.transport.abort)

    def _stop_clock(self) -> None:
        if self._clock is not None:
            self._clock.cancel()
            self._clock = None
