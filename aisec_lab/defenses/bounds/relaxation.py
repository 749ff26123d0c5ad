"""CROWN: linear bounds of a network, carried from its output back to its input.

Zhang et al., 2018, arXiv:1811.00866, section 3. Below ReLU runs the line 0 or z, whichever leaves the smaller triangle.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from aisec_lab.attacks import L2, Ball, Linf
from aisec_lab.attacks.evasion.geometry.projections import project_l2
from aisec_lab.defenses.bounds.layers import Interval, backward, forward

CHUNK = 256  # linear functions carried back at a time: what a processor's cache holds


def hull(ball: Ball, x: Tensor) -> Interval:
    """The smallest interval around ball and box, at x (N, *input); ValueError for other balls than Linf and L2."""
    if not isinstance(ball, Linf | L2):
        raise ValueError(f"bounds know the balls Linf and L2, got {ball}")
    return Interval(torch.minimum(x, (x - ball.eps).clamp(min=0)), torch.maximum(x, (x + ball.eps).clamp(max=1)))


def least(ball: Ball, x: Tensor, a: Tensor) -> Tensor:
    """The least value over ball and box of each function a . z, z = x + delta, for x and a (M, *input): shape (M,).

    For L2 by the dual: a = b + c gives -eps ||b||_2 over the ball plus the least of c over the box, a bound for
    any b; the b that is taken is where the primal solution (`project_l2`) says the best one is.
    """
    interval = hull(ball, x)
    everywhere = interval.least(torch.arange(len(x), device=x.device), a)
    if isinstance(ball, Linf):
        return everywhere  # the hull is ball and box themselves
    size = a.abs().flatten(1).double()
    room = (
        torch.where(a > 0, x - interval.low, interval.high - x).flatten(1).double()
    )  # of the hull: ball's cube and box
    length = project_l2(size, room, size.new_full((len(a), 1), ball.eps))
    scale = (length / size.clamp(min=torch.finfo(torch.float64).tiny)).amax(1, keepdim=True)
    b = torch.minimum(length / scale.clamp(min=torch.finfo(torch.float64).tiny), size)
    fall = ball.eps * b.norm(dim=1) + ((size - b) * room).sum(1)
    return torch.maximum(everywhere, (a * x).flatten(1).sum(1) - fall.to(a.dtype))


def relaxed(a: Tensor, low: Tensor, high: Tensor) -> tuple[Tensor, Tensor]:
    """Linear functions of relu(z), bounded from below by linear functions of z on [low, high].

    Args:
        a: coefficients (M, *shape).
        low, high: ends, shape of `a`.

    Returns:
        Coefficients (M, *shape) and offsets (M,): a . relu(z) >= coefficients . z + offset.
    """
    unstable = (low < 0) & (high > 0)
    slope = torch.where(unstable, high / torch.where(unstable, high - low, 1), (low >= 0).to(a.dtype))  # of the chord
    below = torch.where(unstable, (high > -low).to(a.dtype), slope)
    falling = a.clamp(max=0)
    offset = falling * slope * torch.where(unstable, low, 0)
    return a.clamp(min=0) * below + falling * slope, -offset.flatten(1).sum(1)


def descend(
    layers: Sequence[nn.Module], intervals: Sequence[Interval], rows: Tensor, a: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Carry linear functions of a network's output back to its input.

    Args:
        layers: the network.
        intervals: of the input of each layer, and of the output of the last.
        rows: whose intervals each function is bounded on (M,).
        a: coefficients (M, *output).

    Returns:
        Coefficients (M, *input), offsets (M,): a . f(z) >= coefficients . z + offset; and the best bound (M,)
        among those that the intervals of each depth give, so that it is never below plain interval arithmetic.
    """
    offset, best = a.new_zeros(len(a)), intervals[-1].least(rows, a)
    for layer, interval in zip(reversed(layers), reversed(intervals[:-1]), strict=True):
        if isinstance(layer, nn.ReLU):  # in front of it the interval gives nothing better than behind it
            a, shift = relaxed(a, interval.low[rows], interval.high[rows])
            offset = offset + shift
        else:
            a, shift = backward(layer, a, tuple(interval.low.shape[1:]))
            offset = offset + shift
            best = torch.maximum(best, interval.least(rows, a) + offset)
    return a, offset, best


def lower(
    layers: Sequence[nn.Module], intervals: Sequence[Interval], x: Tensor, ball: Ball, rows: Tensor, a: Tensor
) -> Tensor:
    """Lower bounds (M,) over ball and box, around x[rows], of the functions a (M, *output) of a network's output."""
    bounds = []
    for some, coefficients in zip(rows.split(CHUNK), a.split(CHUNK), strict=True):
        linear, offset, best = descend(layers, intervals, some, coefficients)
        if not isinstance(ball, Linf):
            best = torch.maximum(best, least(ball, x[some], linear) + offset)
        bounds.append(best)
    return torch.cat(bounds) if bounds else x.new_zeros(0)


def interval_bounds(layers: Sequence[nn.Module], x: Tensor, ball: Ball) -> list[Interval]:
    """Intervals of the input (N, *input) of each layer and of the last one's output, by interval arithmetic alone."""
    intervals = [hull(ball, x)]
    for layer in layers:
        intervals.append(forward(layer, intervals[-1]))
    return intervals


def crown_bounds(layers: Sequence[nn.Module], x: Tensor, ball: Ball) -> list[Interval]:
    """As `interval_bounds`, but before each ReLU those that may change sign are bounded by CROWN."""
    intervals = [hull(ball, x)]
    for depth, layer in enumerate(layers):
        if isinstance(layer, nn.ReLU):
            intervals[-1] = _refined(layers[:depth], intervals, x, ball)
        intervals.append(forward(layer, intervals[-1]))
    return intervals


def _refined(layers: Sequence[nn.Module], intervals: Sequence[Interval], x: Tensor, ball: Ball) -> Interval:
    low, high = (end.flatten(1).clone() for end in intervals[-1])
    rows, places = ((low < 0) & (high > 0)).nonzero(as_tuple=True)
    for some, place in zip(rows.split(CHUNK), places.split(CHUNK), strict=True):
        unit = torch.zeros(len(some), low.shape[1], dtype=low.dtype, device=low.device)
        unit = unit.scatter(1, place[:, None], 1).view(-1, *intervals[-1].low.shape[1:])
        low[some, place] = lower(layers, intervals, x, ball, some, unit)
        high[some, place] = -lower(layers, intervals, x, ball, some, -unit)
    return Interval(low.view_as(intervals[-1].low), high.view_as(intervals[-1].high))
