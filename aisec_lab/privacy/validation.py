"""Refuse models, objectives and dtypes that private training cannot protect."""

import torch
from torch import Tensor, nn

from aisec_lab.data import Dataset
from aisec_lab.models import Objective
from aisec_lab.privacy.clipping import FlatClipping, GhostClipping, RowByRowClipping
from aisec_lab.privacy.dummy_rows import dummy_inputs
from aisec_lab.privacy.gradients import replacements, trainable_parameters
from aisec_lab.privacy.per_sample_check import (
    CrossSampleGradientError,
    check_per_sample,
    check_per_sample_gradients,
    check_per_sample_objective,
)

DTYPES = (torch.float32, torch.float64)


def check_private(
    model: nn.Module, dataset: Dataset, objective: Objective, clipping: FlatClipping, batch_size: int
) -> None:
    """Refuse a model or an objective whose rows could not be protected; tested on copies and dummy rows.

    Args:
        model: in any mode; it is not changed.
        dataset: rows of the kind that it is trained on; only their shape, dtype and range are used.
        objective: one loss per row.
        clipping: computes and clips the per-sample gradients.
        batch_size: rows that go through the model together.

    Raises:
        ValueError: weights of less precision than float32; rows are mixed in the model, the objective or the backward
            pass; a layer that the clipping does not support (the message names a clipping that does).
    """
    device = next(model.parameters()).device
    x, y = (dummy_inputs(dataset.x, 2).to(device), dataset.y.to(device))
    for name, weight in trainable_parameters(model).items():
        if weight.dtype not in DTYPES:
            raise ValueError(
                f"{name} is {weight.dtype}, whose rounding moves the sum further than the clipping norm, past the "
                "noise: train in float32 (model.float()), with torch.autocast inside of forward to make the passes "
                "faster, and convert what is trained, which costs no privacy"
            )
    check_per_sample(model, x, batch_size)
    check_per_sample_objective(model, objective, x, y, batch_size)
    error = find_error(model, x, y, objective, clipping)
    if error is not None:
        others = [other for other in (FlatClipping(), RowByRowClipping()) if type(other) is not type(clipping)]
        works = next((other for other in others if find_error(model, x, y, objective, other) is None), None)
        message = " ".join(str(error).split())  # Opacus's has several lines
        advice = f"use clipping {type(works).__name__}" if works else "no clipping takes it"
        advice += "" if isinstance(clipping, GhostClipping) else replacements(model)
        raise ValueError(
            f"clipping {type(clipping).__name__} cannot take {type(model).__name__}: {message}: {advice}"
        ) from error


def find_error(
    model: nn.Module, x: Tensor, y: Tensor, objective: Objective, clipping: FlatClipping
) -> Exception | None:
    """Why a clipping does not support a model; None if it does.

    Args:
        model: passed by `check_per_sample`; in any mode; it is not changed.
        x, y: rows of the kind that it will see, (N, *input), and their targets (N, *target).
        objective: one loss per row.
        clipping: computes the per-sample gradients.

    Returns:
        The exception that torch or Opacus raised, of any kind.

    Raises:
        CrossSampleGradientError: rows are mixed in the backward pass.
    """
    try:
        check_per_sample_gradients(model, objective, x, y, clipping)
    except CrossSampleGradientError:
        raise
    except Exception as error:
        return error
    return None


def refuse_autocast(model: nn.Module) -> None:
    """Refuse to clip and sum inside `torch.autocast`, whose short numbers round by more than the noise covers.

    Args:
        model: the model that is trained; autocast is looked up for its device.

    Raises:
        ValueError: autocast is on.
    """
    device_type = next(model.parameters()).device.type
    if torch.is_autocast_enabled(device_type):
        raise ValueError(
            f"torch.autocast would clip and sum in {torch.get_autocast_dtype(device_type)}, past the noise: put it "
            "inside of the model's forward, and train outside of it"
        )
