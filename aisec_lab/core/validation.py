"""Checks of models, inputs, classes and outputs, for all attacks and defenses: one clear line for each refusal."""

from typing import Any

import torch
from torch import Tensor, nn

from aisec_lab.core.modes import parts_with_mode

SLACK = 1e-6  # rounding in float32 may leave the box by this much


def check_inputs(model: nn.Module, x: Tensor, y: Tensor, *, soft: bool = False, real: bool = False) -> None:
    """Refuse a model, inputs or classes on which an attack would be silently wrong.

    Args:
        model: classifier.
        x: inputs (N, *input).
        y: classes (N,).
        soft: whether `y` may be probabilities (N, K) instead.
        real: whether `y` must be true values (N,) of a regression instead.

    Raises:
        ValueError: a model that is no `nn.Module` or is in training mode; inputs that are not float32 or float64, or
            not in [0, 1]; classes that are not int64, are negative, or are not one for each row; true values that are
            not finite.
    """
    if not isinstance(model, nn.Module):
        raise ValueError(
            f"the model must be a torch.nn.Module in evaluation mode, got a {type(model).__name__}: call it in the "
            "forward of one"
        )
    for name, module in parts_with_mode(model):
        if module.training:
            where = f"its part {name!r} is" if name else "the model is"
            raise ValueError(f"{where} in training mode, so that answers depend on the batch: call model.eval()")
    if not isinstance(x, Tensor) or not isinstance(y, Tensor):
        kinds = f"{type(x).__name__} and {type(y).__name__}"
        raise ValueError(f"inputs and classes must be torch tensors, got {kinds}: use torch.as_tensor")
    what = "pixels" if x.ndim == 4 else "inputs"
    if x.dtype not in (torch.float32, torch.float64):
        mend = (
            "use .float(), and LowPrecision for a search in low precision"
            if x.is_floating_point()
            else "divide bytes by 255"
        )
        raise ValueError(f"{what} must be float32 or float64 numbers in [0, 1], got {x.dtype}: {mend}")
    if x.numel():
        low, high = (end.item() for end in x.aminmax())
        if low != low:
            raise ValueError(f"{what} must lie in [0, 1], got NaN")
        if low < -SLACK or high > 1 + SLACK:
            raise ValueError(
                f"{what} must lie in [0, 1], got [{low:.4g}, {high:.4g}]: "
                "put the normalisation inside the model (aisec_lab.models.Normalised)"
            )
    if len(x) != len(y):
        raise ValueError(f"there must be one class for each row, got {len(x)} rows and {len(y)} classes")
    if real:
        if not y.is_floating_point() or y.ndim != 1 or not y.isfinite().all():
            raise ValueError(f"a regression's truth is finite floats of shape (N,), got {y.dtype} {tuple(y.shape)}")
        return
    if soft and y.is_floating_point() and y.ndim == 2:
        return
    if y.dtype != torch.int64 or y.ndim != 1:
        mend = "use y.argmax(1)" if y.ndim == 2 else "use y.long()"
        raise ValueError(f"classes must be int64 of shape (N,), got {y.dtype} of shape {tuple(y.shape)}: {mend}")
    if len(y) and y.min() < 0:
        raise ValueError(f"classes must not be negative, got {int(y.min())}")


def has_reject_option(model: nn.Module) -> bool:
    """Whether a model's last column is a reject option: an attribute `rejects` of a part that is true says so.

    Args:
        model: classifier.

    Returns:
        True if it has one.
    """
    return any(getattr(part, "rejects", False) is True for part in model.modules())


def check_output(logits: Tensor, y: Tensor) -> None:
    """Refuse an output (N, K) and its classes if `check_labels` or `check_logits` does; for unchecked models."""
    check_labels(logits, y)
    check_logits(logits, (logits,))


def check_labels(logits: Tensor, y: Tensor) -> None:
    """Refuse an output whose number of columns does not fit the classes or true values.

    Args:
        logits: the model's answer (N, K).
        y: classes (N,), probabilities (N, K), or true values (N,) of a regression.

    Raises:
        ValueError: classes above K - 1; one logit for a class, or not exactly one output for a true value.
    """
    if y.ndim == 1 and y.is_floating_point():
        if logits.shape != (len(y), 1):
            raise ValueError(f"a regression answers each row with one number, (N, 1), got {tuple(logits.shape)}")
        return
    check_class_count(logits)
    if y.ndim == 1 and len(y) and y.max() >= logits.shape[1]:
        raise ValueError(f"classes must lie in 0..{logits.shape[1] - 1}, the model's, got {int(y.max())}")


def check_class_count(logits: Tensor) -> None:
    """Refuse logits (N, 1) with a ValueError: with one class, nothing is classified."""
    if logits.ndim == 2 and logits.shape[1] < 2:
        raise ValueError(
            "a classifier has at least two logits, got one: for a binary model wrap it in aisec_lab.models.TwoLogits"
        )


def check_logits(answer: object, args: tuple[Any, ...]) -> None:
    """Refuse anything that is not an output of a classifier or a regression.

    Args:
        answer: the model's output.
        args: arguments of the call; the first are the N inputs.

    Raises:
        ValueError: anything but one floating point tensor (N, K); NaN or plus infinity in it.
    """
    check_shape(answer, len(args[0]) if args else None)
    assert isinstance(answer, Tensor)
    if (answer.isnan() | answer.isposinf()).any():
        raise ValueError(
            "the model's logits are NaN or infinite at a point that it was asked about, so that nothing can be judged "
            "by them: check its weights and its last layers"
        )


def check_shape(answer: object, rows: int | None) -> None:
    """Refuse anything but one floating point tensor (N, K).

    Args:
        answer: the model's output.
        rows: N; None for any number.

    Raises:
        ValueError: another type, shape or dtype.
    """
    wrap = "wrap it so that it answers with logits (N, K)"
    if not isinstance(answer, Tensor):
        raise ValueError(f"a model must answer with one tensor of logits (N, K), got a {type(answer).__name__}: {wrap}")
    rows = len(answer) if rows is None else rows
    if answer.ndim != 2 or len(answer) != rows or not answer.is_floating_point():
        given = f"{answer.dtype} of shape {tuple(answer.shape)}"
        raise ValueError(f"a model must answer {rows} rows with floats of shape ({rows}, K), got {given}: {wrap}")
