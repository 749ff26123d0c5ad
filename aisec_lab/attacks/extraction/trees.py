"""Extraction of decision trees, threshold by threshold."""

from dataclasses import dataclass

import torch
from torch import Tensor

from aisec_lab.attacks.extraction.result import (
    ExtractionResult,
    check_extraction,
    published_probabilities,
    warn_if_incomplete,
)
from aisec_lab.attacks.oracle import Oracle
from aisec_lab.data import Dataset
from aisec_lab.models.asked import asked
from aisec_lab.models.tree import Tree

SAME = 1e-6  # probabilities that differ by no more are one leaf's, in float32


class _Points:
    """Queries an oracle; a point is a row of d columns and the K probabilities that were published for them."""

    def __init__(self, oracle: Oracle, shape: tuple[int, ...]) -> None:
        self.oracle, self.shape, self.d = oracle, shape, torch.Size(shape).numel()

    def __call__(self, x: Tensor) -> Tensor:
        """Points (N, d + K) of flat inputs (N, d)."""
        return torch.cat([x, published_probabilities(self.oracle, x.unflatten(1, self.shape))], dim=1)

    def differ(self, points: Tensor, other: Tensor) -> Tensor:
        """Whether points (..., d + K) and others are in different leaves, as far as their outputs tell."""
        return (points[..., self.d :] - other[..., self.d :]).abs().amax(-1) > SAME

    def mixed(self, cell: Tensor) -> bool:
        """Whether the points of a cell (n, d + K) are in several leaves, as far as their outputs tell."""
        return bool(self.differ(cell, cell[:1]).any())


@dataclass(frozen=True)
class TreeExtraction:
    """Extract a decision tree from the identities of its leaves (Tramèr et al., 2016, arXiv:1609.02943, section 4.2).

    As in the paper, the published probabilities identify a leaf, and bisection between points that differ in one column
    finds a threshold. The search differs, since a leaf is a box. A cell whose lowest and highest corners are in one
    leaf lies in it altogether, which costs two queries instead of two for each column. Otherwise two points of the cell
    are brought together, columns first, until one threshold is left between them, and the cell is split there. A
    threshold near the root divides the whole cell, one further down only a part, and splitting there would multiply
    leaves. So random points are moved across each threshold, and if it matters to few of them, others are tried.

    Where several leaves publish the same, as pure leaves do, or where only labels are published, equal corners prove
    nothing. Then rows of the pool and random points can show that a cell has to be split: the surrogate is exact on all
    queries and each split is one of the victim's, but a leaf that no point hit is missed.

    Call contract: docs/extraction-attacks.md. Where no two leaves publish the same, and with a tolerance of 0, the
    surrogate (a `Tree`) equals the victim on every float32 input in [0, 1]. Where the victim fails on the way, the
    result is the tree so far, with the error.

    Args:
        rows: of the pool to query first, if it has as many, at least 0; 0 suffices where no two leaves publish the
            same.
        probes: random points of each cell that seems to lie in one leaf, at least 0; 0 suffices as above.
        tries: thresholds among which a split is chosen, at least 1; more help where no two leaves publish the same.
        crossings: random points that are moved across each threshold, at least 1.
        tolerance: precision of a threshold, at least 0; 0 for that of float32.
        leaves: of the surrogate at most, at least 1; it may have some more than the victim.

    Raises:
        ValueError: settings out of range; on a call also a victim that is no tree or has more leaves.
        OutOfQueriesError: the oracle's budget runs out on the way.
    """

    rows: int = 100
    probes: int = 8
    tries: int = 4
    crossings: int = 4
    tolerance: float = 0.0
    leaves: int = 2000

    def __post_init__(self) -> None:
        if min(self.rows, self.probes, self.tolerance) < 0 or min(self.tries, self.crossings, self.leaves) < 1:
            raise ValueError(
                f"rows, probes and tolerance must not be negative, tries, crossings and leaves at least 1: {self}"
            )

    def __call__(self, oracle: Oracle, pool: Dataset, *, generator: torch.Generator) -> ExtractionResult:
        rows = pool.x.flatten(1)[torch.randperm(len(pool), generator=generator)[: self.rows]]
        check_extraction(oracle, pool, len(rows) + 2)
        before = oracle.queries
        box = torch.tensor([[0.0], [1.0]]).expand(2, rows.shape[1])
        with asked(oracle):
            ask = _Points(oracle, pool.shape)
            tree = self._grown(ask, ask(torch.cat([box, rows])), generator)
        queries = oracle.queries - before
        return ExtractionResult(tree, queries, warn_if_incomplete(oracle, queries))

    def _grown(self, ask: _Points, box: Tensor, generator: torch.Generator) -> Tree:
        """The tree of a cell, given as points (n, d + K): its lowest corner, its highest corner, and others."""
        cells, cuts, level = [box], {}, [0]  # all cells, how they were cut, and the numbers of those of one depth
        while level:
            try:
                level = self._mixed(ask, cells, level, generator)
                if len(cells) + 2 * len(level) > 2 * self.leaves - 1:
                    raise ValueError(
                        f"the victim is no tree of at most {self.leaves} leaves: raise leaves, or take Knockoff"
                    )
                chosen = self._chosen(ask, cells, level, generator)
            except Exception as error:
                if error is not ask.oracle.error:
                    raise
                break  # cells that nothing more is known of become leaves
            first = len(cells)
            for node, (i, crossed) in zip(level, chosen, strict=True):
                cell, low = cells[node], crossed[0, 0, i].item()
                cuts[node] = (i, low, len(cells))
                right = cell[2:, i] > low
                cells.append(torch.cat([cell[:1], crossed[1, :1], cell[2:][~right]]))
                cells.append(torch.cat([crossed[0, 1:], cell[1:2], cell[2:][right]]))
            level = list(range(first, len(cells)))
        nodes = [cuts.get(node, (-1, 0.0, 0)) for node in range(len(cells))]
        column, threshold, left = torch.tensor(nodes, dtype=torch.float64).T
        told = torch.stack([cell[0, ask.d :] for cell in cells])
        return Tree(column.long(), threshold, left.long(), left.long() + 1, told).eval()

    def _mixed(self, ask: _Points, cells: list[Tensor], level: list[int], generator: torch.Generator) -> list[int]:
        """Those cells of a level whose points, some random ones included, are in several leaves."""
        alike = [node for node in level if self.probes and not ask.mixed(cells[node])]
        if alike:
            probes = ask(_inside([cells[node] for node in alike], ask.d, self.probes, generator).flatten(0, 1))
            for node, points in zip(alike, probes.split(self.probes), strict=True):
                cells[node] = torch.cat([cells[node], points])
        return [node for node in level if ask.mixed(cells[node])]

    def _chosen(
        self, ask: _Points, cells: list[Tensor], level: list[int], generator: torch.Generator
    ) -> list[tuple[int, Tensor]]:
        """For each cell of a level, the column to split at, and points next to a threshold of that column.

        The points (2 + crossings, 2, d + K) are the cell's corners and random points, moved to the lower and to the
        upper side of the threshold; they are also added to the cell.
        """
        best: dict[int, tuple[float, int, Tensor]] = {}
        for _ in range(self.tries):
            doubtful = [node for node in level if node not in best or best[node][0] < 1]
            if not doubtful:
                break
            here = [cells[node] for node in doubtful]
            i, values = self._between(ask, _pairs(ask, here, generator), generator)
            corners = torch.stack([cell[:2, : ask.d] for cell in here])
            x = torch.cat([corners, _inside(here, ask.d, self.crossings, generator)], dim=1)
            x = x[:, :, None].repeat(1, 1, 2, 1)  # (C, 2 + crossings, 2, d)
            c = torch.arange(len(here))
            x[c, :, :, i] = values[:, None].expand(-1, x.shape[1], -1)
            crossed = ask(x.flatten(0, 2)).unflatten(0, x.shape[:3])
            matters = ask.differ(crossed[:, :, 0], crossed[:, :, 1]).double().mean(1).tolist()
            for node, share, column, points in zip(doubtful, matters, i.tolist(), crossed, strict=True):
                cells[node] = torch.cat([cells[node], points.flatten(0, 1)])
                if node not in best or share > best[node][0]:
                    best[node] = (share, column, points)
        return [best[node][1:] for node in level]

    def _between(self, ask: _Points, pairs: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Columns (C,) and two values of each, in order, with a threshold of the victim between them, (C, 2).

        Two points of each cell that are in different leaves, (C, 2, d + K), are brought together. The near point takes
        half of the columns in which they differ from the far one, or the middle value of the last such column. If that
        point is still in the near leaf, it replaces the near point; if not, the far one.
        """
        leaf, near, far = pairs[:, 0], pairs[:, 0].clone(), pairs[:, 1].clone()
        going = torch.arange(len(near))
        while True:
            a, b = near[going, : ask.d], far[going, : ask.d]
            count = (a != b).sum(1, keepdim=True)
            order = torch.rand(a.shape, generator=generator).masked_fill(a == b, 2).argsort(1).argsort(1)
            half = order < (count // 2).clamp(min=1)
            middle = torch.where(half, torch.where(count > 1, b, (a + b) / 2), a)
            wide = (middle != a).any(1) & (middle != b).any(1) & ((b - a).abs().amax(1) > self.tolerance)
            more = wide | (count[:, 0] > 1)
            going = going[more]
            if not len(going):
                break
            points = ask(middle[more])
            moved = ask.differ(points, leaf[going])
            far[going[moved]], near[going[~moved]] = points[moved], points[~moved]
        if not ask.differ(near, far).all():
            raise ValueError("the victim's answers change by degrees, not in steps: it is no tree; take Knockoff")
        i = (near != far)[:, : ask.d].byte().argmax(1)
        c = torch.arange(len(i))
        return i, torch.stack([near[c, i], far[c, i]], dim=1).sort(dim=1).values


def _inside(cells: list[Tensor], d: int, n: int, generator: torch.Generator) -> Tensor:
    """Random points (C, n, d) of cells."""
    low, high = torch.stack([cell[:2, :d] for cell in cells]).split(1, dim=1)  # (C, 1, d) each
    share = torch.rand(len(cells), n, d, generator=generator)
    return torch.lerp(low, high, share).clamp(low, high)  # rounding may leave the cell


def _pairs(ask: _Points, cells: list[Tensor], generator: torch.Generator) -> Tensor:
    """Two random points of each cell that are in different leaves, (C, 2, d + K)."""
    pairs = []
    for cell in cells:
        far = _one(cell[ask.differ(cell, cell[0])], generator)
        pairs.append(torch.stack([_one(cell[ask.differ(cell, far)], generator), far]))  # at least cell[0] does
    return torch.stack(pairs)


def _one(points: Tensor, generator: torch.Generator) -> Tensor:
    """One of the points, at random."""
    return points[torch.randint(len(points), (), generator=generator)]
