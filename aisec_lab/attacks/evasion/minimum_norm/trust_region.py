"""The inner problem of Brendel & Bethge's attack: the point of a plane nearest to x, inside a trust region."""

from collections.abc import Callable

import torch
from torch import Tensor

from aisec_lab.attacks.evasion.geometry.balls import L1, L2, Ball
from aisec_lab.attacks.evasion.geometry.projections import TINY

HALVINGS = 40  # of the weight's range, at most
RADIUS_USED = 0.99  # smallest share of the radius that a step limited by it must use
TRIES = 60  # Newton steps for the multiplier, at most
SLACK, ROUNDING = 1e-9, 1e-13  # by which a point may miss the plane: share of the rise, and absolute
Point = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]


def step_onto(ball: Ball, x: Tensor, z: Tensor, slope: Tensor, rise: Tensor, radius: Tensor) -> Tensor:
    """The y of least |y - x|, in the ball's norm, with slope (y - z) = rise, |y - z|_2 <= radius, and in the box.

    That is problem 2 of Brendel et al. (2019, arXiv:1907.01003). Where the plane is out of reach, y goes towards it as
    far as radius and box allow. Where the radius is binding, y is a minimum of the Lagrangian |y - x| + w |y - z|^2;
    the weight at which |y - z| meets the radius is found by bisection.

    Args:
        ball: the norm: L1, L2 or Linf.
        x: inputs (N, *input).
        z: points of the box from which the steps are taken, shape of `x`.
        slope: gradients of linear functions, shape of `x`; a row of zeros stays at z.
        rise: by how much each function shall rise (N,), or fall where negative.
        radius: Euclidean radii (N,).

    Returns:
        Points, shape of `x`, inside the box, computed in float64.
    """
    shape, dtype = x.shape, x.dtype
    x, z, b = (part.flatten(1).double() for part in (x, z, slope))
    length = b.norm(dim=1).clamp(min=TINY)
    b, rise, radius = b / length[:, None], rise.double() / length, radius.double()
    far = 2 * b.shape[1] * rise.sign()[:, None] * b / b.abs().amax(1, keepdim=True).clamp(min=TINY)
    y = z + L2(0).project_per_row(z, far, radius)
    shortest = z + L2(0).step_to_hyperplane(z, b, rise)
    on_plane = ((b * (shortest - z)).sum(1) - rise).abs() <= SLACK * rise.abs() + ROUNDING
    nearest = x + ball.step_to_hyperplane(x, b, rise + (b * (z - x)).sum(1))
    reached = on_plane & ((shortest - z).norm(dim=1) <= radius)
    direct = reached & ((nearest - z).norm(dim=1) <= radius)
    y = torch.where(direct[:, None], nearest, y)
    limited = (reached & ~direct).nonzero().squeeze(1)
    if len(limited):
        point = _lagrangian_minima(
            ball, x[limited], z[limited], b[limited], nearest[limited], shortest[limited], radius[limited]
        )
        y[limited] = _bisect_weight(point, z[limited], b[limited], rise[limited], radius[limited], shortest[limited])
    return y.clamp(0, 1).view(shape).to(dtype)


def _lagrangian_minima(
    ball: Ball, x: Tensor, z: Tensor, b: Tensor, nearest: Tensor, shortest: Tensor, radius: Tensor
) -> Point:
    """Minima of weight |y - x| + (1 - weight) |y - z - s b|_2^2, up to scale, in the box.

    Returns:
        A function of weights in [0, 1) and multipliers s, each (n, 1), to points (n, D) and the mask of their
        coordinates that move with s: clipping, shrinkage and a smaller box give them in closed form.
    """

    def point(weight: Tensor, multiplier: Tensor) -> tuple[Tensor, Tensor]:
        v = z + multiplier * b
        if isinstance(ball, L2):
            v = v + weight * (x - z)
            return v.clamp(0, 1), (v > 0) & (v < 1)
        if isinstance(ball, L1):
            threshold = weight / (1 - weight) * radius[:, None] / x.shape[1] ** 0.5
            shrunk = x + (v - x).sign() * ((v - x).abs() - threshold).clamp(min=0)
            return shrunk.clamp(0, 1), ((v - x).abs() > threshold) & (shrunk > 0) & (shrunk < 1)
        size = outer - weight * (outer - inner)
        low, high = (x - size).clamp(min=0), (x + size).clamp(max=1)
        return torch.minimum(torch.maximum(v, low), high), (v > low) & (v < high)

    inner, outer = ((point - x).abs().amax(1, keepdim=True) for point in (nearest, shortest))
    return point


def _bisect_weight(point: Point, z: Tensor, b: Tensor, rise: Tensor, radius: Tensor, y: Tensor) -> Tensor:
    """The points on the plane at the weight that uses up the radius, by bisection; y are those of weight 0."""
    low, high, multiplier = torch.zeros_like(rise), torch.ones_like(rise), torch.zeros_like(rise)
    active = torch.ones_like(rise, dtype=torch.bool)
    for _ in range(HALVINGS):
        weight = (low + high) / 2
        candidate, multiplier = _reach_plane(point, weight, z, b, rise, multiplier)
        used = (candidate - z).norm(dim=1)
        fits = used <= radius
        y = torch.where((active & fits)[:, None], candidate, y)
        low, high = torch.where(fits, weight, low), torch.where(fits, high, weight)
        active &= ~fits | (used < RADIUS_USED * radius)
        if not active.any():
            break
    return y


def _reach_plane(
    point: Point, weight: Tensor, z: Tensor, b: Tensor, rise: Tensor, multiplier: Tensor
) -> tuple[Tensor, Tensor]:
    """The points (n, D) on the plane at given weights, and their multipliers (n,), by Newton's method with brackets.

    The function of the multiplier is increasing and piecewise linear.
    """
    low, high = torch.full_like(multiplier, -torch.inf), torch.full_like(multiplier, torch.inf)
    for attempt in range(TRIES):
        y, free = point(weight[:, None], multiplier[:, None])
        missing = rise - (b * (y - z)).sum(1)
        off_plane = missing.abs() > SLACK * rise.abs() + ROUNDING
        if not off_plane.any():
            break
        low, high = torch.where(missing > 0, multiplier, low), torch.where(missing < 0, multiplier, high)
        steepness = (b**2 * free).sum(1)
        newton = multiplier + missing / steepness.clamp(min=TINY)
        outwards = multiplier + missing.sign() * (multiplier.abs() + rise.abs())
        other = torch.where(low.isfinite() & high.isfinite(), (low + high) / 2, outwards)
        good = (steepness > TINY) & (newton > low) & (newton < high) & (attempt % 4 < 3)
        multiplier = torch.where(off_plane, torch.where(good, newton, other), multiplier)
    return y, multiplier
