"""The proposals of `Square`: windows of images and the patterns put into them."""

import torch
from torch import Tensor

from aisec_lab.attacks.evasion.geometry.projections import clip_to_box, per_row
from aisec_lab.core.row_noise import RowNoise

COUNTERS = 8  # noise counters of one query


def square_init_linf(x: Tensor, eps: float, noise: RowNoise) -> Tensor:
    """The start in Linf: vertical stripes of +-eps, shape of `x`."""
    return eps * _signs(x, noise, (x.shape[1], 1, x.shape[3]), 0).expand_as(x)


def square_step_linf(x: Tensor, delta: Tensor, eps: float, side: int, noise: RowNoise, query: int) -> Tensor:
    """The proposal in Linf (algorithm 2): a window becomes eps or -eps, one sign for each channel.

    If nothing would change, the opposite signs are taken. The authors' code draws new signs there; of small windows in
    one channel, half would waste a query.

    Args:
        x: images (N, C, H, W).
        delta: perturbations, shape of `x`.
        eps: radius of the ball.
        side: of the window, in pixels.
        noise: of the rows.
        query: number of the query.

    Returns:
        Perturbations, shape of `x`.
    """
    *_, window = _window(x, side, noise, COUNTERS * query)
    corner = eps * _signs(x, noise, (x.shape[1], 1, 1), COUNTERS * query + 2)
    one, other = (clip_to_box(x, torch.where(window, sign * corner, delta)) for sign in (1, -1))
    return torch.where(per_row((one == delta).flatten(1).all(1), x), other, one)


def square_init_lp(x: Tensor, eps: float, noise: RowNoise, order: int) -> Tensor:
    """The start in L2 (order 2) and L1 (order 1): a grid of bumps with random signs, shape of `x`.

    In L1 its norm may exceed eps; the projection then keeps the peaks.
    """
    height, width = x.shape[2:]
    side = max(height // 5, min(3, height, width))
    down, right = -(-height // side), -(-width // side)
    signs = _signs(x, noise, (x.shape[1], down, right), 0).repeat_interleave(side, 2).repeat_interleave(side, 3)
    tiled = (signs * _bumps(side, x, order).repeat(down, right))[:, :, :height, :width]
    length = per_row(tiled.flatten(1).norm(order, dim=1), x)
    return tiled * (eps / length).clamp(min=1) if order == 1 else eps * tiled / length


def square_step_lp(x: Tensor, delta: Tensor, eps: float, side: int, noise: RowNoise, query: int, order: int) -> Tensor:
    """The proposal in L2 (order 2) and L1 (order 1): a window takes the norm of another one, and unused norm, as bumps.

    That is algorithm 3 of the paper. In L1, as in the authors' code, the norm is multiplied by the number of channels,
    and the projection makes the window sparse.

    Args:
        x: images (N, C, H, W).
        delta: perturbations, shape of `x`.
        eps: radius of the ball.
        side: of the windows, in pixels.
        noise: of the rows.
        query: number of the query.
        order: of the norm.

    Returns:
        Perturbations, shape of `x`, before the projection.
    """
    side = max(side, min(3, *x.shape[2:]))
    down, right, window = _window(x, side, noise, COUNTERS * query)
    *_, other_window = _window(x, side, noise, COUNTERS * query + 2)
    eta = _bumps(side, x, order)
    eta = torch.where(noise.integers(0, 2, (1, 1), COUNTERS * query + 4).bool(), eta, eta.T)  # (N, side, side)
    image = torch.arange(len(x), device=x.device)[:, None, None]
    eta = eta[image, down.clamp(0, side - 1)[:, :, None], right.clamp(0, side - 1)[:, None, :]]  # (N, H, W)
    new = eta[:, None] * _signs(x, noise, (x.shape[1], 1, 1), COUNTERS * query + 5)
    new = (new + delta / _length(delta * window, order)) * window
    unused = (eps**order - per_row(delta.flatten(1).norm(order, dim=1) ** order, x)).clamp(min=0) / x.shape[1]
    budget = _length(delta * (window | other_window), order) ** order + unused
    budget = budget.sqrt() if order == 2 else x.shape[1] * budget
    return torch.where(window, budget * new / _length(new, order), delta * ~other_window)


def _signs(x: Tensor, noise: RowNoise, shape: tuple[int, ...], counter: int) -> Tensor:
    """Random signs (N, *shape)."""
    return (2 * noise.integers(0, 2, shape, counter) - 1).to(x.dtype)


def _length(part: Tensor, order: int) -> Tensor:
    """The norm of each channel, of order 1 or 2, (N, C, 1, 1), plus a constant against division by 0."""
    return part.flatten(2).norm(order, dim=2)[:, :, None, None] + 1e-10


def _window(x: Tensor, side: int, noise: RowNoise, counter: int) -> tuple[Tensor, Tensor, Tensor]:
    """A random square of each image.

    Returns:
        The position of each image row in the square (N, H) and of each column (N, W), both 0..side-1 inside it; and the
        mask (N, 1, H, W) of the square.
    """
    height, width = x.shape[2:]
    down = torch.arange(height, device=x.device) - noise.integers(0, height - side + 1, (1,), counter)
    right = torch.arange(width, device=x.device) - noise.integers(0, width - side + 1, (1,), counter + 1)
    mask = ((down >= 0) & (down < side))[:, :, None] & ((right >= 0) & (right < side))[:, None, :]
    return down, right, mask[:, None]


def _bumps(side: int, like: Tensor, order: int) -> Tensor:
    """A positive and a negative bump, one above the other, of norm 1 together: (side, side) (section 3.4)."""
    halves = [sign * _bump(height, side, order) for sign, height in ((1, side // 2), (-1, side - side // 2)) if height]
    eta = torch.cat(halves).to(like)
    return eta / eta.norm(order)


def _bump(height: int, width: int, order: int) -> Tensor:
    """Concentric rectangles (height, width): the sum of 1/k^2 (in L1 1/k^4) over all that contain a pixel."""
    down, right = (torch.arange(height) - height // 2).abs(), (torch.arange(width) - width // 2).abs()
    steps = torch.maximum(down[:, None], right[None, :])  # from the centre
    heights = 1.0 / torch.arange(1, int(steps.max()) + 2) ** (2 if order == 2 else 4)
    return heights.flip(0).cumsum(0).flip(0)[steps]
