"""PRADA: distances between natural queries of a class are about normally distributed; those of an attack are not."""

import math
from collections import deque
from collections.abc import Sequence

import numpy as np
from scipy.stats import shapiro
from torch import Tensor

from aisec_lab.defenses.monitors.watch import QueryMonitor

FEWEST = 100  # distances that a test needs
MOST = 5000  # latest distances that are tested; the algorithm for W is not accurate for more


class ClassMemory:
    """The growing set of a client's queries with one predicted class.

    Args:
        row: the first query (D,).
    """

    def __init__(self, row: np.ndarray) -> None:
        self.kept = row[None]
        self.distances = np.zeros(1)  # of each kept query from those before it
        self.threshold = 0.0

    def nearest(self, row: np.ndarray) -> float:
        """L2 distance of a query (D,) from the set; a query that is far is added to the set."""
        away = self.kept - row
        distance = math.sqrt(np.einsum("nd,nd->n", away, away).min())
        if distance > self.threshold:
            self.kept = np.concatenate([self.kept, row[None]])
            self.distances = np.append(self.distances, distance)
            self.threshold = max(self.threshold, float(self.distances.mean() - self.distances.std()))
        return distance


class PRADA(QueryMonitor):
    """Detect extraction by the distances between queries (Juuti et al., 2019, arXiv:1805.02628, algorithm 3).

    The distance of each query from the nearest one kept for its class is recorded. Once a client has more than 100
    distances, those within three standard deviations of their mean are tested for normality. An alarm is raised if the
    Shapiro-Wilk statistic W is below delta. The score is 1 - W. If all distances are equal, W counts as 0.

    A query costs a pass over the queries kept for its class, which grow more slowly than the number of queries. Every
    tenth query also costs a test of at most 5,000 distances.

    Call contract: `QueryMonitor`.

    Args:
        delta: threshold of W, in (0, 1). The paper chooses it for each dataset so that no honest client raises an
            alarm.
        every: number of queries of a client between two tests, at least 1.
        withhold: refuse all answers to a client from its first alarm on.

    Raises:
        ValueError: a setting out of range.
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
        """1 - W for each query after which a test is made; -inf for the others."""
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
    """Shapiro-Wilk's W of the distances (N,) within three standard deviations of their mean; 0 if all are equal."""
    near = distances[abs(distances - distances.mean()) <= 3 * distances.std()]
    return float(shapiro(near).statistic) if np.ptp(near) > 0 else 0.0
