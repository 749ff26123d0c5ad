"""The base of all monitors: score queries, keep each client's highest score, raise an alarm above a threshold."""

from abc import ABC, abstractmethod
from collections.abc import Sequence

import torch
from torch import Tensor


class QueryMonitor(ABC):
    """A monitor of an `Oracle`: `Oracle(model, monitors=[monitor])`.

    It flags the queries with a score above the threshold. The oracle answers them all the same, or rejects them one by
    one with `Oracle(..., rejects=True)`; or the monitor locks the client out, with `withhold`.

    It has a memory, so each oracle, or each group of oracles with common clients, needs its own. The queries of a
    client are numbered from 0, so the number of an alarm is how many queries came before it.

    Args:
        threshold: a query with a score above it raises an alarm.
        withhold: from the call of the first alarm on, refuse all answers to that client with a PermissionError. Its
            further queries are not scored. False only records.

    Attributes:
        alarms: for each client with an alarm, the number of the query that raised the first.
        seen: how many queries each client has sent.
        records: for each client, the queries with a higher score than all before, as (number, score). The first alarm
            at any other threshold follows from them, see `first_alarm`.
    """

    def __init__(self, threshold: float, withhold: bool) -> None:
        self.threshold, self.withhold = threshold, withhold
        self.alarms: dict[str, int] = {}
        self.seen: dict[str, int] = {}
        self.records: dict[str, list[tuple[int, float]]] = {}

    @abstractmethod
    def scores(self, client: str, x: Tensor, answers: Tensor) -> Sequence[float]:
        """Score the next queries of a client.

        Args:
            client: name of the client.
            x: queries (N, *input), on the CPU, in their order.
            answers: the published answers (N, K), on the CPU.

        Returns:
            N scores, larger is more suspicious; -inf for a query that cannot be judged.
        """

    def __call__(self, client: str, x: Tensor, answers: Tensor) -> Tensor:
        """Score a call of a client and update alarms and records.

        Args:
            client: name of the client.
            x: queries (N, *input).
            answers: the published answers (N, K).

        Returns:
            Which queries have a score above the threshold (N,), bool, on the CPU.

        Raises:
            PermissionError: the client has an alarm and `withhold` is set.
        """
        first = self.seen.get(client, 0)
        self.seen[client] = first + len(x)
        flagged = torch.zeros(len(x), dtype=torch.bool)
        if not (self.withhold and client in self.alarms):
            records = self.records.setdefault(client, [])
            highest = records[-1][1] if records else -float("inf")
            for query, score in enumerate(self.scores(client, x.detach().cpu(), answers.detach().cpu()), first):
                flagged[query - first] = score > self.threshold
                if score > highest:
                    highest = score
                    records.append((query, score))
                    if score > self.threshold:
                        self.alarms.setdefault(client, query)
        if self.withhold and client in self.alarms:
            raise PermissionError(
                f"{type(self).__name__} withholds the answer: {client} raised an alarm at its query "
                f"{self.alarms[client]} and is locked out"
            )
        return flagged


def first_alarm(records: Sequence[tuple[int, float]], threshold: float) -> int | None:
    """The query of a client that raises the first alarm at a threshold.

    Args:
        records: the client's entry of `QueryMonitor.records`.
        threshold: an alarm is raised by a score above it.

    Returns:
        The number of the query, from 0; None if there is no alarm.
    """
    return next((query for query, score in records if score > threshold), None)
