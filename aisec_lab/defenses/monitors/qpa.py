"""QPA: queries of an attack are built on one another, so they form a large graph of similar queries."""

from collections.abc import Sequence

from torch import Tensor

from aisec_lab.defenses.monitors.similarity import SimilarityMonitor
from aisec_lab.defenses.monitors.watch import QueryMonitor


class QPA(QueryMonitor):
    """Detect sequences of queries by query provenance analysis (Li et al., 2024, arXiv:2405.20641).

    Each query is linked to the most similar earlier one if their similarity is above `link`. The score of a query is
    the sum of the similarities in the graph that it joins, 0 if it joins none. So a query of an attack that stays below
    the threshold of `Blacklight` or `PIHA` still adds to the graph.

    Graphs, their scores and links at the similarity that 10 % of honest queries exceed are those of the authors' code.
    There, outliers among the graphs are found by Grubbs' test, and those of more than 15 queries go through a graph
    network that was trained on attacks. Here the threshold is set on honest clients instead: it states a false alarm
    rate, and no attack has to be known before. All queries are checked at once, not in intervals.

    A query costs what `similarity` does, and one number that is kept.

    Call contract: `QueryMonitor`.

    Args:
        similarity: finds the most similar earlier query, `Blacklight` or `PIHA`. Nobody else may use it. Its own
            threshold is not used; its `shared` says whether the graphs span all clients.
        threshold: score above which an alarm is raised, at least 0.
        link: similarity, in [0, 1), above which two queries are linked. The authors take the 90th percentile of honest
            queries' largest similarities (`nearest`).
        withhold: refuse all answers to a client from its first alarm on.

    Raises:
        ValueError: a setting out of range.
    """

    def __init__(self, similarity: SimilarityMonitor, threshold: float, *, link: float, withhold: bool = False) -> None:
        if not isinstance(similarity, SimilarityMonitor):
            raise ValueError(f"similarity is a Blacklight or a PIHA, got a {type(similarity).__name__}")
        if not threshold >= 0 or not 0 <= link < 1:
            raise ValueError(f"threshold must be at least 0 and link lie in [0, 1), got {threshold} and {link}")
        super().__init__(threshold, withhold)
        self.similarity, self.link = similarity, link
        self._graph_of: list[int] = []  # of each query: no two graphs ever merge, since a query has one link
        self._weights: list[float] = []  # of each graph

    def scores(self, client: str, x: Tensor, answers: Tensor) -> Sequence[float]:
        """For each query, the sum of similarities in its graph."""
        found = []
        for similarity, number in self.similarity.nearest(client, x):
            if similarity > self.link:
                graph = self._graph_of[number]
                self._weights[graph] += similarity
            else:
                graph = len(self._weights)
                self._weights.append(0.0)
            self._graph_of.append(graph)
            found.append(self._weights[graph])
        return found
