"""The nearest point of a hyperplane inside the box (Croce & Hein, 2020, arXiv:1907.02044, problem 3), for each norm."""

from collections.abc import Callable

import torch
from torch import Tensor

from aisec_lab.attacks.evasion.geometry.projections import per_row

Solver = Callable[[Tensor, Tensor, Tensor], Tensor]


def smallest_step(x: Tensor, slope: Tensor, rise: Tensor, solve: Solver) -> Tensor:
    """The perturbation that `solve` finds for flattened rows, in float64, after reflecting all slopes to be positive.

    Args:
        x: points (N, *input) of the box.
        slope: gradients of linear functions, shape of `x`.
        rise: by how much each has to rise (N,), or to fall where negative.
        solve: of slopes (N, D) >= 0, distances to the faces (N, D) and rises (N, 1) >= 0, the change of each
            coordinate.

    Returns:
        Perturbations, shape of `x`; zero in coordinates without slope.
    """
    reflected = slope * per_row(rise.sign(), slope)
    room = torch.where(reflected > 0, 1 - x, x).clamp(min=0)
    length = solve(reflected.abs().flatten(1).double(), room.flatten(1).double(), rise.abs()[:, None].double())
    return reflected.sign() * length.view_as(x).to(x.dtype)


def all_coordinates(u: Tensor, room: Tensor, rise: Tensor, *, speed: Tensor) -> Tensor:
    """L2 (speed u) and Linf (speed 1): coordinates move by min(s speed, room), until u . min(s speed, room) = rise.

    The left side is concave and piecewise linear in s, so Newton's method from s = 0 never overshoots; each of its
    steps but the last stops another coordinate at its face.
    """
    s = torch.zeros_like(rise)
    while True:
        moving = s * speed < room
        steepness = (u * speed * moving).sum(1, keepdim=True)
        missing = rise - (u * room * ~moving).sum(1, keepdim=True)
        further = torch.where(steepness > 0, missing / steepness, s)
        if not (further > s).any():
            return torch.minimum(s * speed, room)
        s = torch.maximum(s, further)


def steepest_first(u: Tensor, room: Tensor, rise: Tensor) -> Tensor:
    """L1: coordinates move to their faces in descending order of slope, the last one only as far as needed."""
    slope, order = u.sort(dim=1, descending=True, stable=True)
    space = room.gather(1, order)
    gain = slope * space
    missing = rise - (gain.cumsum(1) - gain)  # at the turn of each coordinate
    length = torch.where(missing < gain, missing.clamp(min=0) / slope.where(slope > 0, 1.0), space)
    return torch.zeros_like(u).scatter(1, order, length)


def whole_coordinates(u: Tensor, room: Tensor, rise: Tensor) -> Tensor:
    """L0: coordinates move to their faces in descending order of gain, until the rise is reached."""
    gain, order = (u * room).sort(dim=1, descending=True, stable=True)
    needed = gain.cumsum(1) - gain < rise
    return torch.zeros_like(u).scatter(1, order, room.gather(1, order) * needed)
