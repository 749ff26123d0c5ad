"""Checks of what monitors are shown: one clear line for each refusal."""

import torch
from torch import Tensor


def check_numbers(values: Tensor, shape: tuple[int, ...], what: str) -> Tensor:
    """Numbers as float64, after a check.

    Args:
        values: numbers of the rows (N, *shape).
        shape: of one row.
        what: they are called in an error.

    Returns:
        The values on the CPU, float64, without a gradient.

    Raises:
        ValueError: no tensor, another shape, or a number that is not finite.
    """
    if not isinstance(values, Tensor) or values.ndim != 1 + len(shape) or tuple(values.shape[1:]) != shape:
        wanted = f"(N, {', '.join(map(str, shape))})" if shape else "(N,)"
        raise ValueError(f"{what} must be a tensor of shape {wanted}, got {_described(values)}: use torch.as_tensor")
    numbers = values.detach().cpu().double()
    if not numbers.isfinite().all():
        raise ValueError(f"{what} must be finite, got NaN or infinity: reject such rows before they reach a monitor")
    return numbers


def check_events(values: Tensor, what: str) -> Tensor:
    """Events (N,), bool, on the CPU; a ValueError, in which they are called `what`, for anything else."""
    if not isinstance(values, Tensor) or values.ndim != 1 or values.dtype != torch.bool:
        raise ValueError(
            f"{what} must be a tensor of shape (N,), bool, got {_described(values)}: compare, such as predicted != y"
        )
    return values.cpu()


def check_classes(values: Tensor, what: str, classes: int | None = None) -> Tensor:
    """Classes, after a check.

    Args:
        values: classes of the rows (N,).
        what: they are called in an error.
        classes: K; None for any number of classes.

    Returns:
        The values on the CPU.

    Raises:
        ValueError: no tensor (N,) of int64, a negative class, or one above K - 1.
    """
    if not isinstance(values, Tensor) or values.ndim != 1 or values.dtype != torch.int64:
        raise ValueError(f"{what} must be int64 of shape (N,), got {_described(values)}: use logits.argmax(1)")
    low, high = (int(end) for end in values.aminmax()) if len(values) else (0, 0)
    if low < 0 or (classes is not None and high >= classes):
        accepted = "not be negative" if classes is None else f"lie in 0..{classes - 1}"
        raise ValueError(f"{what} must {accepted}, got {low} to {high}")
    return values.cpu()


def _described(values: object) -> str:
    """Type and shape of what was given instead."""
    return f"{values.dtype} {tuple(values.shape)}" if isinstance(values, Tensor) else f"a {type(values).__name__}"
