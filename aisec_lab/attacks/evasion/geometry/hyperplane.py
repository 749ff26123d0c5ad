"""The nearest point of a hyperplane inside the box (Croce & Hein, 2020, arXiv:1907.02044, problem 3), for each norm."""

from collections.abc import Callable

import torch
from torch import Tensor

from aisec_lab.attacks.evasion.geometry.projections import per_row

Lengths = Callable[[Tensor, Tensor, Tensor], Tensor]


def smallest_step(x: Tensor, slope: Tensor, rise: Tensor, lengths: Lengths) -> Tensor:
    """The perturbation that `lengths` finds once rows are flattened, in float64, and every slope points uphill.

    Args:
        x: points (N, *input) of the box.
        slope: gradients of linear functions, shape of `x`.
        rise: by how much they have to rise (N,), or to fall where negative.
        lengths: of slopes (N, D) >= 0, room to the faces (N, D) and rises (N, 1) >= 0, the change of each coordinate.

    Returns:
        Perturbations, shape of `x`; zero along coordinates without slope.
    """
    uphill = slope * per_row(rise.sign(), slope)
    room = torch.where(uphill > 0, 1 - x, x).clamp(min=0)
    length = lengths(uphill.abs().flatten(1).double(), room.flatten(1).double(), rise.abs()[:, None].double())
    return uphill.sign() * length.view_as(x).to(x.dtype)


def all_coordinates(u: Tensor, room: Tensor, rise: Tensor, *, speed: Tensor) -> Tensor:
    """L2 (speed u) and Linf (speed 1): all move at once, by min(s speed, room), until u . min(s speed, room) = rise.

    The left side is concave in s and made of straight pieces, so that Newton's method from s = 0 never overshoots;
    each of its steps but the last stops another coordinate at its face.
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
    """L1: the steepest coordinate goes first, to its face, and so on; the last one as far as is needed."""
    slope, order = u.sort(dim=1, descending=True, stable=True)
    space = room.gather(1, order)
    gain = slope * space
    missing = rise - (gain.cumsum(1) - gain)  # when a coordinate's turn comes
    length = torch.where(missing < gain, missing.clamp(min=0) / slope.where(slope > 0, 1.0), space)
    return torch.zeros_like(u).scatter(1, order, length)


def whole_coordinates(u: Tensor, room: Tensor, rise: Tensor) -> Tensor:
    """L0: those coordinates go to their faces that gain most by it, until it is enough."""
    gain, order = (u * room).sort(dim=1, descending=True, stable=True)
    needed = gain.cumsum(1) - gain < rise
    return torch.zeros_like(u).scatter(1, order, room.gather(1, order) * needed)
