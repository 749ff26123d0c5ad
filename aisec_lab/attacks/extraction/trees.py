"""Decision trees, found out threshold by threshold."""

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
    """Asks an oracle; a point is one row: d columns, then K probabilities that were published for them."""

    def __init__(self, oracle: Oracle, shape: tuple[int, ...]) -> None:
        self.oracle, self.shape, self.d = oracle, shape, torch.Size(shape).numel()

    def __call__(self, x: Tensor) -> Tensor:
        """Points (N, d + K) of flat inputs (N, d)."""
        return torch.cat([x, published_probabilities(self.oracle, x.unflatten(1, self.shape))], dim=1)

    def differ(self, points: Tensor, other: Tensor) -> Tensor:
        """Whether points (..., d + K) and others end in different leaves, as far as answers tell."""
        return (points[..., self.d :] - other[..., self.d :]).abs().amax(-1) > SAME

    def mixed(self, cell: Tensor) -> bool:
        """Whether not all points of a cell (n, d + K) end in one leaf, as far as answers tell."""
        return bool(self.differ(cell, cell[:1]).any())


@dataclass(frozen=True)
class TreeExtraction:
    """A decision tree from the identities of its leaves (Tramèr et al., 2016, arXiv:1609.02943, section 4.2).

    As there, a leaf is known by the probabilities that it publishes, and a threshold is searched for by bisection
    between points that differ in one column. The walk is another one, since a leaf is a box: a cell whose lowest and
    highest corner end in one leaf lies in it altogether, which costs two queries and not two a column. Where they do
    not, two points of the cell are brought together, columns first, until one threshold of the victim is left between
    them, and the cell is cut there. A threshold near the root divides all of the cell, one further down only a part,
    and cutting there multiplies leaves: so some random points are carried across it, and if it matters to few of
    them, others are tried.

    Where leaves publish the same, as pure ones do, or where only labels are published, equal corners prove nothing.
    Then rows of the pool and random points speak against a cell: the copy is exact on all that was asked, each cut is
    still one of the victim's, but a leaf in which no point fell is missed.

    Args:
        rows: of the pool, asked beforehand, if it has as many; 0 will do where no two leaves publish the same.
        probes: random points of each cell whose points seem to lie in one leaf; 0 as above.
        tries: thresholds that a cut is chosen from at most; more pay where no two leaves publish the same.
        crossings: random points that are carried across each of them.
        tolerance: how closely a threshold is known; 0 for as closely as float32 can tell.
        leaves: of the copy, at most; it may have some more than the victim.

    Args of the call:
        oracle: the victim.
        pool: inputs that the attacker owns.
        generator: chooses rows and points.

    Returns:
        The copy, a `Tree`. Where no two leaves publish the same, and with a tolerance of 0, it publishes what the
        victim does on every float32 input in [0, 1]. Where the victim fails on the way, the tree so far, with the
        error, as for `SurrogateExtraction`.

    Raises:
        ValueError: negative settings, a victim that is no tree or has more leaves, and what `SurrogateExtraction`
            refuses of an oracle.
        RuntimeError: the oracle's budget runs out on the way.
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
        """The tree of a cell: points (n, d + K), the first of which is its lowest corner and the second its highest."""
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
        """Those cells of a level whose points do not all end in one leaf, random ones among them."""
        alike = [node for node in level if self.probes and not ask.mixed(cells[node])]
        if alike:
            probes = ask(_inside([cells[node] for node in alike], ask.d, self.probes, generator).flatten(0, 1))
            for node, points in zip(alike, probes.split(self.probes), strict=True):
                cells[node] = torch.cat([cells[node], points])
        return [node for node in level if ask.mixed(cells[node])]

    def _chosen(
        self, ask: _Points, cells: list[Tensor], level: list[int], generator: torch.Generator
    ) -> list[tuple[int, Tensor]]:
        """For each cell of a level a column, and its corners and other points next to a threshold of that column.

        The points, (2 + crossings, 2, d + K), stand on the threshold's lower and on its upper side, and are added to
        what is known of the cell.
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
        """Columns (C,), and two values (C, 2) of each, in order, that a threshold of the victim lies between.

        Two points of each cell, (C, 2, d + K), that end in different leaves are brought together: the near one takes
        over half of the columns in which they differ, or, in the last one, the value halfway, if its leaf stays the
        same; if not, this is the new far one.
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
    """Two random points of each cell, (C, 2, d + K), that end in different leaves."""
    pairs = []
    for cell in cells:
        far = _one(cell[ask.differ(cell, cell[0])], generator)
        pairs.append(torch.stack([_one(cell[ask.differ(cell, far)], generator), far]))  # at least cell[0] does
    return torch.stack(pairs)


def _one(points: Tensor, generator: torch.Generator) -> Tensor:
    """A random one of points."""
    return points[torch.randint(len(points), (), generator=generator)]
