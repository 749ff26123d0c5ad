"""The base of monitors that look for the most similar earlier query."""

from abc import abstractmethod
from collections.abc import Sequence

from torch import Tensor

from aisec_lab.defenses.monitors.watch import QueryMonitor

NONE = (0, -1)  # similarity and number where there is no earlier query


class SimilarityMonitor(QueryMonitor):
    """Detect queries that are similar to an earlier query. The score is the largest similarity.

    A query-based attack has to ask about inputs that differ little. A query is remembered whether or not it is flagged.

    Call contract: `QueryMonitor`.

    Args:
        threshold: similarity, in [0, 1), above which an alarm is raised.
        shared: compare with the queries of all clients, which catches an attacker with many accounts. False compares
            with the client's own queries only.
        withhold: refuse all answers to a client from its first alarm on.
    """

    def __init__(self, threshold: float, shared: bool, withhold: bool) -> None:
        super().__init__(threshold, withhold)
        self.shared = shared
        self._count = 0

    @abstractmethod
    def nearest(self, client: str, x: Tensor) -> list[tuple[float, int]]:
        """Compare each query with all earlier ones of its group, and remember it.

        Args:
            client: name of the client.
            x: queries (N, *input), on the CPU, in their order.

        Returns:
            For each query the largest similarity, in [0, 1], and the number of that earlier query, the latest of equal
            ones; similarity 0 and number -1 if there is nothing similar. Queries of all clients are numbered from 0 in
            the order in which they are seen.
        """

    def scores(self, client: str, x: Tensor, answers: Tensor) -> Sequence[float]:
        """For each query, the similarity of the most similar earlier one."""
        return [similarity for similarity, _ in self.nearest(client, x)]

    def group(self, client: str) -> str:
        """Whose queries a client's are compared with: its own, or those of all."""
        return "" if self.shared else client

    def next_number(self) -> int:
        """The number of a new query."""
        self._count += 1
        return self._count - 1
