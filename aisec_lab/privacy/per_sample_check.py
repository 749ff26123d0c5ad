"""Models and objectives that mix the rows of a batch, or keep them: no clipping bounds what one row does to these."""

import copy

import torch
from torch import Tensor, nn

from aisec_lab.models import Objective, copied, in_training
from aisec_lab.privacy.clipping import FlatClipping
from aisec_lab.privacy.gradients import trained
from aisec_lab.privacy.made_up import Batch, draws, exchanged, halves
from aisec_lab.privacy.passes import cuda_of, refuse_changes, same_chance, state_of
from aisec_lab.privacy.per_sample_trial import FEW, CrossSampleError, RowLosses, Trial, differ, rounding_of

ALONE = "no clipping bounds what a row then does: compute each row from itself alone"
HINTS = {  # what to build instead of a layer that mixes rows
    nn.modules.batchnorm._NormBase: "use GroupNorm, or freeze its weights, which keeps its statistics as they are",
    nn.MultiheadAttention: "build it with batch_first=True",
    nn.TransformerEncoderLayer: "build it with batch_first=True",
    nn.TransformerDecoderLayer: "build it with batch_first=True",
    nn.RNNBase: "build it with batch_first=True",
}


class CrossSampleGradientError(ValueError):
    """Rows meet in a backward pass."""


def check_per_sample(model: nn.Module, x: Tensor, batch_size: int) -> None:
    """Refuse a model in which a row's output depends on other rows, or which keeps what it is shown.

    It is tried, not read: copies of the model in training mode meet rows that are nobody's. Some of them change, and
    the outputs for all others must stay as they are, to the bit; each row is changed while each other is not. Then rows
    leave the batch, and the outputs for those that stay must be the same up to rounding. What came in batches before
    must not matter. All entries of the copies' state must be as they were.

    Args:
        model: in any mode; nothing of it is changed.
        x: rows of the kind that it will see, (N, *input): their shape, type, device and range are used.
        batch_size: of the training; rows that are up to twice so many places apart are tried.

    Raises:
        ValueError: with the name of the layer, where it can be told: rows mix; a buffer or weight changes in a forward
            pass; the model cannot be copied; it has no weights to train, or no row for a row.
    """
    probe = probed(model)
    for name, layer in probe.named_modules():
        if _by_construction(layer):
            raise ValueError(f"{name} ({type(layer).__name__}) mixes the rows of a batch: {_hint(layer)}")
    before = state_of(probe)
    for shaken in (False, True):  # training moves the weights: what mixes rows elsewhere shows with others, if at all
        if shaken:
            shake(probe)
            before = state_of(probe)
        trial = Trial(in_training(probe))
        try:
            trial((x,), batch_size, rounding=not shaken)  # with weights of any size rounding may grow to anything
        except CrossSampleError as found:
            where, layer = trial.place_of(found)
            told = f"{where} ({type(layer).__name__})" if where else type(probe).__name__
            raise ValueError(f"{told} mixes the rows of a batch: {found}; {_hint(layer)}") from found
        refuse_changes(before, state_of(probe))


def check_per_sample_objective(model: nn.Module, objective: Objective, x: Tensor, y: Tensor, batch_size: int) -> None:
    """Refuse an objective by which a row's loss depends on other rows, as `check_per_sample` does a model.

    Args:
        model: one that mixes no rows, in any mode; nothing of it is changed.
        objective: of one loss for each row.
        x, y: rows of the kind that it will see, and their targets.
        batch_size: of the training.

    Raises:
        ValueError: rows mix, or there is not one loss for each row.
    """
    probe = probed(model)
    for shaken in (False, True):
        if shaken:
            shake(probe)
        try:
            trial = Trial(in_training(probe), RowLosses(objective))
            trial((x, y), batch_size, rounding=not shaken, many=1 if shaken else 3)  # the model is known to keep apart
        except CrossSampleError as found:
            raise ValueError(f"the objective {named(objective)} mixes the rows of a batch: {found}; {ALONE}") from found


def check_per_sample_gradients(
    model: nn.Module, objective: Objective, x: Tensor, y: Tensor, clipping: FlatClipping
) -> None:
    """Refuse what mixes rows in the backward pass alone, such as an autograd function of one's own or a hook.

    What some rows add to the sum must not change, up to rounding, when the others do.

    Args:
        model, objective, x, y: as for `check_per_sample_objective`.
        clipping: that takes the rows' gradients; where it takes one row at a time, none can mix, and one is tried.

    Raises:
        CrossSampleGradientError: rows mix.
        Exception: of any kind, where the clipping does not take the model.
    """
    probe = probed(model)

    def of(rows: Batch, same: Tensor) -> Tensor:
        one, asked = copy.deepcopy((probe, RowLosses(objective)))
        with clipping.gradients(one) as rows_of, same_chance(one, 0, cuda_of(one)) as generator:
            found = rows_of(lambda: asked(one, *rows, generator=generator))
            factors = same.to(found.norms).expand_as(found.norms)
            return torch.cat([found.norms[:, same].flatten(), *(total.flatten() for total in found.sums(factors))])

    for shaken in (False, True):
        if shaken:
            shake(probe)
        rows, others = next(draws((x, y), clipping.at_once or FEW))
        for changed in halves(clipping.at_once or FEW):
            before, after = of(rows, ~changed), of(exchanged(rows, others, changed), ~changed)
            if differ(before, after, rounding_of(before)):
                raise CrossSampleGradientError(
                    f"{type(model).__name__} mixes the rows of a batch in its backward pass: a row's gradient changes "
                    f"when other rows do; {ALONE}"
                )


def probed(model: nn.Module) -> nn.Module:
    """A copy of a model, in training mode.

    Raises:
        ValueError: it has no weights to train, or cannot be copied.
    """
    if not trained(model):
        raise ValueError("all weights are frozen: there is nothing to train")
    try:
        return in_training(copied(model))
    except (RuntimeError, TypeError) as error:
        raise ValueError(
            f"{type(model).__name__} cannot be copied, and is tried on a copy ({error}): let it hold no tensor with a "
            "graph and nothing such as an open file or a lock"
        ) from error


@torch.no_grad()
def shake(model: nn.Module) -> None:
    """Add standard normal noise to all weights."""
    generator = torch.Generator().manual_seed(0)
    for weight in model.parameters():
        weight.add_(torch.randn(weight.shape, generator=generator).to(weight))


def named(objective: object) -> str:
    """The name of a function, or of an object's class."""
    return str(getattr(objective, "__name__", type(objective).__name__))


def _by_construction(layer: nn.Module) -> bool:
    """Whether it is a layer that is known to mix rows, or to keep statistics of them, in its present mode."""
    if not isinstance(layer, nn.modules.batchnorm._NormBase) or not layer.training:
        return False
    return isinstance(layer, nn.modules.batchnorm._BatchNorm) or layer.track_running_stats


def _hint(layer: nn.Module) -> str:
    return next((hint for kind, hint in HINTS.items() if isinstance(layer, kind)), ALONE)
