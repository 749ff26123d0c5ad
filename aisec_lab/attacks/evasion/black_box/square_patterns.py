"""What `Square` proposes: windows of images and the patterns that go into them."""

import torch
from torch import Tensor

from aisec_lab.attacks.evasion.geometry.projections import clip_to_box, per_row
from aisec_lab.core.row_noise import RowNoise

DRAWS = 8  # counters that belong to one query


def square_init_linf(x: Tensor, eps: float, noise: RowNoise) -> Tensor:
    """The start in Linf: columns of +-eps."""
    return eps * _signs(x, noise, (x.shape[1], 1, x.shape[3]), 0).expand_as(x)


def square_step_linf(x: Tensor, delta: Tensor, eps: float, side: int, noise: RowNoise, query: int) -> Tensor:
    """In Linf: the window becomes eps or -eps, one sign a channel (algorithm 2), the opposite if nothing would change.

    The authors' code draws again there. Of small windows in one channel it is every second one: a query for nothing.
    """
    *_, here = _window(x, side, noise, DRAWS * query)
    corner = eps * _signs(x, noise, (x.shape[1], 1, 1), DRAWS * query + 2)
    one, other = (clip_to_box(x, torch.where(here, sign * corner, delta)) for sign in (1, -1))
    return torch.where(per_row((one == delta).flatten(1).all(1), x), other, one)


def square_init_lp(x: Tensor, eps: float, noise: RowNoise, order: int) -> Tensor:
    """The start in L2 (order 2) and L1 (1): the plane tiled with bumps of random signs.

    In L1 it may be longer than eps: its projection keeps the peaks.
    """
    height, width = x.shape[2:]
    side = max(height // 5, min(3, height, width))
    down, right = -(-height // side), -(-width // side)
    signs = _signs(x, noise, (x.shape[1], down, right), 0).repeat_interleave(side, 2).repeat_interleave(side, 3)
    tiled = (signs * _bumps(side, x, order).repeat(down, right))[:, :, :height, :width]
    length = per_row(tiled.flatten(1).norm(order, dim=1), x)
    return tiled * (eps / length).clamp(min=1) if order == 1 else eps * tiled / length


def square_step_lp(x: Tensor, delta: Tensor, eps: float, side: int, noise: RowNoise, query: int, order: int) -> Tensor:
    """In L2 (order 2) and L1 (1): a window takes over the length of another one, and what is left of eps, as bumps.

    That is algorithm 3 of the paper; in L1, as in the authors' code for it, the window is longer by as many times as
    there are channels, and the projection makes it sparse.
    """
    side = max(side, min(3, *x.shape[2:]))
    down, right, here = _window(x, side, noise, DRAWS * query)
    *_, there = _window(x, side, noise, DRAWS * query + 2)
    eta = _bumps(side, x, order)
    eta = torch.where(noise.integers(0, 2, (1, 1), DRAWS * query + 4).bool(), eta, eta.T)  # (N, side, side)
    image = torch.arange(len(x), device=x.device)[:, None, None]
    eta = eta[image, down.clamp(0, side - 1)[:, :, None], right.clamp(0, side - 1)[:, None, :]]  # (N, H, W)
    new = eta[:, None] * _signs(x, noise, (x.shape[1], 1, 1), DRAWS * query + 5)
    new = (new + delta / _length(delta * here, order)) * here
    unused = (eps**order - per_row(delta.flatten(1).norm(order, dim=1) ** order, x)).clamp(min=0) / x.shape[1]
    budget = _length(delta * (here | there), order) ** order + unused
    budget = budget.sqrt() if order == 2 else x.shape[1] * budget
    return torch.where(here, budget * new / _length(new, order), delta * ~there)


def _signs(x: Tensor, noise: RowNoise, shape: tuple[int, ...], counter: int) -> Tensor:
    return (2 * noise.integers(0, 2, shape, counter) - 1).to(x.dtype)


def _length(part: Tensor, order: int) -> Tensor:
    """The length of each channel, Euclidean or of order 1, (N, C, 1, 1), never quite 0."""
    return part.flatten(2).norm(order, dim=2)[:, :, None, None] + 1e-10


def _window(x: Tensor, side: int, noise: RowNoise, counter: int) -> tuple[Tensor, Tensor, Tensor]:
    """A random square of each image.

    Returns:
        Each row's place in the square (N, H) and each column's (N, W), both 0..side-1 inside it; and the mask
        (N, 1, H, W) of the square.
    """
    height, width = x.shape[2:]
    down = torch.arange(height, device=x.device) - noise.integers(0, height - side + 1, (1,), counter)
    right = torch.arange(width, device=x.device) - noise.integers(0, width - side + 1, (1,), counter + 1)
    mask = ((down >= 0) & (down < side))[:, :, None] & ((right >= 0) & (right < side))[:, None, :]
    return down, right, mask[:, None]


def _bumps(side: int, like: Tensor, order: int) -> Tensor:
    """A bump upwards and one downwards, one above the other, of length 1 together: (side, side) (section 3.4)."""
    halves = [sign * _bump(height, side, order) for sign, height in ((1, side // 2), (-1, side - side // 2)) if height]
    eta = torch.cat(halves).to(like)
    return eta / eta.norm(order)


def _bump(height: int, width: int, order: int) -> Tensor:
    """Concentric rectangles, the sum of 1/k^2 (in L1 1/k^4) over all that reach a place; highest in the middle."""
    down, right = (torch.arange(height) - height // 2).abs(), (torch.arange(width) - width // 2).abs()
    steps = torch.maximum(down[:, None], right[None, :])  # from the middle
    reach = 1.0 / torch.arange(1, int(steps.max()) + 2) ** (2 if order == 2 else 4)
    return reach.flip(0).cumsum(0).flip(0)[steps]
