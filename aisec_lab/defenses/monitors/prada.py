"""PRADA: natural queries of a class lie at distances from one another that are normally distributed; others' do not."""

import math
from collections import deque
from collections.abc import Sequence

import numpy as np
from scipy.stats import shapiro
from torch import Tensor

from aisec_lab.defenses.monitors.watch import QueryMonitor

FEWEST = 100  # distances, below which nothing is said
MOST = 5000  # of the last distances are tested: beyond that the algorithm for W is not accurate


class ClassMemory:
    """The growing set of a client's queries that were answered with one class."""

    def __init__(self, row: np.ndarray) -> None:
        self.kept = row[None]
        self.distances = np.zeros(1)  # of what was kept, from what was there already
        self.threshold = 0.0

    def nearest(self, row: np.ndarray) -> float:
        """Distance (L2) of a query (D,) from the set, which takes it in where it is far."""
        away = self.kept - row
        distance = math.sqrt(np.einsum("nd,nd->n", away, away).min())
        if distance > self.threshold:
            self.kept = np.concatenate([self.kept, row[None]])
            self.distances = np.append(self.distances, distance)
            self.threshold = max(self.threshold, float(self.distances.mean() - self.distances.std()))
        return distance


class PRADA(QueryMonitor):
    """PRADA (Juuti et al., 2019, arXiv:1805.02628, algorithm 3).

    Each query's distance from the nearest of those kept for its class is noted. Once there are more than 100 of them,
    those within three standard deviations of their mean are tested for normality: it rings where the Shapiro-Wilk
    statistic W is below delta. The score is 1 - W. Distances that are all the same have W = 0.

    A query costs a pass over the queries kept for its class, a set that grows more slowly than the number of queries;
    every tenth one a test of at most 5,000 distances.

    Args:
        delta: threshold of W, in (0, 1); the paper chose it for each data set, so that no honest client rings.
        every: the test is made after each so many queries of a client.
        withhold: as for `QueryMonitor`.

    Raises:
        ValueError: a delta outside (0, 1), or `every` below 1.
    """

    def __init__(self, delta: float = 0.95, *, every: int = 10, withhold: bool = False) -> None:
        if not 0 < delta < 1 or every < 1:
            raise ValueError(f"delta must lie in (0, 1) and every be at least 1, got {delta} and {every}")
        super().__init__(1 - delta, withhold)
        self.every = every
        self._classes: dict[tuple[str, int], ClassMemory] = {}
        self._distances: dict[str, deque[float]] = {}
        self._asked: dict[str, int] = {}

    def scores(self, client: str, x: Tensor, answers: Tensor) -> Sequence[float]:
        """1 - W at each query after which the test is made, else -inf."""
        distances = self._distances.setdefault(client, deque(maxlen=MOST))
        found = []
        for row, label in zip(x.flatten(1).double().numpy(), answers.argmax(1).tolist(), strict=True):
            memory = self._classes.get((client, label))
            if memory is None:
                self._classes[client, label] = ClassMemory(row)
            else:
                distances.append(memory.nearest(row))
            self._asked[client] = self._asked.get(client, 0) + 1
            due = self._asked[client] % self.every == 0 and len(distances) > FEWEST
            found.append(1 - normality(np.array(distances)) if due else -float("inf"))
        return found


def normality(distances: np.ndarray) -> float:
    """Shapiro-Wilk's W of distances (N,) within three standard deviations of their mean; 0 where they are all equal."""
    near = distances[abs(distances - distances.mean()) <= 3 * distances.std()]
    return float(shapiro(near).statistic) if np.ptp(near) > 0 else 0.0
