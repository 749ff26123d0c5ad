"""Differentially private synthetic rows, sampled from a graphical model of noisy marginals."""

import math
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import count
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from aisec_lab.privacy.columns import Charge, category_indices, check_categories, check_columns
from aisec_lab.privacy.noise import Cells, ReleaseNoise

ALGORITHMS = ("aim", "mst")
NULL = 0  # index of the null value among a column's cells
NEVER = -1e6  # log-probability of what must not be sampled


@dataclass(frozen=True)
class SyntheticRows:
    """Released synthetic rows; all of it may be published.

    Args:
        columns: categories (M,) by column name; M is `Synthetic.rows` or a noisy estimate of the number of rows.
        epsilon, delta: the guarantee.
        rho: the zero-concentrated DP from which it follows.
        algorithm: "mst" or "aim".
    """

    columns: dict[str, NDArray[Any]]
    epsilon: float
    delta: float
    rho: float
    algorithm: str


@dataclass(frozen=True)
class Synthetic:
    """Synthetic rows by OpenDP's MST (McKenna et al., 2021, arXiv:2108.04978) or AIM (2022, arXiv:2201.12677).

    Half of the budget measures each column alone. The rest selects and measures pairs of columns (MST: a tree of them;
    AIM: triples too). The rows are sampled from the graphical model that fits these marginals: it assumes no other
    dependence between columns than the measured ones imply.

    OpenDP takes no seed, so there is no `simulate`, and two calls differ. A call takes 12 to 18 seconds of CPU for
    three to eight columns of some hundred rows, most of it for compiling and for the search of the noise scale.
    Neighbours, public fields and `charge`: docs/dp-statistics.md.

    Args:
        epsilon: positive and finite.
        delta: in (0, 1 / N).
        categories: all categories of each column, public, whether they occur or not; at least two columns. Bin numeric
            columns by public edges first.
        algorithm: "mst" or "aim".
        rows: number of rows to sample; None for a noisy estimate of N.

    Raises:
        ValueError: a field out of its range; in a call, other columns than `categories`, no rows, unequal lengths, NaN,
            a value that is not among the categories, delta of 1 / N or more.
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
        """The largest zero-concentrated DP that OpenDP converts to (epsilon, delta), or slightly less.

        It is that of one Gaussian draw (Bun & Steinke, 2016, arXiv:1605.02065, proposition 1.6) with OpenDP's scale.
        """
        most = 1 / (2 * ReleaseNoise(self.epsilon, self.delta).scale ** 2)
        candidates = (most * (1 - 1e-9 * k) for k in count(1))
        return next(rho for rho in candidates if _budget_suffices(rho, len(self.categories) - 1))

    def __call__(self, columns: Mapping[str, ArrayLike], *, charge: Charge | None = None) -> SyntheticRows:
        """Release synthetic rows.

        Args:
            columns: private columns (N,) by name, in any order.
            charge: called with "Synthetic", epsilon and delta before any noise is drawn; if it raises, nothing is
                released.

        Returns:
            The synthetic rows with their guarantee.
        """
        if set(columns) != set(self.categories):
            raise ValueError(
                f"columns must be {sorted(self.categories)}, as the categories have, got {sorted(columns)}"
            )
        arrays = check_columns(
            [columns[name] for name in self.categories], len(self.categories), self.delta, "Synthetic"
        )
        cells = [
            category_indices(values, named) for values, named in zip(arrays, self.categories.values(), strict=True)
        ]
        rho = self.rho  # everything that can fail must fail before anything is charged
        if charge is not None:
            charge("Synthetic", self.epsilon, self.delta)
        sampled = self._sample(self._contingency_table(cells, rho).model)
        released = {
            name: _take(self.categories[name], index - NULL - 1)
            for name, index in zip(self.categories, sampled, strict=True)
        }
        return SyntheticRows(released, self.epsilon, self.delta, rho, self.algorithm)

    def _contingency_table(self, cells: Sequence[Cells], rho: float) -> Any:
        """OpenDP's contingency table: a graphical model of all columns and the noisy marginals that it fits."""
        import opendp.prelude as dp
        import polars as pl
        from opendp.extras.mbi import AIM, MST

        dp.enable_features("contrib")
        frame = pl.DataFrame({str(number): column for number, column in enumerate(cells)})  # names that OpenDP takes
        keys = {
            str(number): [
                None,
                *range(len(named)),
            ]  # OpenDP needs a cell for null; as the first, it gets no rounded rows
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

    def _sample(self, model: Any) -> list[Cells]:
        """Cells (M,) of each column, sampled from the model conditioned on no null, since no row has one."""
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


def _budget_suffices(rho: float, pairs: int) -> bool:
    """Whether the budgets that MST gives to the choices of pairs add up to no more than it has, as OpenDP rounds.

    If not, OpenDP 0.16 fails with "insufficient budget" after it has drawn noise (its issue 2789). We repeat its
    arithmetic to avoid such a rho before anything is charged.
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


def _take(categories: Sequence[Hashable], index: Cells) -> NDArray[Any]:
    """The categories at indices (M,): of their own dtype where they share a plain type, else objects."""
    kinds = {type(category) for category in categories}
    plain = len(kinds) == 1 and issubclass(kinds.pop(), bool | int | float | str | np.generic)
    named = np.array(list(categories)) if plain else np.fromiter(categories, dtype=object, count=len(categories))
    return named[index]
