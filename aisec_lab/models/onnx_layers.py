"""How each of the lab's layers is written in ONNX."""

from collections.abc import Mapping
from functools import singledispatch
from typing import Any

import torch
from torch import Tensor, nn

from aisec_lab.models.architectures import Residual
from aisec_lab.models.layers import Normalised
from aisec_lab.models.onnx_graph import Graph
from aisec_lab.models.quantised import TINY, FixedGrid, Quantised, RowGrid
from aisec_lab.models.tempered import MaxPool, TemperedSigmoid

ZERO = 128  # the unsigned byte that stands for a weight of zero


@singledispatch
def written(module: nn.Module, graph: Graph, x: str, rank: int) -> str:
    """Add what a module does to a graph.

    Args:
        module: one of the lab's layers, or a sequence of them.
        graph: is added to.
        x: name of what the module reads.
        rank: how many dimensions that has, rows included.

    Returns:
        Name of what the module gives.

    Raises:
        ValueError: a module whose form in ONNX is not known here.
    """
    raise ValueError(
        f"{type(module).__name__} has no ONNX form here: take a network of the lab's layers, "
        "or register one with `written`"
    )


@written.register
def _(module: nn.Sequential, graph: Graph, x: str, rank: int) -> str:
    for part in module:
        x = written(part, graph, x, rank)
        rank = 2 if isinstance(part, nn.Flatten) else rank
    return x


@written.register
def _(module: Residual, graph: Graph, x: str, rank: int) -> str:
    inner, shortcut = (written(part, graph, x, rank) for part in (module.residual, module.shortcut))
    return graph.node("Relu", graph.node("Add", shortcut, inner))


@written.register
def _(module: Normalised, graph: Graph, x: str, rank: int) -> str:
    mean, std = (each if len(each) == 1 else each.view(-1, *(1,) * (rank - 2)) for each in (module.mean, module.std))
    return graph.node("Div", graph.node("Sub", x, graph.constant(mean)), graph.constant(std))


@written.register
def _(module: nn.Linear, graph: Graph, x: str, rank: int) -> str:
    return _linear(graph, x, graph.constant(module.weight), module.bias)


@written.register
def _(module: nn.Conv2d, graph: Graph, x: str, rank: int) -> str:
    if module.padding_mode != "zeros" or isinstance(module.padding, str):
        raise ValueError(f"ONNX is written for convolutions padded by so many zeros, got {module}: use padding=n")
    return _convolution(module.__dict__, graph, x, graph.constant(module.weight), module.bias)


@written.register
def _(module: Quantised, graph: Graph, x: str, rank: int) -> str:
    x = written(module.before, graph, x, rank)
    blocked = module.scale.shape[1] > 1
    whole = module.codes if blocked else module.codes.view(module.shape)
    if module.bits <= 4:
        codes, zero = graph.constant(whole, four_bits=True), []
    else:  # unsigned: on processors before VNNI ONNX Runtime sums products of signed ones in 16 bits, which overflow
        codes = graph.constant((whole.to(torch.int16) + ZERO).to(torch.uint8), rest=ZERO)
        zero = [graph.constant(torch.full_like(module.scale, ZERO, dtype=torch.uint8).squeeze(1))]
    if blocked:
        flat = graph.node(
            "DequantizeLinear", codes, graph.constant(module.scale), *zero, axis=1, block_size=module.block
        )
        weight = graph.node("Reshape", flat, graph.constant(list(module.shape)))
    else:
        weight = graph.node("DequantizeLinear", codes, graph.constant(module.scale.squeeze(1)), *zero, axis=0)
    if module.convolution is None:
        return written(module.after, graph, _linear(graph, x, weight, module.bias), rank)
    return written(module.after, graph, _convolution(module.convolution, graph, x, weight, module.bias), rank)


@written.register
def _(module: FixedGrid, graph: Graph, x: str, rank: int) -> str:
    grid = graph.constant(module.scale), graph.constant(module.zero)
    return graph.node("DequantizeLinear", graph.node("QuantizeLinear", x, *grid), *grid)


@written.register
def _(module: RowGrid, graph: Graph, x: str, rank: int) -> str:
    largest = graph.node("ReduceMax", graph.node("Abs", x), graph.constant(list(range(1, rank))))  # (N, 1, ...)
    scale = graph.node("Div", graph.node("Max", largest, graph.constant(TINY)), graph.constant(127.0))
    return graph.node("Mul", graph.node("Round", graph.node("Div", x, scale)), scale)


@written.register
def _(module: nn.GroupNorm, graph: Graph, x: str, rank: int) -> str:
    scale, bias = graph.constant(module.weight), graph.constant(module.bias)
    return graph.node("GroupNormalization", x, scale, bias, num_groups=module.num_groups, epsilon=module.eps)


@written.register
def _(module: nn.ReLU, graph: Graph, x: str, rank: int) -> str:
    return graph.node("Relu", x)


@written.register(nn.Identity)
@written.register(nn.Dropout)
def _(module: nn.Module, graph: Graph, x: str, rank: int) -> str:
    return x


@written.register
def _(module: nn.Flatten, graph: Graph, x: str, rank: int) -> str:
    if (module.start_dim, module.end_dim) != (1, -1):
        raise ValueError(f"ONNX is written for nn.Flatten() of all but the rows, got {module}: use that")
    return graph.node("Flatten", x)


@written.register
def _(module: nn.AdaptiveAvgPool2d, graph: Graph, x: str, rank: int) -> str:
    if module.output_size not in (1, (1, 1)):
        raise ValueError(
            f"ONNX pools to one pixel or in fixed windows, not to {module.output_size}: use AdaptiveAvgPool2d(1)"
        )
    return graph.node("GlobalAveragePool", x)


@written.register
def _(module: MaxPool, graph: Graph, x: str, rank: int) -> str:
    window, stride = ([side, side] for side in (module.kernel_size, module.stride))
    return graph.node("MaxPool", x, kernel_shape=window, strides=stride)


@written.register
def _(module: TemperedSigmoid, graph: Graph, x: str, rank: int) -> str:
    bounded = graph.node("Sigmoid", graph.node("Mul", x, graph.constant(module.temperature)))
    return graph.node("Sub", graph.node("Mul", bounded, graph.constant(module.scale)), graph.constant(module.offset))


def _linear(graph: Graph, x: str, weight: str, bias: Tensor | None) -> str:
    return graph.node("Gemm", x, weight, *([] if bias is None else [graph.constant(bias)]), transB=1)


def _convolution(settings: Mapping[str, Any], graph: Graph, x: str, weight: str, bias: Tensor | None) -> str:
    """A convolution whose `settings` are those of `nn.Conv2d`; its padding is a pair of numbers."""
    stride, dilation, padding = (list(settings[name]) for name in ("stride", "dilation", "padding"))
    constants = [] if bias is None else [graph.constant(bias)]
    return graph.node(
        "Conv", x, weight, *constants, strides=stride, dilations=dilation, pads=padding * 2, group=settings["groups"]
    )
