"""The modes of a model: frozen, in training, and with its randomness bound; and copies of it."""

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm


def with_modes(model: nn.Module, name: str = "") -> Iterator[tuple[str, nn.Module]]:
    """The parts of a model whose answers may depend on their mode, itself included, with their names.

    Left out is a program of `torch.export`, which refuses `eval()` since its graph was fixed in one mode, and a frozen
    TorchScript module, which has none.

    Args:
        model: any module.
        name: its own.
    """
    if _is_program(model):
        return
    if hasattr(model, "training"):
        yield name, model
    for child, part in model.named_children():
        yield from with_modes(part, f"{name}.{child}".lstrip("."))


def trains(model: nn.Module) -> bool:
    """Whether a model is in training mode, as what stands around it has to be; of what has no mode, that it is not."""
    return not _is_program(model) and bool(getattr(model, "training", False))


def _is_program(model: nn.Module) -> bool:
    """Whether a model is a program of `torch.export`, whose attribute `training` says nothing."""
    return isinstance(model, torch.fx.GraphModule) and "eval" in vars(model)


def in_mode_of(model: nn.Module, wrapped: nn.Module) -> nn.Module:
    """Put what stands around a model in the model's mode; its own parts keep theirs.

    Args:
        model: any module.
        wrapped: one that contains it.

    Returns:
        `wrapped`.
    """
    own = set(model.modules())
    for module in wrapped.modules():
        if module not in own:
            module.training = trains(model)
    return wrapped


@contextmanager
def frozen(model: nn.Module) -> Iterator[nn.Module]:
    """The model in evaluation mode, its parameters without gradients.

    Its hooks stay: pruning, and weight and spectral norm of `torch.nn.utils`, compute weights in them, so that without
    them it would be another function.

    Args:
        model: any module.

    Yields:
        The same model. On leaving, by whatever way, mode and `requires_grad` of each module and parameter are as they
        were.
    """
    modes = [(module, module.training) for _, module in with_modes(model)]
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
    """Put a model in training mode, but for batch norms whose weights are frozen: their statistics are frozen too.

    So a backbone whose weights are frozen gives the same features at each step, whatever rows share the batch.

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
    """Whether a module is a batch norm whose weights are frozen, so that training leaves its statistics alone."""
    weights = list(module.parameters(recurse=False))
    return isinstance(module, _BatchNorm) and bool(weights) and not any(weight.requires_grad for weight in weights)


def trainable(model: nn.Module) -> list[nn.Parameter]:
    """The weights of a model that are not frozen; ValueError where all are."""
    weights = [weight for weight in model.parameters() if weight.requires_grad]
    if not weights:
        raise ValueError("all weights are frozen: there is nothing to train, call requires_grad_(True) on some")
    return weights


def copied(model: nn.Module) -> nn.Module:
    """A copy that shares nothing with the model, whatever computes its weights.

    `copy.deepcopy` alone refuses a model after pruning or weight norm by the hooks of `torch.nn.utils`: these leave the
    last pass's weight, with its graph, as an attribute that the next pass computes anew.

    Args:
        model: any module; it stays as it is.
    """
    computed = [value for module in model.modules() for value in vars(module).values() if isinstance(value, Tensor)]
    return copy.deepcopy(model, {id(value): value.detach().clone() for value in computed})


@contextmanager
def seeded(model: nn.Module, generator: torch.Generator) -> Iterator[nn.Module]:
    """Bind the generator from which the randomised parts of a model draw.

    Args:
        model: any module; a part is randomised if it has an attribute `generator` that is a `torch.Generator` or None.
        generator: source of its noise.

    Yields:
        The same model; on leaving, each part has its former generator again.
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
