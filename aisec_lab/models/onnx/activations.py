"""ONNX forms of normalisation, activation and pooling layers."""

from typing import Any

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from aisec_lab.models.onnx.graph import Graph
from aisec_lab.models.onnx.layers import NoFormError, form
from aisec_lab.models.tempered import MaxPool, TemperedSigmoid


@form.register
def _(module: nn.GroupNorm, graph: Graph, x: str, rank: int) -> str:
    if module.weight is None:
        raise NoFormError("ONNX is written for a GroupNorm with weights, got affine=False")
    scale, bias = graph.constant(module.weight), graph.constant(module.bias)
    return graph.node("GroupNormalization", x, scale, bias, num_groups=module.num_groups, epsilon=module.eps)


@form.register
def _(module: nn.ReLU, graph: Graph, x: str, rank: int) -> str:
    return graph.node("Relu", x)


@form.register(nn.Identity)
@form.register(nn.Dropout)
def _(module: nn.Module, graph: Graph, x: str, rank: int) -> str:
    return x


@form.register
def _(module: nn.Flatten, graph: Graph, x: str, rank: int) -> str:
    if (module.start_dim, module.end_dim) != (1, -1):
        raise NoFormError(f"ONNX is written for nn.Flatten() of all but the rows, got {module}")
    return graph.node("Flatten", x)


@form.register
def _(module: nn.AdaptiveAvgPool2d, graph: Graph, x: str, rank: int) -> str:
    if module.output_size not in (1, (1, 1)):
        raise NoFormError(f"ONNX pools to one pixel or in fixed windows, not to {module.output_size}")
    return graph.node("GlobalAveragePool", x)


@form.register
def _(module: TemperedSigmoid, graph: Graph, x: str, rank: int) -> str:
    bounded = graph.node("Sigmoid", graph.node("Mul", x, graph.constant(module.temperature)))
    return graph.node("Sub", graph.node("Mul", bounded, graph.constant(module.scale)), graph.constant(module.offset))


@form.register
def _(module: _BatchNorm, graph: Graph, x: str, rank: int) -> str:
    if module.running_mean is None or module.running_var is None:
        raise NoFormError(f"{module} has no statistics of its own, so that a row's answer depends on its neighbours")
    ones = torch.ones_like(module.running_mean)
    scale, bias = (each if given is None else given for each, given in ((ones, module.weight), (0 * ones, module.bias)))
    constants = [graph.constant(each) for each in (scale, bias, module.running_mean, module.running_var)]
    return graph.node("BatchNormalization", x, *constants, epsilon=module.eps)


@form.register
def _(module: nn.LeakyReLU, graph: Graph, x: str, rank: int) -> str:
    return graph.node("LeakyRelu", x, alpha=module.negative_slope)


@form.register
def _(module: nn.ELU, graph: Graph, x: str, rank: int) -> str:
    return graph.node("Elu", x, alpha=module.alpha)


@form.register
def _(module: nn.Sigmoid, graph: Graph, x: str, rank: int) -> str:
    return graph.node("Sigmoid", x)


@form.register
def _(module: nn.Tanh, graph: Graph, x: str, rank: int) -> str:
    return graph.node("Tanh", x)


@form.register
def _(module: nn.GELU, graph: Graph, x: str, rank: int) -> str:
    return graph.node("Gelu", x, approximate=module.approximate)


@form.register
def _(module: nn.SiLU, graph: Graph, x: str, rank: int) -> str:
    return graph.node("Mul", x, graph.node("Sigmoid", x))


@form.register
def _(module: nn.Hardtanh, graph: Graph, x: str, rank: int) -> str:
    return graph.node("Clip", x, graph.constant(module.min_val), graph.constant(module.max_val))


@form.register(nn.MaxPool2d)
@form.register(MaxPool)
def _(module: nn.MaxPool2d, graph: Graph, x: str, rank: int) -> str:
    if module.return_indices or module.ceil_mode:
        raise NoFormError(f"ONNX takes maxima over windows that are whole, and not their places, got {module}")
    unusual = {}
    if _pair(module.padding) != [0, 0]:
        unusual["pads"] = _pair(module.padding) * 2
    if _pair(module.dilation) != [1, 1]:
        unusual["dilations"] = _pair(module.dilation)
    return graph.node("MaxPool", x, **_window(module), **unusual)


@form.register
def _(module: nn.AvgPool2d, graph: Graph, x: str, rank: int) -> str:
    if module.divisor_override is not None or module.ceil_mode:
        raise NoFormError(f"ONNX averages over windows that are whole, got {module}")
    pads = _pair(module.padding) * 2
    return graph.node("AveragePool", x, pads=pads, count_include_pad=int(module.count_include_pad), **_window(module))


def _pair(side: int | tuple[int, ...]) -> list[int]:
    return [side, side] if isinstance(side, int) else [*side]


def _window(module: nn.MaxPool2d | nn.AvgPool2d) -> dict[str, Any]:
    return {"kernel_shape": _pair(module.kernel_size), "strides": _pair(module.stride)}
