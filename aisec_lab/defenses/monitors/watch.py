"""What every monitor does: it scores queries, keeps each client's highest score, and rings above a threshold."""

from abc import ABC, abstractmethod
from collections.abc import Sequence

from torch import Tensor


class QueryMonitor(ABC):
    """A monitor of an `Oracle`; it has a memory, so that each oracle, or family of oracles, is given its own.

    A client's queries are numbered from 0, so that the number of an alarm is how many queries came before.

    Args:
        threshold: a query whose score is above it rings.
        withhold: refuse all answers to a client from the call on in which it has rung, with a PermissionError; else
            watch only. Clients that are locked out are not looked at any more.

    Attributes:
        alarms: for each client that has rung, the query at which it did first.
        seen: how many queries each client has asked.
        records: for each client, the queries whose score was higher than all before, with it. From them follows where
            any other threshold would have rung first.
    """

    def __init__(self, threshold: float, withhold: bool) -> None:
        self.threshold, self.withhold = threshold, withhold
        self.alarms: dict[str, int] = {}
        self.seen: dict[str, int] = {}
        self.records: dict[str, list[tuple[int, float]]] = {}

    @abstractmethod
    def scores(self, client: str, x: Tensor, answers: Tensor) -> Sequence[float]:
        """How suspicious each of a client's next queries is, bigger is more so; -inf where nothing can be said.

        Args:
            client: who asks.
            x: queries (N, *input), on the CPU, in the order in which they are asked.
            answers: what is published (N, K), on the CPU.
        """

    def __call__(self, client: str, x: Tensor, answers: Tensor) -> None:
        """Look at queries (N, *input) and answers (N, K); PermissionError where they are to be withheld."""
        first = self.seen.get(client, 0)
        self.seen[client] = first + len(x)
        if not (self.withhold and client in self.alarms):
            records = self.records.setdefault(client, [])
            highest = records[-1][1] if records else -float("inf")
            for query, score in enumerate(self.scores(client, x.detach().cpu(), answers.detach().cpu()), first):
                if score > highest:
                    highest = score
                    records.append((query, score))
                    if score > self.threshold:
                        self.alarms.setdefault(client, query)
        if self.withhold and client in self.alarms:
            raise PermissionError(
                f"{type(self).__name__} withholds the answer: {client} rang at its query {self.alarms[client]} and is "
                "locked out"
            )


def first_alarm(records: Sequence[tuple[int, float]], threshold: float) -> int | None:
    """Where a client would have rung first at a threshold, from its `records`; None for nowhere."""
    return next((query for query, score in records if score > threshold), None)
