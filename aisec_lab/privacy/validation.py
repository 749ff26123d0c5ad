"""What a private training refuses at its door: models, objectives and number types whose rows it could not protect."""

import torch
from torch import nn

from aisec_lab.data import Dataset
from aisec_lab.models import Objective
from aisec_lab.privacy.clipping import FlatClipping, GhostClipping, RowByRowClipping
from aisec_lab.privacy.gradients import replacements, trained
from aisec_lab.privacy.made_up import nobodys
from aisec_lab.privacy.per_sample_check import (
    CrossSampleGradientError,
    check_per_sample,
    check_per_sample_gradients,
    check_per_sample_objective,
)

FULL = (torch.float32, torch.float64)


def check_private(
    model: nn.Module, dataset: Dataset, objective: Objective, clipping: FlatClipping, batch_size: int
) -> None:
    """Refuse a model or an objective whose rows could not be protected; on copies, and on rows that are nobody's.

    Args:
        model: in any mode; nothing of it is changed.
        dataset: rows of the kind that it is trained on; their shape, type and range are used.
        objective: of one loss for each row.
        clipping: that the rows' gradients are cut by.
        batch_size: rows that go through the model together.

    Raises:
        ValueError: weights of less precision than float32; rows that mix, in the model, the objective or the backward
            pass; a layer of which the clipping does not know the rows' gradients, with the clipping that does.
    """
    device = next(model.parameters()).device
    x, y = (nobodys(dataset.x, 2).to(device), dataset.y.to(device))
    for name, weight in trained(model).items():
        if weight.dtype not in FULL:
            raise ValueError(
                f"{name} is {weight.dtype}, whose rounding moves the sum further than the clipping norm, past the "
                "noise: train in float32 (model.float()), with torch.autocast inside of forward where the passes shall "
                "be faster, and convert what is trained, which costs no privacy"
            )
    check_per_sample(model, x, batch_size)
    check_per_sample_objective(model, objective, x, y, batch_size)
    fault = find_error(model, x, y, objective, clipping)
    if fault is not None:
        others = [kind for kind in (FlatClipping(), RowByRowClipping()) if type(kind) is not type(clipping)]
        works = next((kind for kind in others if find_error(model, x, y, objective, kind) is None), None)
        told = " ".join(str(fault).split())  # Opacus's is of several lines
        mend = f"use clipping {type(works).__name__}" if works else "no clipping takes it"
        mend += "" if isinstance(clipping, GhostClipping) else replacements(model)
        raise ValueError(
            f"clipping {type(clipping).__name__} cannot take {type(model).__name__}: {told}: {mend}"
        ) from fault


def find_error(
    model: nn.Module, x: torch.Tensor, y: torch.Tensor, objective: Objective, kind: FlatClipping
) -> Exception | None:
    """Why a clipping cannot take the rows' gradients of a model, of whatever kind torch or Opacus raises; or nothing.

    Raises:
        ValueError: rows mix in the backward pass.
    """
    try:
        check_per_sample_gradients(model, objective, x, y, kind)
    except CrossSampleGradientError:
        raise
    except Exception as fault:
        return fault
    return None


def refuse_autocast(model: nn.Module) -> None:
    """Refuse to clip and sum in the short numbers of a surrounding `torch.autocast`.

    Raises:
        ValueError: one is on.
    """
    kind = next(model.parameters()).device.type
    if torch.is_autocast_enabled(kind):
        raise ValueError(
            f"torch.autocast would clip and sum in {torch.get_autocast_dtype(kind)}, past the noise: put it inside of "
            "the model's forward, and train outside of it"
        )
