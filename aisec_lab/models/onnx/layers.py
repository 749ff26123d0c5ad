"""ONNX forms of layers with weights, quantised or not, and of sequences of layers."""

from collections.abc import Mapping
from functools import singledispatch
from typing import Any

import torch
from torch import Tensor, nn

from aisec_lab.models.architectures import ResidualBlock
from aisec_lab.models.layers import Normalised
from aisec_lab.models.onnx.graph import Graph
from aisec_lab.models.quantised import TINY, FixedGrid, Quantised, RowGrid, no_short_cut

ZERO = 128  # the unsigned byte that represents a weight of zero


class NoFormError(ValueError):
    """A module without a registered ONNX form."""


@singledispatch
def form(module: nn.Module, graph: Graph, x: str, rank: int) -> str:
    """Write a module as `written` does; one function is registered for each type of module."""
    raise NoFormError(f"{type(module).__name__} has no ONNX form here: register one with `form`")


def written(module: nn.Module, graph: Graph, x: str, rank: int) -> str:
    """Add a module to a graph.

    Args:
        module: of a type that `form` knows, without hooks.
        graph: graph that is extended.
        x: name of the module's input.
        rank: number of dimensions of the input, with that of the rows.

    Returns:
        Name of the module's output.

    Raises:
        NoFormError: a module without a registered form, or a subclass with another `forward`.
    """
    kind: Any = next(kind for kind in type(module).__mro__ if kind in form.registry)  # the last one is `object`
    hooks = [*module._forward_hooks.values(), *module._forward_pre_hooks.values()]
    if kind is not object and (type(module).forward is not kind.forward or set(hooks) - {no_short_cut}):
        raise NoFormError(f"this {type(module).__name__} does more than a {kind.__name__}, and has no ONNX form here")
    return form(module, graph, x, rank)


@form.register
def _(module: nn.Sequential, graph: Graph, x: str, rank: int) -> str:
    for part in module:
        x = written(part, graph, x, rank)
        rank = 2 if isinstance(part, nn.Flatten) else rank
    return x


@form.register
def _(module: ResidualBlock, graph: Graph, x: str, rank: int) -> str:
    inner, shortcut = (written(part, graph, x, rank) for part in (module.residual, module.shortcut))
    return graph.node("Relu", graph.node("Add", shortcut, inner))


@form.register
def _(module: Normalised, graph: Graph, x: str, rank: int) -> str:
    mean, std = (each if len(each) == 1 else each.view(-1, *(1,) * (rank - 2)) for each in (module.mean, module.std))
    return graph.node("Div", graph.node("Sub", x, graph.constant(mean)), graph.constant(std))


@form.register
def _(module: nn.Linear, graph: Graph, x: str, rank: int) -> str:
    _refuse_places(rank)
    return _linear(graph, x, graph.constant(module.weight), module.bias)


@form.register(nn.Conv1d)
@form.register(nn.Conv2d)
@form.register(nn.Conv3d)
def _(module: nn.Conv2d, graph: Graph, x: str, rank: int) -> str:
    if module.padding_mode != "zeros":
        raise NoFormError(f"ONNX is written for convolutions padded by zeros, got {module.padding_mode}")
    return _convolution(module.__dict__, graph, x, graph.constant(module.weight), module.bias)


@form.register
def _(module: Quantised, graph: Graph, x: str, rank: int) -> str:
    if module.border is not None:
        raise NoFormError(f"ONNX is written for convolutions padded by zeros, got {module.border['mode']}")
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
        _refuse_places(rank)
        return written(module.after, graph, _linear(graph, x, weight, module.bias), rank)
    return written(module.after, graph, _convolution(module.convolution, graph, x, weight, module.bias), rank)


@form.register
def _(module: FixedGrid, graph: Graph, x: str, rank: int) -> str:
    grid = graph.constant(module.scale), graph.constant(module.zero)
    return graph.node("DequantizeLinear", graph.node("QuantizeLinear", x, *grid), *grid)


@form.register
def _(module: RowGrid, graph: Graph, x: str, rank: int) -> str:
    largest = graph.node("ReduceMax", graph.node("Abs", x), graph.constant(list(range(1, rank))))  # (N, 1, ...)
    scale = graph.node("Div", graph.node("Max", largest, graph.constant(TINY)), graph.constant(127.0))
    return graph.node("Mul", graph.node("Round", graph.node("Div", x, scale)), scale)


def _refuse_places(rank: int) -> None:
    if rank != 2:
        raise NoFormError(f"ONNX is written for linear layers on rows (N, D), got {rank} dimensions")


def _linear(graph: Graph, x: str, weight: str, bias: Tensor | None) -> str:
    return graph.node("Gemm", x, weight, *([] if bias is None else [graph.constant(bias)]), transB=1)


def _convolution(settings: Mapping[str, Any], graph: Graph, x: str, weight: str, bias: Tensor | None) -> str:
    """A convolution whose `settings` are those of `nn.Conv2d`, padded by zeros."""
    if isinstance(settings["padding"], str):
        raise NoFormError(f"ONNX is written for padding by numbers, got padding={settings['padding']!r}")
    stride, dilation, padding = (list(settings[name]) for name in ("stride", "dilation", "padding"))
    constants = [] if bias is None else [graph.constant(bias)]
    return graph.node(
        "Conv", x, weight, *constants, strides=stride, dilations=dilation, pads=padding * 2, group=settings["groups"]
    )
