"""Rows that may be published in place of private ones: drawn from a model of their marginals, learned with noise."""

import math
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import count
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from aisec_lab.privacy.columns import Charge, check_categories, checked, places
from aisec_lab.privacy.noise import Cells, ReleaseNoise

ALGORITHMS = ("aim", "mst")
NULL = 0  # its place among a column's cells
NEVER = -1e6  # a log-probability


@dataclass(frozen=True)
class Rows:
    """What was released; all of it may be published.

    Args:
        columns: by name, (M,) each, of categories. M is an estimate of the number of private rows, or what was asked.
        epsilon, delta: what the release keeps to.
        rho: the zero-concentrated privacy that this follows from.
        algorithm: that chose the marginals.
    """

    columns: dict[str, NDArray[Any]]
    epsilon: float
    delta: float
    rho: float
    algorithm: str


@dataclass(frozen=True)
class Synthetic:
    """Synthetic rows by OpenDP's MST (McKenna et al., 2021, arXiv:2108.04978) or AIM (2022, arXiv:2201.12677).

    Half of the budget measures every column by itself; the rest chooses and measures pairs of columns (MST: a tree of
    them; AIM: triples, too, as many as pay). The rows come from the graphical model that fits best: what pairs
    were not measured, it takes for no more dependent than the measured ones make them.

    It cannot be seeded, so there is no `simulate`, and it stands outside byte-identity: for use by hand, in mode
    `release`. Three columns of 200 rows take about 12 seconds of CPU by MST and 15 by AIM, eight of 300 about 18 by
    MST: the time goes to compiling and to the search for the scale of the noise, nearly none of it to rows.

    Neighbours are data sets of which one has one row more.

    Args:
        epsilon: what a release keeps to, with delta; positive.
        delta: in (0, 1).
        categories: of each column, all that there can be, whether they occur or not; two columns at least. A number's
            bins are categories, once it has been put into them by public edges.
        algorithm: "mst" or "aim".
        rows: how many to make; by default, about as many as there are, which is then estimated with noise.

    Args of the call:
        columns: private, by name, (N,) each, in any order.
        charge: is told "Synthetic", epsilon and delta before any noise is drawn; where it raises, nothing is released.

    Raises:
        ValueError: a field out of range; other columns than `categories` has, no rows, unequal lengths, NaN, a value
            that is not among the categories, a delta of 1 / N or more.
    """

    epsilon: float
    delta: float
    categories: Mapping[str, Sequence[Hashable]]
    algorithm: str = "mst"
    rows: int | None = None

    def __post_init__(self) -> None:
        ReleaseNoise(self.epsilon, self.delta)
        if not self.delta:
            raise ValueError("delta must be positive, got 0: the noise is Gaussian; a tenth of 1 / rows is common")
        if len(self.categories) < 2:
            raise ValueError(f"categories must be of two columns at least, got {list(self.categories)}: see Histogram")
        for each in self.categories.values():
            check_categories(each)
        if self.algorithm not in ALGORITHMS:
            raise ValueError(f"algorithm must be one of {list(ALGORITHMS)}, got {self.algorithm!r}")
        if self.rows is not None and self.rows < 1:
            raise ValueError(f"rows must be 1 or more, or None for an estimate, got {self.rows}")

    @cached_property
    def rho(self) -> float:
        """The largest zero-concentrated privacy that keeps to epsilon and delta by OpenDP's conversion, or a hair less.

        It is that of one Gaussian draw (Bun & Steinke, 2016, arXiv:1605.02065, proposition 1.6), whose noise OpenDP
        has already found.
        """
        most = 1 / (2 * ReleaseNoise(self.epsilon, self.delta).scale ** 2)
        less = (most * (1 - 1e-9 * hair) for hair in count(1))
        return next(rho for rho in less if _adds_up(rho, len(self.categories) - 1))

    def __call__(self, columns: Mapping[str, ArrayLike], *, charge: Charge | None = None) -> Rows:
        if set(columns) != set(self.categories):
            raise ValueError(
                f"columns must be {sorted(self.categories)}, as the categories have, got {sorted(columns)}"
            )
        arrays = checked([columns[name] for name in self.categories], len(self.categories), self.delta, "Synthetic")
        cells = [places(values, named) for values, named in zip(arrays, self.categories.values(), strict=True)]
        rho = self.rho  # what can fail has failed before anything is charged
        if charge is not None:
            charge("Synthetic", self.epsilon, self.delta)
        made = self._drawn(self._table(cells, rho).model)
        released = {
            name: _named(self.categories[name], place - NULL - 1)
            for name, place in zip(self.categories, made, strict=True)
        }
        return Rows(released, self.epsilon, self.delta, rho, self.algorithm)

    def _table(self, cells: Sequence[Cells], rho: float) -> Any:
        """OpenDP's contingency table: a model over all columns, and the marginals with noise that it fits."""
        import opendp.prelude as dp
        import polars as pl
        from opendp.extras.mbi import AIM, MST

        dp.enable_features("contrib")
        frame = pl.DataFrame({str(number): column for number, column in enumerate(cells)})  # names that OpenDP takes
        keys = {
            str(number): [None, *range(len(named))]  # it wants a cell for the null; as the first, rounding shuns it
            for number, named in enumerate(self.categories.values())
        }
        context = dp.Context.compositor(
            data=frame.lazy(),
            privacy_unit=dp.unit_of(contributions=1),
            privacy_loss=dp.loss_of(rho=rho),
            split_evenly_over=1,
        )
        algorithm = {"aim": AIM, "mst": MST}[self.algorithm]()
        return context.query().contingency_table(keys=keys, algorithm=algorithm).release()

    def _drawn(self, model: Any) -> list[Cells]:
        """Cells of new rows, (M,) for each column, from the model on condition that none is null, as none was."""
        from attr import evolve
        from mbi import Factor  # type: ignore[import-untyped]

        potentials = model.potentials
        arrays = dict(potentials.arrays)
        for name in potentials.domain.attrs:
            domain = potentials.domain.project((name,))
            clique = next(clique for clique in potentials.cliques if name in clique)
            barred = np.where(np.arange(domain.size(name)) == NULL, NEVER, 0.0)
            arrays[clique] += Factor(domain, barred)
        conditional = model.replace(potentials=evolve(potentials, arrays=arrays))
        data = conditional.synthetic_data(self.rows or max(round(float(model.total)), 1)).df
        return [data[str(number)].to_numpy().astype(np.int64) for number in range(len(self.categories))]


def _adds_up(rho: float, pairs: int) -> bool:
    """Whether what MST splits over the choices of its pairs adds up to no more than it split, rounded as OpenDP does.

    Where it does not, OpenDP 0.16 fails with "insufficient budget" after it has drawn noise (its issue 2789). This
    follows its arithmetic, so that such a rho is passed over before anything is charged.
    """
    from opendp import combinators, domains, measures, metrics
    from opendp.mod import enable_features

    enable_features("contrib")
    rest = math.nextafter(math.nextafter(rho - rho * 0.5, 0), 0)  # after the single columns
    chosen = math.nextafter(math.nextafter(rest - rest * 0.9, 0), 0)  # after the pairs' noise
    each = math.nextafter(chosen / pairs, 0)
    space = domains.vector_domain(domains.atom_domain(T="i64")), metrics.l2_distance(T="i64")  # any will do
    whole = combinators.make_adaptive_composition(*space, measures.zero_concentrated_divergence(), 1, [each] * pairs)
    return bool(whole.map(1) <= chosen)


def _named(categories: Sequence[Hashable], place: Cells) -> NDArray[Any]:
    """The categories at these places (M,): their own type where they share a plain one, else objects."""
    kinds = {type(category) for category in categories}
    plain = len(kinds) == 1 and issubclass(kinds.pop(), bool | int | float | str | np.generic)
    named = np.array(list(categories)) if plain else np.fromiter(categories, dtype=object, count=len(categories))
    return named[place]
