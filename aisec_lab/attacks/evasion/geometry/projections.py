"""Exact Euclidean projections onto the intersection of ball and box, which clipping alone does not give."""

from collections.abc import Callable

import torch
from torch import Tensor

Projection = Callable[[Tensor, Tensor, Tensor], Tensor]
TINY = 1e-30  # avoids 0 / 0 for rows of zeros


def per_row(values: Tensor, like: Tensor) -> Tensor:
    """Values (N,), shaped to broadcast against `like` (N, *input)."""
    return values.view(-1, *(1,) * (like.ndim - 1))


def clip_to_box(x: Tensor, delta: Tensor) -> Tensor:
    """The nearest perturbation with x + delta inside [0, 1]; shape of `x`."""
    return torch.minimum(torch.maximum(delta, (-x).clamp(max=0)), (1 - x).clamp(min=0))


def mask_blocked(x: Tensor, delta: Tensor, grad: Tensor) -> Tensor:
    """The gradient without unperturbed coordinates at a face of the box that a step would push outside.

    They cannot contribute, so that a step of given length is better spent on the others. Perturbed coordinates at a
    face stay: an exact projection needs their gradient to hold them there.

    Args:
        x: inputs (N, *input).
        delta: perturbations, shape of `x`.
        grad: gradients, shape of `x`.

    Returns:
        Shape of `x`, 0 at the blocked coordinates.
    """
    z = x + delta
    outward = ((z <= 0) & (grad < 0)) | ((z >= 1) & (grad > 0))
    return grad.masked_fill(outward & (delta == 0), 0.0)


def normalise_gradient(grad: Tensor) -> Tensor:
    """The gradient of each row divided by its largest absolute entry; rows of zeros stay zero."""
    return grad / per_row(grad.flatten(1).abs().amax(1).clamp(min=torch.finfo(grad.dtype).tiny), grad)


def project_with_box(
    x: Tensor, delta: Tensor, eps: Tensor, norm: Callable[[Tensor], Tensor], project: Projection
) -> Tensor:
    """The nearest perturbation in ball and box: clipped where this is enough, solved exactly elsewhere.

    Args:
        x: inputs (N, *input).
        delta: perturbations, shape of `x`.
        eps: radii of the balls (N,).
        norm: the ball's norm of each row.
        project: `project_l2` or `project_l1`, which solve for flattened rows of absolute values, in float64.

    Returns:
        Perturbations, shape of `x`.
    """
    clipped = clip_to_box(x, delta)
    outside = norm(clipped) > eps.to(clipped.dtype)
    if outside.any():
        v, x = delta[outside], x[outside]
        room = torch.where(v > 0, 1 - x, x).clamp(min=0)  # from x to the face in the direction of delta
        length = project(v.abs().flatten(1).double(), room.flatten(1).double(), eps[outside, None].double())
        clipped[outside] = v.sign() * length.view_as(v).to(v.dtype)
    return clipped


def project_l2(u: Tensor, room: Tensor, eps: Tensor) -> Tensor:
    """The nearest to u (N, D) >= 0 of L2 norm eps (N, 1) below `room`: min(s u, room), s between breakpoints."""
    hit, order = (room / u.clamp(min=TINY)).sort(dim=1)  # the s at which a coordinate reaches its face
    room_sq, u_sq = room.gather(1, order) ** 2, u.gather(1, order) ** 2
    stopped = room_sq.cumsum(1) - room_sq  # sum over earlier coordinates
    moving = u_sq.flip(1).cumsum(1).flip(1)  # sum over this and later coordinates
    below = (stopped + hit**2 * moving <= eps**2).sum(1, keepdim=True).clamp(max=u.shape[1] - 1)
    s = ((eps**2 - stopped.gather(1, below)).clamp(min=0) / moving.gather(1, below).clamp(min=TINY)).sqrt()
    return torch.minimum(s * u, room)


def project_l1(u: Tensor, room: Tensor, eps: Tensor) -> Tensor:
    """The nearest to u (N, D) >= 0 of sum eps (N, 1) below `room`: clip(u - s, 0, room), s between breakpoints."""
    knots, order = torch.cat([u, u - room], 1).sort(dim=1, descending=True)
    slope = torch.where(order < u.shape[1], 1, -1).cumsum(1)  # number of moving coordinates below each breakpoint
    mass = torch.cat([torch.zeros_like(knots[:, :1]), (slope[:, :-1] * -knots.diff(dim=1)).cumsum(1)], 1)
    last = (mass <= eps).sum(1, keepdim=True) - 1
    s = knots.gather(1, last) - (eps - mass.gather(1, last)) / slope.gather(1, last).clamp(min=1)
    return torch.minimum((u - s).clamp(min=0), room)
