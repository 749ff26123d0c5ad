"""The boundary between classes, taken to be flat where one stands: what DeepFool and FAB step onto."""

from typing import NamedTuple

import torch
from torch import Tensor, nn

from aisec_lab.attacks.evasion.geometry.balls import Ball
from aisec_lab.models import gradient, leaf


class Plane(NamedTuple):
    """Where a wrong class would draw level with the true one, for each of n points z.

    Args:
        lead: of the true class at z (n,), negative beyond the boundary.
        slope: with which the wrong class gains, shape of z.
        step: the smallest onto the boundary inside the box, shape of z.
    """

    lead: Tensor
    slope: Tensor
    step: Tensor


def nearest_boundary(model: nn.Module, z: Tensor, y: Tensor, others: Tensor, ball: Ball) -> tuple[Tensor, Plane]:
    """The boundary that is nearest in the ball's norm, the box included, of those to some wrong classes.

    Args:
        model: classifier, frozen.
        z: points (n, *input).
        y: true classes (n,).
        others: wrong classes (n, C) to look at.
        ball: the norm.

    Returns:
        Logits (n, K) at z and the boundary of each.
    """
    z = leaf(z)
    with torch.enable_grad():
        logits = model(z)
        leads = logits.gather(1, y[:, None]) - logits.gather(1, others)  # (n, C)
        slopes = torch.stack([gradient(-lead.sum(), z, keep=True) for lead in leads.T], 1)
    slopes, leads = slopes.nan_to_num(nan=0.0), leads.detach()  # (n, C, *input) and (n, C)
    points = z.detach()[:, None].expand_as(slopes).flatten(0, 1)
    steps = ball.crossing(points, slopes.flatten(0, 1), leads.flatten())
    nearest = ball.norm(steps).view_as(leads).argmin(1)
    rows = torch.arange(len(z), device=z.device)
    return logits.detach(), Plane(leads[rows, nearest], slopes[rows, nearest], steps.view_as(slopes)[rows, nearest])
