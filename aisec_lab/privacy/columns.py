"""Validation of private columns and of the public categories in which they are counted."""

from collections.abc import Callable, Hashable, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from aisec_lab.privacy.noise import Cells

Charge = Callable[[str, float, float], None]  # called with name, epsilon, delta; raises where the budget is spent


def check_columns(columns: Sequence[ArrayLike], count: int, delta: float, name: str) -> list[NDArray[Any]]:
    """Private columns as arrays.

    Args:
        columns: arrays (N,).
        count: number of columns that there must be.
        delta: with which the statistic is released.
        name: of the statistic, for messages.

    Returns:
        The columns in their order.

    Raises:
        ValueError: another count, no rows, unequal lengths, NaN or infinity, delta of 1 / N or more.
    """
    arrays = [np.asarray(column) for column in columns]
    shapes = {a.shape for a in arrays}
    if len(arrays) != count or len(shapes) != 1 or any(a.ndim != 1 or not len(a) for a in arrays):
        raise ValueError(
            f"{name} takes {count} column(s) (N,) of one length, with a row at least, got shapes "
            f"{[a.shape for a in arrays]}"
        )
    if any(a.dtype.kind == "f" and not np.isfinite(a).all() for a in arrays):
        raise ValueError(f"{name} takes finite numbers, got NaN or infinity: fill it in, or drop the row")
    if delta * len(arrays[0]) >= 1:
        raise ValueError(f"{name}: delta must be below 1 / {len(arrays[0])}, one over the rows, got {delta}")
    return arrays


def as_floats(values: NDArray[Any]) -> NDArray[np.float64]:
    """A column (N,) of numbers of any dtype as float64.

    Raises:
        ValueError: text, dates, complex numbers, missing values, NaN or infinity.
    """
    try:
        if values.dtype.kind not in "biufO" or any(isinstance(value, str | bytes) for value in values.tolist()):
            raise TypeError(f"a column of {values.dtype}")
        floats = values.astype(np.float64)
    except (TypeError, ValueError) as error:
        raise ValueError(f"a column of numbers is needed, got other values ({error}): convert it") from error
    if not np.isfinite(floats).all():
        raise ValueError("a column of finite numbers is needed, got None, NaN or infinity: fill it in, or drop the row")
    return floats


def category_indices(values: NDArray[Any], categories: Sequence[Hashable]) -> Cells:
    """The index (N,), int64, of each value (N,) among the categories.

    Raises:
        ValueError: a value that is not among them.
    """
    index = {category: number for number, category in enumerate(categories)}
    indices = [index.get(value, -1) for value in values.tolist()]
    if -1 in indices:
        raise ValueError(
            f"a value is not among the categories {list(categories)}: name all that there can be, or one for the rest"
        )
    return np.array(indices, dtype=np.int64)


def check_categories(categories: Sequence[Hashable]) -> None:
    """Refuse categories that are not distinct, or that are empty.

    Raises:
        ValueError: a category is named twice, or there is none.
    """
    if not len(categories) or len(set(categories)) != len(categories):
        raise ValueError(f"categories must be named once each, one at least, got {list(categories)}")
