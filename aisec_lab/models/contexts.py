"""Modes of a model (frozen, training, seeded), and copies of it."""

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from aisec_lab.core.modes import in_training_mode, parts_with_mode


def in_mode_of(model: nn.Module, wrapped: nn.Module) -> nn.Module:
    """Set the wrappers around a model to the model's mode; the model's own modules keep theirs.

    Args:
        model: any module.
        wrapped: a module that contains it.

    Returns:
        `wrapped`.
    """
    own = set(model.modules())
    for module in wrapped.modules():
        if module not in own:
            module.training = in_training_mode(model)
    return wrapped


@contextmanager
def frozen(model: nn.Module) -> Iterator[nn.Module]:
    """Put a model in evaluation mode, and its parameters in a state without gradients.

    Its hooks remain: pruning, weight norm and spectral norm of `torch.nn.utils` compute weights in them, so without
    hooks the model would be another function.

    Args:
        model: any module.

    Yields:
        The same model. On leaving, also by an exception, the mode of each module and `requires_grad` of each parameter
        are restored.
    """
    modes = [(module, module.training) for _, module in parts_with_mode(model)]
    learning = [parameter for parameter in model.parameters() if parameter.requires_grad]
    try:
        if any(mode for _, mode in modes):
            model.eval()
        for parameter in learning:
            parameter.requires_grad_(False)
        yield model
    finally:
        for parameter in learning:
            parameter.requires_grad_(True)
        for module, mode in modes:
            module.training = mode


def in_training(model: nn.Module) -> nn.Module:
    """Put a model in training mode, except for batch norms with frozen weights: their statistics are frozen too.

    So a frozen backbone computes the same features of a row at each step, in any batch.

    Args:
        model: any module.

    Returns:
        The same model.
    """
    model.train()
    for module in model.modules():
        if keeps_statistics(module):
            module.eval()
    return model


def keeps_statistics(module: nn.Module) -> bool:
    """Whether a module is a batch norm with frozen weights, whose statistics training must not change."""
    weights = list(module.parameters(recurse=False))
    return isinstance(module, _BatchNorm) and bool(weights) and not any(weight.requires_grad for weight in weights)


def trainable(model: nn.Module) -> list[nn.Parameter]:
    """The parameters of a model that are not frozen.

    Args:
        model: any module.

    Returns:
        Its parameters with `requires_grad`, at least one.

    Raises:
        ValueError: all parameters are frozen.
    """
    weights = [weight for weight in model.parameters() if weight.requires_grad]
    if not weights:
        raise ValueError("all weights are frozen: there is nothing to train, call requires_grad_(True) on some")
    return weights


def copied(model: nn.Module) -> nn.Module:
    """A deep copy of a model, even if hooks compute its weights.

    `copy.deepcopy` fails on a model with pruning or weight norm by hooks of `torch.nn.utils`: these store the last
    computed weight, with its graph, as an attribute.

    Args:
        model: any module; it is not changed.

    Returns:
        A model that shares no tensor with `model`, in the same modes.
    """
    computed = [value for module in model.modules() for value in vars(module).values() if isinstance(value, Tensor)]
    return copy.deepcopy(model, {id(value): value.detach().clone() for value in computed})


@contextmanager
def seeded(model: nn.Module, generator: torch.Generator) -> Iterator[nn.Module]:
    """Set the generator from which the randomised modules of a model draw.

    Args:
        model: any module; a part is randomised if its attribute `generator` is a `torch.Generator` or None.
        generator: source of its noise.

    Yields:
        The same model; on leaving, each part has its previous generator.
    """
    parts: list[Any] = [
        module for module in model.modules() if isinstance(getattr(module, "generator", ""), torch.Generator | None)
    ]
    former = [module.generator for module in parts]
    try:
        for module in parts:
            module.generator = generator
        yield model
    finally:
        for module, before in zip(parts, former, strict=True):
            module.generator = before
