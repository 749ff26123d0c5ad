"""Concurrent requests share passes through the model."""

import asyncio
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, TypeVar

from torch import Tensor

Result = TypeVar("Result")


class BusyError(Exception):
    """Too many rows wait already."""


@dataclass(frozen=True)
class ScoreRequest:
    """Rows of one client.

    Args:
        x: inputs (N, *input).
        client: name of the credential that sent them.
        arrived: when, by `time.perf_counter`.
    """

    x: Tensor
    client: str
    arrived: float


@dataclass
class Batcher:
    """Runs one pass at a time, over all requests that came while the last one ran.

    Nothing waits for company: an idle worker passes a single row at once, a busy one fills its batches by itself.

    Args:
        run: the pass: requests to one list of answers for each, an answer a row; called in a thread of its own.
        rows: most in a pass; a request has at most as many.
        waiting: most rows that may wait.
    """

    run: Callable[[Sequence[ScoreRequest]], list[list[dict[str, Any]]]]
    rows: int
    waiting: int
    _queue: "list[tuple[ScoreRequest, asyncio.Future[list[dict[str, Any]]]]]" = field(default_factory=list, repr=False)
    _task: "asyncio.Task[None] | None" = field(default=None, repr=False)
    _thread: ThreadPoolExecutor = field(default_factory=lambda: ThreadPoolExecutor(1), repr=False)

    async def __call__(self, x: Tensor, client: str) -> list[dict[str, Any]]:
        """Have rows answered.

        Args:
            x: inputs (N, *input).
            client: name of the credential that sent them.

        Returns:
            An answer for each row.

        Raises:
            BusyError: too many rows wait.
        """
        if sum(len(request.x) for request, _ in self._queue) + len(x) > self.waiting:
            raise BusyError
        future: asyncio.Future[list[dict[str, Any]]] = asyncio.get_running_loop().create_future()
        self._queue.append((ScoreRequest(x, client, time.perf_counter()), future))
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(self._work())
        return await future

    async def between_passes(self, call: Callable[[], Result]) -> Result:
        """Call something in the thread of the passes, so that no pass runs meanwhile."""
        return await asyncio.get_running_loop().run_in_executor(self._thread, call)

    def close(self) -> None:
        """End the thread, once what it does is done."""
        self._thread.shutdown()

    async def _work(self) -> None:
        loop = asyncio.get_running_loop()
        while batch := self._take():
            try:
                answers = await loop.run_in_executor(self._thread, self.run, [request for request, _ in batch])
            except Exception as error:  # each of them is told
                for _, future in batch:
                    if not future.done():
                        future.set_exception(error)
            else:
                for (_, future), mine in zip(batch, answers, strict=True):
                    if not future.done():  # else the client has gone
                        future.set_result(mine)

    def _take(self) -> "list[tuple[ScoreRequest, asyncio.Future[list[dict[str, Any]]]]]":
        """The next requests for which somebody still waits, as many as fit into a pass."""
        self._queue = [entry for entry in self._queue if not entry[1].done()]
        total = taken = 0
        while taken < len(self._queue) and (total := total + len(self._queue[taken][0].x)) <= self.rows:
            taken += 1
        batch, self._queue = self._queue[:taken], self._queue[taken:]
        return batch
