"""CROWN: linear bounds of a network's output as functions of its input (Zhang et al., 2018, arXiv:1811.00866).

Section 3. The lower bound of a ReLU is the line 0 or z, whichever encloses the smaller area.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from aisec_lab.attacks import L2, Ball, Linf
from aisec_lab.attacks.evasion.geometry.projections import project_l2
from aisec_lab.defenses.bounds.layers import Interval, backward, forward

CHUNK = 256  # linear functions back-substituted at a time: they fit into a processor's cache


def bounding_box(ball: Ball, x: Tensor) -> Interval:
    """The smallest interval that contains the intersection of ball and box.

    Args:
        ball: Linf or L2.
        x: centres (N, *input) in [0, 1].

    Raises:
        ValueError: another ball.
    """
    if not isinstance(ball, Linf | L2):
        raise ValueError(f"bounds know the balls Linf and L2, got {ball}")
    return Interval(torch.minimum(x, (x - ball.eps).clamp(min=0)), torch.maximum(x, (x + ball.eps).clamp(max=1)))


def minimum_over_ball(ball: Ball, x: Tensor, a: Tensor) -> Tensor:
    """The minimum over ball and box of linear functions a . z, z = x + delta.

    For L2 by duality: any split a = b + c gives the bound -eps ||b||_2 over the ball plus the minimum of c over the
    box. The primal solution (`project_l2`) gives the best b.

    Args:
        ball: Linf or L2.
        x: centres (M, *input) in [0, 1].
        a: coefficients (M, *input).

    Returns:
        (M,); for L2 a lower bound, which is the minimum up to rounding.

    Raises:
        ValueError: another ball.
    """
    interval = bounding_box(ball, x)
    over_box = interval.minimum(torch.arange(len(x), device=x.device), a)
    if isinstance(ball, Linf):
        return over_box  # the bounding box is the intersection itself
    size = a.abs().flatten(1).double()
    room = torch.where(a > 0, x - interval.low, interval.high - x).flatten(1).double()  # inside the bounding box
    length = project_l2(size, room, size.new_full((len(a), 1), ball.eps))
    scale = (length / size.clamp(min=torch.finfo(torch.float64).tiny)).amax(1, keepdim=True)
    b = torch.minimum(length / scale.clamp(min=torch.finfo(torch.float64).tiny), size)
    fall = ball.eps * b.norm(dim=1) + ((size - b) * room).sum(1)
    return torch.maximum(over_box, (a * x).flatten(1).sum(1) - fall.to(a.dtype))


def relax_relu(a: Tensor, low: Tensor, high: Tensor) -> tuple[Tensor, Tensor]:
    """Lower bounds of linear functions of relu(z), linear in z, on [low, high].

    Args:
        a: coefficients (M, *shape).
        low, high: bounds on z, shape of `a`.

    Returns:
        Coefficients (M, *shape) and offsets (M,): a . relu(z) >= coefficients . z + offset.
    """
    unstable = (low < 0) & (high > 0)
    slope = torch.where(unstable, high / torch.where(unstable, high - low, 1), (low >= 0).to(a.dtype))  # of the chord
    below = torch.where(unstable, (high > -low).to(a.dtype), slope)
    falling = a.clamp(max=0)
    offset = falling * slope * torch.where(unstable, low, 0)
    return a.clamp(min=0) * below + falling * slope, -offset.flatten(1).sum(1)


def backsubstitute(
    layers: Sequence[nn.Module], intervals: Sequence[Interval], rows: Tensor, a: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Bound linear functions of a network's output by linear functions of its input.

    Args:
        layers: the network.
        intervals: of the input of each layer, and of the output of the last.
        rows: whose intervals each function is bounded on, (M,), int64.
        a: coefficients (M, *output).

    Returns:
        Coefficients (M, *input) and offsets (M,), with a . f(z) >= coefficients . z + offset; and the best lower bound
        (M,) that the intervals of any layer give, which is never below plain interval arithmetic.
    """
    offset, best = a.new_zeros(len(a)), intervals[-1].minimum(rows, a)
    for layer, interval in zip(reversed(layers), reversed(intervals[:-1]), strict=True):
        if isinstance(layer, nn.ReLU):  # the interval before it gives no better bound than the one after it
            a, shift = relax_relu(a, interval.low[rows], interval.high[rows])
            offset = offset + shift
        else:
            a, shift = backward(layer, a, tuple(interval.low.shape[1:]))
            offset = offset + shift
            best = torch.maximum(best, interval.minimum(rows, a) + offset)
    return a, offset, best


def lower_bounds(
    layers: Sequence[nn.Module], intervals: Sequence[Interval], x: Tensor, ball: Ball, rows: Tensor, a: Tensor
) -> Tensor:
    """Lower bounds of linear functions of a network's output, over ball and box.

    Args:
        layers: the network.
        intervals: of the input of each layer, and of the output of the last.
        x: centres (N, *input) in [0, 1].
        ball: Linf or L2.
        rows: around which row of x each function is bounded, (M,), int64.
        a: coefficients (M, *output).

    Returns:
        (M,).
    """
    bounds = []
    for some, coefficients in zip(rows.split(CHUNK), a.split(CHUNK), strict=True):
        linear, offset, best = backsubstitute(layers, intervals, some, coefficients)
        if not isinstance(ball, Linf):
            best = torch.maximum(best, minimum_over_ball(ball, x[some], linear) + offset)
        bounds.append(best)
    return torch.cat(bounds) if bounds else x.new_zeros(0)


def interval_bounds(layers: Sequence[nn.Module], x: Tensor, ball: Ball) -> list[Interval]:
    """Bounds of every layer by interval arithmetic alone.

    Args:
        layers: the network.
        x: centres (N, *input) in [0, 1].
        ball: Linf or L2.

    Returns:
        Intervals of the input of each layer, and of the output of the last.
    """
    intervals = [bounding_box(ball, x)]
    for layer in layers:
        intervals.append(forward(layer, intervals[-1]))
    return intervals


def crown_bounds(layers: Sequence[nn.Module], x: Tensor, ball: Ball) -> list[Interval]:
    """Bounds of every layer, where CROWN bounds the inputs of ReLUs that may change sign.

    Args:
        layers: the network.
        x: centres (N, *input) in [0, 1].
        ball: Linf or L2.

    Returns:
        Intervals of the input of each layer, and of the output of the last; never wider than `interval_bounds`.
    """
    intervals = [bounding_box(ball, x)]
    for depth, layer in enumerate(layers):
        if isinstance(layer, nn.ReLU):
            intervals[-1] = _tightened(layers[:depth], intervals, x, ball)
        intervals.append(forward(layer, intervals[-1]))
    return intervals


def _tightened(layers: Sequence[nn.Module], intervals: Sequence[Interval], x: Tensor, ball: Ball) -> Interval:
    """The last interval, with CROWN's bounds where it contains 0."""
    low, high = (end.flatten(1).clone() for end in intervals[-1])
    rows, places = ((low < 0) & (high > 0)).nonzero(as_tuple=True)
    for some, place in zip(rows.split(CHUNK), places.split(CHUNK), strict=True):
        unit = torch.zeros(len(some), low.shape[1], dtype=low.dtype, device=low.device)
        unit = unit.scatter(1, place[:, None], 1).view(-1, *intervals[-1].low.shape[1:])
        low[some, place] = lower_bounds(layers, intervals, x, ball, some, unit)
        high[some, place] = -lower_bounds(layers, intervals, x, ball, some, -unit)
    return Interval(low.view_as(intervals[-1].low), high.view_as(intervals[-1].high))
