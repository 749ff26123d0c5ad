"""What bounds have to know of a layer: how intervals go forward through it, and linear functions back."""

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.func import functional_call

from aisec_lab.models import Counted, Normalised

KNOWN = nn.Linear | nn.Conv2d | nn.ReLU | nn.AvgPool2d | nn.AdaptiveAvgPool2d | nn.Flatten | Normalised


class Interval(NamedTuple):
    """Lower and upper ends, coordinate by coordinate, (N, *shape) both."""

    low: Tensor
    high: Tensor

    def least(self, rows: Tensor, a: Tensor) -> Tensor:
        """The least values (M,) of linear functions a (M, *shape), each over the interval of its row (M,)."""
        low, high = self.low[rows], self.high[rows]
        return (a.clamp(min=0) * low + a.clamp(max=0) * high).flatten(1).sum(1)


def layers_of(model: nn.Module, name: str = "") -> list[nn.Module]:
    """The layers of a sequential network, in their order.

    Args:
        model: layers of the kinds KNOWN, in `nn.Sequential` of any depth.
        name: of the model inside a larger one, for the message.

    Raises:
        ValueError: another kind of layer, by name.
    """
    if isinstance(model, Counted):
        return layers_of(model.model, name)
    if isinstance(model, nn.Sequential):
        return [layer for key, part in model.named_children() for layer in layers_of(part, f"{name}.{key}".strip("."))]
    if not isinstance(model, KNOWN):
        raise ValueError(
            f"no bounds are known for layer {name!r}, a {type(model).__name__}: take a sequential network of Linear, "
            "Conv2d, ReLU, average pooling, Flatten and Normalised, such as StridedCNN or MLP"
        )
    return [model]


def forward(layer: nn.Module, interval: Interval) -> Interval:
    """The interval of a layer's output, exact for each coordinate alone (Gowal et al., 2018, section 3).

    Args:
        layer: one of KNOWN.
        interval: of its input.

    Returns:
        The interval of its output, with a graph where gradients are on.
    """
    low, high = interval
    if isinstance(layer, nn.ReLU):
        return Interval(low.relu(), high.relu())
    middle: Tensor = layer((low + high) / 2)
    radius: Tensor = functional_call(layer, _absolute(layer), ((high - low) / 2,))
    return Interval(middle - radius, middle + radius)


def _absolute(layer: nn.Module) -> dict[str, Tensor]:
    """The values with which an affine layer maps radii: absolute slopes, no offset."""
    if isinstance(layer, Normalised):
        return {"mean": torch.zeros_like(layer.mean), "std": layer.std.abs()}
    if isinstance(layer, nn.Linear | nn.Conv2d):
        offset = {} if layer.bias is None else {"bias": torch.zeros_like(layer.bias)}
        return {"weight": layer.weight.abs()} | offset
    return {}  # pooling and flattening have none but positive slopes


def backward(layer: nn.Module, a: Tensor, shape: tuple[int, ...]) -> tuple[Tensor, Tensor]:
    """Linear functions of an affine layer's output, as functions of its input.

    Args:
        layer: one of KNOWN, but ReLU.
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
