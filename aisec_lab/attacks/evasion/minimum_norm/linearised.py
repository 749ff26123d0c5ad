"""The linearised boundary between classes, which DeepFool and FAB step onto."""

from typing import NamedTuple

import torch
from torch import Tensor, nn

from aisec_lab.attacks.evasion.geometry.balls import Ball
from aisec_lab.models import gradient, leaf


class Plane(NamedTuple):
    """The linearised boundary between the true and a wrong class at n points z.

    Args:
        margin: logit of the true class minus that of the wrong one at z (n,), negative beyond the boundary.
        slope: gradient of the wrong class's logit minus the true one's, shape of z.
        step: the smallest perturbation of z onto the boundary inside the box, shape of z.
    """

    margin: Tensor
    slope: Tensor
    step: Tensor


def nearest_boundary(model: nn.Module, z: Tensor, y: Tensor, others: Tensor, ball: Ball) -> tuple[Tensor, Plane]:
    """The nearest linearised boundary, inside the box, of those to some wrong classes.

    Args:
        model: classifier, frozen.
        z: points (n, *input).
        y: true classes (n,).
        others: wrong classes (n, C) to consider.
        ball: the norm of the distance.

    Returns:
        Logits (n, K) at z, and the boundary of each point.
    """
    z = leaf(z)
    with torch.enable_grad():
        logits = model(z)
        margins = logits.gather(1, y[:, None]) - logits.gather(1, others)  # (n, C)
        slopes = torch.stack([gradient(-margin.sum(), z, keep=True) for margin in margins.T], 1)
    slopes, margins = slopes.nan_to_num(nan=0.0), margins.detach()  # (n, C, *input) and (n, C)
    points = z.detach()[:, None].expand_as(slopes).flatten(0, 1)
    steps = ball.step_to_hyperplane(points, slopes.flatten(0, 1), margins.flatten())
    nearest = ball.norm(steps).view_as(margins).argmin(1)
    rows = torch.arange(len(z), device=z.device)
    return logits.detach(), Plane(margins[rows, nearest], slopes[rows, nearest], steps.view_as(slopes)[rows, nearest])
