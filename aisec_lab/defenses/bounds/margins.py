"""Lower bounds on a network's margin that hold for every input of a ball."""

import torch
from torch import Tensor, nn

from aisec_lab.attacks import Ball
from aisec_lab.attacks.evasion.attack import check, check_answer
from aisec_lab.defenses.bounds.layers import layers_of
from aisec_lab.defenses.bounds.relaxation import backsubstitute, crown_bounds, interval_bounds, lower_bounds


def interval_margins(model: nn.Module, x: Tensor, y: Tensor, ball: Ball) -> Tensor:
    """Lower bounds on z_y - z_j over ball and box, by interval arithmetic up to the last ReLU.

    From there on z_y - z_j is one linear function (Gowal et al., 2018, arXiv:1810.12715, section 3, "elision of the
    last layer").

    Args:
        model: a sequential network, in any mode (`layers_of`).
        x: inputs (N, *input) in [0, 1], not checked.
        y: classes (N,), int64, not checked.
        ball: threat model, Linf or L2.

    Returns:
        (N, K), 0 in column y; with a graph where gradients are enabled.

    Raises:
        ValueError: a layer or ball without bounds.
    """
    layers = layers_of(model)
    intervals = interval_bounds(layers, x, ball)
    last = max((place for place, layer in enumerate(layers) if isinstance(layer, nn.ReLU)), default=-1) + 1
    rows, a = _margin_functions(y, intervals[-1].low)
    _, _, best = backsubstitute(layers[last:], intervals[last:], rows, a)
    return best.view(len(x), -1)


@torch.no_grad()
def ibp_margin(model: nn.Module, x: Tensor, y: Tensor, ball: Ball) -> Tensor:
    """A lower bound on the margin of class y by interval bound propagation (Gowal et al., 2018, arXiv:1810.12715).

    Args:
        model: a sequential network in evaluation mode (`layers_of`).
        x: inputs (N, *input) in [0, 1].
        y: classes (N,), int64.
        ball: threat model, Linf or L2; intervals replace an L2 ball by the smallest box around it.

    Returns:
        (N,): a lower bound on the minimum over ball and box of z_y - max_{j != y} z_j, up to rounding. Where it is
        above 0, no attack in the ball can succeed.

    Raises:
        ValueError: a layer or ball without bounds; inputs outside [0, 1], a class outside 0..K-1, or a model in
            training mode.
    """
    check(model, x, y)
    _check_model(model, x, y)
    return _worst(interval_margins(model, x, y, ball), y)


@torch.no_grad()
def crown_margin(model: nn.Module, x: Tensor, y: Tensor, ball: Ball) -> Tensor:
    """A lower bound on the margin of class y by CROWN (Zhang et al., 2018, arXiv:1811.00866).

    It costs more than `ibp_margin` and is never below it. Hidden layers are bounded by CROWN too, intersected with the
    intervals that follow from the layer before. L2 balls are bounded by the dual norm, intersected with the box. On a
    network without ReLU the bound is exact.

    Args:
        model: a sequential network in evaluation mode (`layers_of`).
        x: inputs (N, *input) in [0, 1].
        y: classes (N,), int64.
        ball: threat model, Linf or L2.

    Returns:
        (N,): a lower bound on the minimum over ball and box of z_y - max_{j != y} z_j, up to rounding. Where it is
        above 0, no attack in the ball can succeed.

    Raises:
        ValueError: what `ibp_margin` refuses.
    """
    check(model, x, y)
    _check_model(model, x, y)
    layers = layers_of(model)
    intervals = crown_bounds(layers, x, ball)
    rows, a = _margin_functions(y, intervals[-1].low)
    return _worst(lower_bounds(layers, intervals, x, ball, rows, a).view(len(x), -1), y)


def _check_model(model: nn.Module, x: Tensor, y: Tensor) -> None:
    """Refuse a model with unsupported layers, and one whose logits do not fit the classes."""
    layers_of(model)  # first, so that an unsupported layer is refused before the model is called
    check_answer(model(x), y)


def _margin_functions(y: Tensor, logits: Tensor) -> tuple[Tensor, Tensor]:
    """The functions z_y - z_j of each row and class j: rows (N * K,) and coefficients (N * K, K)."""
    unit = torch.eye(logits.shape[1], dtype=logits.dtype, device=logits.device)
    rows = torch.arange(len(y), device=logits.device).repeat_interleave(logits.shape[1])
    return rows, (unit[y][:, None] - unit).flatten(0, 1)


def _worst(margins: Tensor, y: Tensor) -> Tensor:
    """The least margin (N,) over the classes other than y."""
    return margins.scatter(1, y[:, None], torch.inf).amin(1)
