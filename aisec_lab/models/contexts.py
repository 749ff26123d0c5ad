"""How an attack may look at a model: frozen, and with its randomness bound."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

HOOKS = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")


@contextmanager
def frozen(model: nn.Module) -> Iterator[nn.Module]:
    """The model in evaluation mode, its parameters without gradients, its hooks off.

    Args:
        model: any module.

    Yields:
        The same model. On leaving, by whatever way, mode, `requires_grad` and hooks of each module and
        parameter are as they were.
    """
    modes = [(module, module.training) for module in model.modules()]
    learning = [parameter for parameter in model.parameters() if parameter.requires_grad]
    registries = [getattr(module, name) for module, _ in modes for name in HOOKS]
    hooks = [(registry, dict(registry)) for registry in registries if registry]
    try:
        model.eval()
        for parameter in learning:
            parameter.requires_grad_(False)
        for registry, _ in hooks:
            registry.clear()
        yield model
    finally:
        for registry, saved in hooks:
            registry.update(saved)
        for parameter in learning:
            parameter.requires_grad_(True)
        for module, mode in modes:
            module.training = mode


@contextmanager
def seeded(model: nn.Module, generator: torch.Generator) -> Iterator[nn.Module]:
    """Bind the generator from which the randomised parts of a model draw.

    Args:
        model: any module; a part is randomised if it has an attribute `generator`.
        generator: source of its noise.

    Yields:
        The same model; on leaving, each part has its former generator again.
    """
    parts: list[Any] = [module for module in model.modules() if hasattr(module, "generator")]
    former = [module.generator for module in parts]
    try:
        for module in parts:
            module.generator = generator
        yield model
    finally:
        for module, before in zip(parts, former, strict=True):
            module.generator = before
