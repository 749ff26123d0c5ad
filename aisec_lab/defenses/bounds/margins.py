"""How far the true class of a network must lead, whatever an attacker does inside a ball."""

import torch
from torch import Tensor, nn

from aisec_lab.attacks import Ball
from aisec_lab.attacks.evasion.attack import check, check_answer
from aisec_lab.defenses.bounds.layers import layers_of
from aisec_lab.defenses.bounds.relaxation import crown_bounds, descend, interval_bounds, lower


def interval_leads(model: nn.Module, x: Tensor, y: Tensor, ball: Ball) -> Tensor:
    """Lower bounds (N, K) on z_y - z_j over ball and box, by interval arithmetic up to the last ReLU.

    From there on z_y - z_j is one linear function (Gowal et al., 2018, arXiv:1810.12715, section 3, "elision of the
    last layer"). Arguments as for `ibp_margin`, without the checks; column y is 0; with a graph where gradients are on.
    """
    layers = layers_of(model)
    intervals = interval_bounds(layers, x, ball)
    last = max((place for place, layer in enumerate(layers) if isinstance(layer, nn.ReLU)), default=-1) + 1
    rows, a = _rivals(y, intervals[-1].low)
    _, _, best = descend(layers[last:], intervals[last:], rows, a)
    return best.view(len(x), -1)


@torch.no_grad()
def ibp_margin(model: nn.Module, x: Tensor, y: Tensor, ball: Ball) -> Tensor:
    """A lower bound on the margin of class y by interval bound propagation (Gowal et al., 2018, arXiv:1810.12715).

    Args:
        model: a sequential network in evaluation mode (`layers_of`).
        x: inputs (N, *input) in [0, 1].
        y: classes (N,).
        ball: the threat, Linf or L2; of an L2 ball intervals see the smallest box around it.

    Returns:
        (N,), such that min over ball and box of (z_y - max_{j != y} z_j) is no less, up to the rounding of x's type;
        above 0 no attack inside can succeed.

    Raises:
        ValueError: a layer or ball for which no bounds are known; pixels outside [0, 1], a class outside 0..K-1,
            or a model in training mode.
    """
    check(model, x, y)
    _answers(model, x, y)
    return _worst(interval_leads(model, x, y, ball), y)


@torch.no_grad()
def crown_margin(model: nn.Module, x: Tensor, y: Tensor, ball: Ball) -> Tensor:
    """As `ibp_margin`, by CROWN (Zhang et al., 2018, arXiv:1811.00866): costs more and is never below it.

    Bounds of hidden layers are CROWN's too, each intersected with the intervals that follow from the layer before;
    L2 balls are met with the dual norm, inside the box. On a network without ReLU the bound is exact.
    """
    check(model, x, y)
    _answers(model, x, y)
    layers = layers_of(model)
    intervals = crown_bounds(layers, x, ball)
    rows, a = _rivals(y, intervals[-1].low)
    return _worst(lower(layers, intervals, x, ball, rows, a).view(len(x), -1), y)


def _answers(model: nn.Module, x: Tensor, y: Tensor) -> None:
    layers_of(model)  # a layer that has no bounds is refused before the model is asked
    check_answer(model(x), y)


def _rivals(y: Tensor, logits: Tensor) -> tuple[Tensor, Tensor]:
    """The functions z_y - z_j of each row and class j: rows (N * K,) and coefficients (N * K, K)."""
    unit = torch.eye(logits.shape[1], dtype=logits.dtype, device=logits.device)
    rows = torch.arange(len(y), device=logits.device).repeat_interleave(logits.shape[1])
    return rows, (unit[y][:, None] - unit).flatten(0, 1)


def _worst(leads: Tensor, y: Tensor) -> Tensor:
    return leads.scatter(1, y[:, None], torch.inf).amin(1)
