"""Euclidean projections onto ball and box together; clipping what was projected onto the ball is not that."""

from collections.abc import Callable

import torch
from torch import Tensor

Onto = Callable[[Tensor, Tensor, Tensor], Tensor]
TINY = 1e-30  # keeps 0 / 0 out of the norms of zero rows


def per_row(values: Tensor, like: Tensor) -> Tensor:
    """Values (N,) shaped to broadcast against `like` (N, *input)."""
    return values.view(-1, *(1,) * (like.ndim - 1))


def clip_to_box(x: Tensor, delta: Tensor) -> Tensor:
    """The nearest perturbation with x + delta inside [0, 1]; shape of `x`."""
    return torch.minimum(torch.maximum(delta, (-x).clamp(max=0)), (1 - x).clamp(min=0))


def mask_blocked(x: Tensor, delta: Tensor, grad: Tensor) -> Tensor:
    """The gradient without the coordinates that stand at a face of the box unperturbed and would leave it.

    They cannot contribute, so a step of given length is better spent on the others. Coordinates that were
    perturbed until they reached a face stay in: an exact projection needs their gradient to hold them there.
    """
    z = x + delta
    outward = ((z <= 0) & (grad < 0)) | ((z >= 1) & (grad > 0))
    return grad.masked_fill(outward & (delta == 0), 0.0)


def normalise_gradient(grad: Tensor) -> Tensor:
    """The gradient of each row over its largest entry; rows of zeros stay so."""
    return grad / per_row(grad.flatten(1).abs().amax(1).clamp(min=torch.finfo(grad.dtype).tiny), grad)


def project_with_box(x: Tensor, delta: Tensor, eps: Tensor, size: Callable[[Tensor], Tensor], onto: Onto) -> Tensor:
    """The nearest perturbation in ball and box: clipped where this is enough, solved for exactly elsewhere.

    Args:
        x: inputs (N, *input).
        delta: perturbations, shape of `x`.
        eps: radii of the balls (N,).
        size: the ball's norm of each row.
        onto: `project_l2` or `project_l1`, which solve for rows flattened and made positive, in float64.

    Returns:
        Perturbations, shape of `x`.
    """
    near = clip_to_box(x, delta)
    far = size(near) > eps.to(near.dtype)
    if far.any():
        v, x = delta[far], x[far]
        room = torch.where(v > 0, 1 - x, x).clamp(min=0)  # from x to the face that delta heads for
        length = onto(v.abs().flatten(1).double(), room.flatten(1).double(), eps[far, None].double())
        near[far] = v.sign() * length.view_as(v).to(v.dtype)
    return near


def project_l2(u: Tensor, room: Tensor, eps: Tensor) -> Tensor:
    """The nearest to u (N, D) >= 0 of length eps (N, 1) below `room` is min(s u, room): s between breakpoints."""
    hit, order = (room / u.clamp(min=TINY)).sort(dim=1)  # the s at which a coordinate reaches its face
    room_sq, u_sq = room.gather(1, order) ** 2, u.gather(1, order) ** 2
    stopped = room_sq.cumsum(1) - room_sq  # sum over the coordinates before
    moving = u_sq.flip(1).cumsum(1).flip(1)  # sum over this one and those behind
    below = (stopped + hit**2 * moving <= eps**2).sum(1, keepdim=True).clamp(max=u.shape[1] - 1)
    s = ((eps**2 - stopped.gather(1, below)).clamp(min=0) / moving.gather(1, below).clamp(min=TINY)).sqrt()
    return torch.minimum(s * u, room)


def project_l1(u: Tensor, room: Tensor, eps: Tensor) -> Tensor:
    """The nearest to u (N, D) >= 0 of sum eps (N, 1) below `room` is clip(u - s, 0, room): s between breakpoints."""
    knots, order = torch.cat([u, u - room], 1).sort(dim=1, descending=True)
    slope = torch.where(order < u.shape[1], 1, -1).cumsum(1)  # coordinates in motion just below each breakpoint
    mass = torch.cat([torch.zeros_like(knots[:, :1]), (slope[:, :-1] * -knots.diff(dim=1)).cumsum(1)], 1)
    last = (mass <= eps).sum(1, keepdim=True) - 1
    s = knots.gather(1, last) - (eps - mass.gather(1, last)) / slope.gather(1, last).clamp(min=1)
    return torch.minimum((u - s).clamp(min=0), room)
