"""The nearest point to an input on a plane, one short step away: the inner problem of Brendel & Bethge's attack."""

from collections.abc import Callable

import torch
from torch import Tensor

from aisec_lab.attacks.evasion.geometry.balls import L1, L2, Ball
from aisec_lab.attacks.evasion.geometry.projections import TINY

HALVINGS = 40  # of the pull, at most
FULL = 0.99  # share of the radius, at least, that a step uses up which the radius holds back
TRIES = 60  # values of the slide, at most
SLACK, ROUNDING = 1e-9, 1e-13  # share of the rise, and width of the box, that a point may miss the plane by
Point = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]


def step_onto(ball: Ball, x: Tensor, z: Tensor, slope: Tensor, rise: Tensor, radius: Tensor) -> Tensor:
    """The y of least |y - x|, in the ball's norm, with slope (y - z) = rise, |y - z|_2 <= radius, and in the box.

    That is problem 2 of Brendel et al. (2019, arXiv:1907.01003). Where the plane cannot be reached, y goes towards it
    as far as radius and box let it. Where the radius holds y back, a one-dimensional family of points leads from the
    nearest on the plane to z towards the nearest to x (the Lagrangian's minima as the weight of the radius falls); the
    point that uses the radius up is found by bisection.

    Args:
        ball: the norm: L1, L2 or Linf.
        x: inputs (N, *input).
        z: where the steps begin, shape of `x`, inside the box.
        slope: gradients, shape of `x`; a row of zeros stays at z.
        rise: by how much a linear function of that gradient is to rise (N,), or to fall where negative.
        radius: Euclidean, (N,).

    Returns:
        Points, shape of `x`, inside the box, solved for in float64.
    """
    shape, dtype = x.shape, x.dtype
    x, z, b = (part.flatten(1).double() for part in (x, z, slope))
    length = b.norm(dim=1).clamp(min=TINY)
    b, rise, radius = b / length[:, None], rise.double() / length, radius.double()
    far = 2 * b.shape[1] * rise.sign()[:, None] * b / b.abs().amax(1, keepdim=True).clamp(min=TINY)
    y = z + L2(0).within(z, far, radius)
    short = z + L2(0).crossing(z, b, rise)
    on_plane = ((b * (short - z)).sum(1) - rise).abs() <= SLACK * rise.abs() + ROUNDING
    near = x + ball.crossing(x, b, rise + (b * (z - x)).sum(1))
    reached = on_plane & ((short - z).norm(dim=1) <= radius)
    direct = reached & ((near - z).norm(dim=1) <= radius)
    y = torch.where(direct[:, None], near, y)
    held = (reached & ~direct).nonzero().squeeze(1)
    if len(held):
        point = _family(ball, x[held], z[held], b[held], near[held], short[held], radius[held])
        y[held] = _pulled(point, z[held], b[held], rise[held], radius[held], short[held])
    return y.clamp(0, 1).view(shape).to(dtype)


def _family(ball: Ball, x: Tensor, z: Tensor, b: Tensor, near: Tensor, short: Tensor, radius: Tensor) -> Point:
    """Minima of |y - x|_p + (|y - z - s b|_2^2 weighed less the larger the pull), in the box.

    Returns:
        A function of pulls in [0, 1) and slides s, each (n, 1), to points (n, D) and a mask of their coordinates that
        go along with s: clipping, shrinkage and a smaller box give them in closed form.
    """

    def point(pull: Tensor, slide: Tensor) -> tuple[Tensor, Tensor]:
        v = z + slide * b
        if isinstance(ball, L2):
            v = v + pull * (x - z)
            return v.clamp(0, 1), (v > 0) & (v < 1)
        if isinstance(ball, L1):
            threshold = pull / (1 - pull) * radius[:, None] / x.shape[1] ** 0.5
            shrunk = x + (v - x).sign() * ((v - x).abs() - threshold).clamp(min=0)
            return shrunk.clamp(0, 1), ((v - x).abs() > threshold) & (shrunk > 0) & (shrunk < 1)
        size = outer - pull * (outer - inner)
        low, high = (x - size).clamp(min=0), (x + size).clamp(max=1)
        return torch.minimum(torch.maximum(v, low), high), (v > low) & (v < high)

    inner, outer = ((point - x).abs().amax(1, keepdim=True) for point in (near, short))
    return point


def _pulled(point: Point, z: Tensor, b: Tensor, rise: Tensor, radius: Tensor, y: Tensor) -> Tensor:
    """The points on the plane at which the pull has used up the radius, by bisection; y are those of no pull."""
    low, high, slide = torch.zeros_like(rise), torch.ones_like(rise), torch.zeros_like(rise)
    going = torch.ones_like(rise, dtype=torch.bool)
    for _ in range(HALVINGS):
        pull = (low + high) / 2
        pulled, slide = _slid(point, pull, z, b, rise, slide)
        used = (pulled - z).norm(dim=1)
        fits = used <= radius
        y = torch.where((going & fits)[:, None], pulled, y)
        low, high = torch.where(fits, pull, low), torch.where(fits, high, pull)
        going &= ~fits | (used < FULL * radius)
        if not going.any():
            break
    return y


def _slid(point: Point, pull: Tensor, z: Tensor, b: Tensor, rise: Tensor, slide: Tensor) -> tuple[Tensor, Tensor]:
    """The points (n, D) at given pulls that stand on the plane, and their slides (n,): by Newton's method, bracketed.

    What b gains along the slide never falls, and is made of straight pieces.
    """
    low, high = torch.full_like(slide, -torch.inf), torch.full_like(slide, torch.inf)
    for attempt in range(TRIES):
        y, free = point(pull[:, None], slide[:, None])
        missing = rise - (b * (y - z)).sum(1)
        off = missing.abs() > SLACK * rise.abs() + ROUNDING
        if not off.any():
            break
        low, high = torch.where(missing > 0, slide, low), torch.where(missing < 0, slide, high)
        steepness = (b**2 * free).sum(1)
        newton = slide + missing / steepness.clamp(min=TINY)
        outwards = slide + missing.sign() * (slide.abs() + rise.abs())
        other = torch.where(low.isfinite() & high.isfinite(), (low + high) / 2, outwards)
        good = (steepness > TINY) & (newton > low) & (newton < high) & (attempt % 4 < 3)
        slide = torch.where(off, torch.where(good, newton, other), slide)
    return y, slide
