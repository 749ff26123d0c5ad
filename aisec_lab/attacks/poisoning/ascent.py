"""Gradient ascent with a line search: how poisoned rows are moved to where they do most harm."""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

LARGEST = 1.0  # step


class Ascent(NamedTuple):
    """A point of an ascent, its loss, and the gradient there, of any shape."""

    point: Tensor
    loss: float
    gradient: Tensor


def gradient_ascent(
    start: Ascent,
    loss: Callable[[Tensor], tuple[float, Tensor]],
    move: Callable[[Ascent, float], Tensor],
    *,
    steps: int,
    growth: float,
    smallest: float,
) -> Ascent:
    """Climb a loss: a step that raises it is taken and lets the next one grow; any other is halved.

    Args:
        start: where to begin.
        loss: from a point to its loss and gradient.
        move: from a state and a step in (0, 1] to the point to try, already inside the allowed set.
        steps: evaluations of `loss` at most.
        growth: factor by which a step grows after a success, up to 1.
        smallest: step below which the search ends.

    Returns:
        The best state that was seen, never worse than `start`.
    """
    best, step = start, LARGEST
    for _ in range(steps):
        if step < smallest:
            break
        point = move(best, step)
        if torch.equal(point, best.point):  # no direction is left, and a smaller step has none either
            break
        tried = Ascent(point, *loss(point))
        if tried.loss > best.loss:
            best, step = tried, min(growth * step, LARGEST)
        else:
            step /= 2
    return best
