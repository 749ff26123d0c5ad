"""Concurrent requests share passes, and nobody gets another one's answer."""

import asyncio
import threading
from collections.abc import Sequence
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from aisec_lab.workbench.service.batching import Batcher, BusyError, ScoreRequest

Answers = list[list[dict[str, Any]]]


class Pass:
    """Answers each row with its number and its client; a pass can be held until it may go on."""

    def __init__(self) -> None:
        self.sizes: list[int] = []
        self.may_go_on, self.begun = threading.Event(), threading.Event()
        self.may_go_on.set()

    def __call__(self, requests: Sequence[ScoreRequest]) -> Answers:
        self.begun.set()
        assert self.may_go_on.wait(60)
        self.sizes.append(sum(len(request.x) for request in requests))
        if any(request.client == "breaker" for request in requests):
            raise ValueError("broken")
        return [[{"row": row.item(), "client": request.client} for row in request.x] for request in requests]


@settings(deadline=None, max_examples=50)
@given(sizes=st.lists(st.integers(1, 8), min_size=1, max_size=30), most=st.integers(8, 20))
def test_everybody_gets_their_own_rows_in_their_order(sizes: list[int], most: int) -> None:
    """However many share a pass, and no pass is larger than allowed."""
    one = Pass()

    async def all_at_once() -> list[list[dict[str, Any]]]:
        batcher = Batcher(one, most, 1000)
        requests = [batcher(torch.arange(n) + 100.0 * place, f"client{place}") for place, n in enumerate(sizes)]
        answers = await asyncio.gather(*requests)
        batcher.close()
        return answers

    for place, (answers, n) in enumerate(zip(asyncio.run(all_at_once()), sizes, strict=True)):
        assert answers == [{"row": 100.0 * place + row, "client": f"client{place}"} for row in range(n)]
    assert sum(one.sizes) == sum(sizes)
    assert max(one.sizes) <= most


def test_what_comes_during_a_pass_shares_the_next_one() -> None:
    one = Pass()

    async def scenario() -> None:
        batcher = Batcher(one, 100, 1000)
        one.may_go_on.clear()
        first = asyncio.create_task(batcher(torch.zeros(1), "a"))
        await asyncio.to_thread(one.begun.wait, 60)
        others = [asyncio.create_task(batcher(torch.zeros(2), "b")) for _ in range(5)]
        gone = asyncio.create_task(batcher(torch.zeros(50), "c"))
        await asyncio.sleep(0)
        gone.cancel()
        await asyncio.sleep(0)
        one.may_go_on.set()
        await asyncio.gather(first, *others)
        batcher.close()

    asyncio.run(scenario())
    assert one.sizes == [1, 10], "the rows of a client that has gone are not scored"


def test_too_many_rows_are_refused_at_once_and_later_ones_are_not() -> None:
    one = Pass()

    async def scenario() -> None:
        batcher = Batcher(one, 8, 8)
        one.may_go_on.clear()
        running = asyncio.create_task(batcher(torch.zeros(8), "a"))
        await asyncio.to_thread(one.begun.wait, 60)
        waiting = asyncio.create_task(batcher(torch.zeros(8), "a"))
        await asyncio.sleep(0)
        with pytest.raises(BusyError):
            await batcher(torch.zeros(1), "b")
        one.may_go_on.set()
        await asyncio.gather(running, waiting)
        assert len(await batcher(torch.zeros(8), "b")) == 8
        batcher.close()

    asyncio.run(scenario())


def test_an_error_reaches_those_of_its_pass_alone() -> None:
    one = Pass()

    async def scenario() -> None:
        batcher = Batcher(one, 4, 100)
        bad, good = await asyncio.gather(
            batcher(torch.zeros(4), "breaker"), batcher(torch.zeros(4), "b"), return_exceptions=True
        )
        assert isinstance(bad, ValueError)
        assert isinstance(good, list)
        assert await batcher.between_passes(lambda: 3) == 3
        batcher.close()

    asyncio.run(scenario())
