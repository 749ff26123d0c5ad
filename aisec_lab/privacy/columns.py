"""Columns of private rows, and the public categories that they are counted in: what is refused at the door."""

from collections.abc import Callable, Hashable, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from aisec_lab.privacy.noise import Cells

Charge = Callable[[str, float, float], None]  # is told a name, epsilon and delta; raises where the budget is spent


def checked(columns: Sequence[ArrayLike], count: int, delta: float, name: str) -> list[NDArray[Any]]:
    """The columns as arrays.

    Args:
        columns: (N,) each.
        count: how many there must be.
        delta: that the rows are to be released with.
        name: of what releases them, for the message.

    Raises:
        ValueError: another count, no rows, unequal lengths, NaN or infinity, a delta of 1 / N or more.
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


def numbers(values: NDArray[Any]) -> NDArray[np.float64]:
    """A column (N,) as finite float64, whatever it is stored as.

    Raises:
        ValueError: a value that is no number, such as a missing one, or not finite; text, dates, complex numbers.
    """
    try:
        if values.dtype.kind not in "biufO" or any(isinstance(value, str | bytes) for value in values.tolist()):
            raise TypeError(f"a column of {values.dtype}")
        found = values.astype(np.float64)
    except (TypeError, ValueError) as error:
        raise ValueError(f"a column of numbers is needed, got other values ({error}): convert it") from error
    if not np.isfinite(found).all():
        raise ValueError("a column of finite numbers is needed, got None, NaN or infinity: fill it in, or drop the row")
    return found


def places(values: NDArray[Any], categories: Sequence[Hashable]) -> Cells:
    """The place of each value (N,) among the categories.

    Raises:
        ValueError: a value that is not among them.
    """
    place = {category: number for number, category in enumerate(categories)}
    found = [place.get(value, -1) for value in values.tolist()]
    if -1 in found:
        raise ValueError(
            f"a value is not among the categories {list(categories)}: name all that there can be, or one for the rest"
        )
    return np.array(found, dtype=np.int64)


def check_categories(categories: Sequence[Hashable]) -> None:
    """Refuse categories that are named twice, or none.

    Raises:
        ValueError: as said.
    """
    if not len(categories) or len(set(categories)) != len(categories):
        raise ValueError(f"categories must be named once each, one at least, got {list(categories)}")
