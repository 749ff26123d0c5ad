"""Bounds of a single layer: intervals propagate forward through it, linear functions backward."""

from typing import NamedTuple, get_args

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call

from aisec_lab.models import Normalised, PassCounter
from aisec_lab.models.layers import COMPUTING

SUPPORTED = nn.Linear | nn.Conv2d | nn.ReLU | nn.AvgPool2d | nn.AdaptiveAvgPool2d | nn.Flatten | Normalised


class Interval(NamedTuple):
    """A box for each row.

    Args:
        low: lower ends (N, *shape).
        high: upper ends (N, *shape).
    """

    low: Tensor
    high: Tensor

    def minimum(self, rows: Tensor, a: Tensor) -> Tensor:
        """The minimum of linear functions over intervals.

        Args:
            rows: whose interval each function is minimised over, (M,), int64.
            a: coefficients (M, *shape).

        Returns:
            (M,).
        """
        low, high = self.low[rows], self.high[rows]
        return (a.clamp(min=0) * low + a.clamp(max=0) * high).flatten(1).sum(1)


def layers_of(model: nn.Module, name: str = "") -> list[nn.Module]:
    """The layers of a sequential network, in their order.

    Args:
        model: layers of the kinds `SUPPORTED`, in nested `nn.Sequential`.
        name: of the model inside a larger one, for the message.

    Returns:
        The layers.

    Raises:
        ValueError: another kind of layer, or hooks on a layer other than those that compute its weight.
    """
    hooks = [*model._forward_hooks.values(), *model._forward_pre_hooks.values()]
    if not all(isinstance(hook, COMPUTING) for hook in hooks):
        raise ValueError(
            f"layer {name!r}, a {type(model).__name__}, has hooks, which bounds cannot follow: remove them"
        )
    if isinstance(model, PassCounter):
        return layers_of(model.model, name)
    if isinstance(model, nn.Sequential):
        return [layer for key, part in model.named_children() for layer in layers_of(part, f"{name}.{key}".strip("."))]
    kind = next((kind for kind in get_args(SUPPORTED) if isinstance(model, kind)), None)
    if kind is None or type(model).forward is not kind.forward:
        raise ValueError(
            f"no bounds are known for layer {name!r}, a {type(model).__name__}: take a sequential network of Linear, "
            "Conv2d, ReLU, average pooling, Flatten and Normalised, such as StridedCNN or MLP"
        )
    return [model]


def forward(layer: nn.Module, interval: Interval) -> Interval:
    """The interval of a layer's output, exact for each coordinate alone (Gowal et al., 2018, section 3).

    Args:
        layer: one of `SUPPORTED`.
        interval: of its input.

    Returns:
        The interval of its output, with a graph where gradients are enabled.
    """
    low, high = interval
    if isinstance(layer, nn.ReLU):
        return Interval(low.relu(), high.relu())
    middle: Tensor = layer((low + high) / 2)
    radius = _spread(layer, (high - low) / 2)
    return Interval(middle - radius, middle + radius)


def _spread(layer: nn.Module, radius: Tensor) -> Tensor:
    """The radius of an affine layer's output: absolute weights, as its last pass used them, and no offset."""
    if isinstance(layer, Normalised):
        return functional_call(layer, {"mean": torch.zeros_like(layer.mean), "std": layer.std.abs()}, (radius,))
    if isinstance(layer, nn.Linear):
        return F.linear(radius, layer.weight.abs())
    if isinstance(layer, nn.Conv2d):
        return layer._conv_forward(radius, layer.weight.abs(), None)
    spread: Tensor = layer(radius)  # pooling and flattening have positive coefficients only
    return spread


def backward(layer: nn.Module, a: Tensor, shape: tuple[int, ...]) -> tuple[Tensor, Tensor]:
    """Linear functions of an affine layer's output, as functions of its input.

    Args:
        layer: one of `SUPPORTED` other than ReLU.
        a: coefficients (M, *output).
        shape: of an input.

    Returns:
        Coefficients (M, *shape) and offsets (M,): a . layer(z) = coefficients . z + offset.
    """
    origin = a.new_zeros(len(a), *shape, requires_grad=True)
    graph = torch.is_grad_enabled()
    with torch.enable_grad():  # the transpose of an affine map is what differentiation applies
        output: Tensor = layer(origin)
        (coefficients,) = torch.autograd.grad(output, origin, a, create_graph=graph)
    return coefficients, (a * output).flatten(1).sum(1)
