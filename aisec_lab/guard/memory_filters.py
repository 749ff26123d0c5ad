"""Filters with a memory: they reject queries that equal, or nearly equal, earlier ones."""

from collections import OrderedDict
from hashlib import blake2b

import torch
from torch import Tensor

from aisec_lab.defenses import QPA, SimilarityMonitor
from aisec_lab.guard.filters import FilterResult, above_threshold


class DuplicateFilter:
    """Reject a row that the same client has sent too often before.

    The score is how often. The memory holds the last rows of all clients, as hashes. Call contract: docs/guard.md,
    "Filter".

    Args:
        copies: how many earlier copies are allowed, at least 0.
        remembered: how many different rows are kept, at least 1; the row that was not seen for the longest time goes
            first.
        name: of the filter.

    Raises:
        ValueError: a setting out of range.
    """

    def __init__(self, copies: int, remembered: int = 100_000, name: str = "duplicate") -> None:
        if copies < 0 or remembered < 1:
            raise ValueError(f"copies must not be negative and remembered be positive, got {copies} and {remembered}")
        self.copies, self.remembered, self.name = copies, remembered, name
        self._seen: OrderedDict[bytes, int] = OrderedDict()

    def check(self, rows: Tensor, *, client: str) -> FilterResult[Tensor]:
        earlier = []
        who = blake2b(client.encode(), digest_size=16).digest()
        for row in rows.contiguous().numpy():
            key = blake2b(row.tobytes(), key=who, digest_size=16).digest()
            times = self._seen.pop(key, 0)
            self._seen[key] = times + 1
            earlier.append(times)
        while len(self._seen) > self.remembered:
            self._seen.popitem(last=False)
        return above_threshold(
            self.name,
            rows,
            torch.tensor(earlier),
            self.copies,
            lambda times: f"the number of earlier copies, {times:.0f},",
        )


class SimilarityFilter:
    """Reject a row that a monitor finds too similar to earlier ones, one row at a time and without a lock-out.

    Call contract: docs/guard.md, "Filter".

    Args:
        monitor: `Blacklight`, `PIHA` or `QPA`, which need no answers; its threshold is the filter's.
        name: of the filter.

    Raises:
        ValueError: another monitor, which would read answers that are not there yet.
    """

    def __init__(self, monitor: SimilarityMonitor | QPA, name: str = "similarity") -> None:
        if not isinstance(monitor, SimilarityMonitor | QPA):
            raise ValueError(
                f"a filter runs before the model answers, and {type(monitor).__name__} reads answers: use Blacklight, "
                "PIHA or QPA, or give it to an Oracle"
            )
        self.monitor, self.name = monitor, name

    def check(self, rows: Tensor, *, client: str) -> FilterResult[Tensor]:
        scores = torch.tensor(self.monitor.scores(client, rows, rows.new_empty((len(rows), 0))))
        return above_threshold(self.name, rows, scores, self.monitor.threshold)
