"""Which modules of a model have a mode, training or evaluation."""

from collections.abc import Iterator

import torch
from torch import nn


def parts_with_mode(model: nn.Module, name: str = "") -> Iterator[tuple[str, nn.Module]]:
    """Iterate over the modules of a model, itself included, whose outputs may depend on their mode.

    Left out are programs of `torch.export`, which refuse `eval()` since their graph was fixed in one mode, and frozen
    TorchScript modules, which have no mode.

    Args:
        model: any module.
        name: name of the model itself, a prefix of the others.

    Yields:
        Name and module.
    """
    if _is_program(model):
        return
    if hasattr(model, "training"):
        yield name, model
    for child, part in model.named_children():
        yield from parts_with_mode(part, f"{name}.{child}".lstrip("."))


def in_training_mode(model: nn.Module) -> bool:
    """Whether a model is in training mode, as what stands around it has to be; of what has no mode, that it is not."""
    return not _is_program(model) and bool(getattr(model, "training", False))


def _is_program(model: nn.Module) -> bool:
    """Whether a model is a program of `torch.export`, whose attribute `training` says nothing."""
    return isinstance(model, torch.fx.GraphModule) and "eval" in vars(model)
