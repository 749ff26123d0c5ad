"""Refuse models and objectives that mix the rows of a batch or store them: clipping cannot bound a row's influence."""

import copy

import torch
from torch import Tensor, nn

from aisec_lab.models import Objective, copied, in_training
from aisec_lab.privacy.clipping import FlatClipping
from aisec_lab.privacy.dummy_rows import Batch, dummy_batches, replace_rows, separating_masks
from aisec_lab.privacy.gradients import trainable_parameters
from aisec_lab.privacy.per_sample_outputs import PerSampleLosses
from aisec_lab.privacy.per_sample_trial import (
    SMALL_BATCH,
    CrossSampleError,
    CrossSampleTest,
    differ,
    rounding_of,
)
from aisec_lab.privacy.seeded_pass import cuda_devices, refuse_changed_state, seeded_pass, state_bytes

HINT = "no clipping bounds what a row then does: compute each row from itself alone"
HINTS = {  # what to build instead of a layer that mixes rows
    nn.modules.batchnorm._NormBase: "use GroupNorm, or freeze its weights, which keeps its statistics as they are",
    nn.MultiheadAttention: "build it with batch_first=True",
    nn.TransformerEncoderLayer: "build it with batch_first=True",
    nn.TransformerDecoderLayer: "build it with batch_first=True",
    nn.RNNBase: "build it with batch_first=True",
}


class CrossSampleGradientError(ValueError):
    """Rows are mixed in a backward pass."""


def check_per_sample(model: nn.Module, x: Tensor, batch_size: int) -> None:
    """Refuse a model in which a row's output depends on other rows, or which stores what it is shown.

    The model is tested, not read. Copies of it in training mode run dummy rows:

    - Some rows are replaced; the outputs of all others must stay the same to the bit. Every pair of rows is covered.
    - Some rows are removed; the outputs of the rest must be the same up to rounding.
    - Other batches run first; the outputs must not depend on them.
    - No entry of the copies' state may change.

    Then all is repeated with noise on the weights, since training moves them.

    Args:
        model: in any mode; it is not changed.
        x: rows of the kind that it will see, (N, *input); only their shape, dtype, device and range are used.
        batch_size: of the training; rows up to twice as many places apart are tested.

    Raises:
        ValueError: rows are mixed (with the name of the layer, if it is found); a buffer or weight changes in a
            forward pass; the model cannot be copied, has no trainable weights, or does not return a row for each row.
    """
    probe = training_copy(model)
    for name, layer in probe.named_modules():
        if _is_batch_norm(layer):
            raise ValueError(f"{name} ({type(layer).__name__}) mixes the rows of a batch: {_hint(layer)}")
    before = state_bytes(probe)
    for noisy in (False, True):
        if noisy:
            add_noise(probe)
            before = state_bytes(probe)
        test = CrossSampleTest(in_training(probe))
        try:
            test((x,), batch_size, rounding=not noisy)  # with weights of any size, rounding errors have no bound
        except CrossSampleError as error:
            where, layer = test.locate(error)
            named = f"{where} ({type(layer).__name__})" if where else type(probe).__name__
            raise ValueError(f"{named} mixes the rows of a batch: {error}; {_hint(layer)}") from error
        refuse_changed_state(before, state_bytes(probe))


def check_per_sample_objective(model: nn.Module, objective: Objective, x: Tensor, y: Tensor, batch_size: int) -> None:
    """Refuse an objective by which a row's loss depends on other rows; tested as `check_per_sample` tests a model.

    Args:
        model: passed by `check_per_sample`; in any mode; it is not changed.
        objective: one loss per row.
        x, y: rows of the kind that it will see, (N, *input), and their targets (N, *target).
        batch_size: of the training.

    Raises:
        ValueError: rows are mixed, or there is not one loss per row.
    """
    probe = training_copy(model)
    for noisy in (False, True):
        if noisy:
            add_noise(probe)
        test = CrossSampleTest(in_training(probe), PerSampleLosses(objective))
        try:
            test((x, y), batch_size, rounding=not noisy, small_batches=1 if noisy else 3)
        except CrossSampleError as error:
            raise ValueError(
                f"the objective {name_of(objective)} mixes the rows of a batch: {error}; {HINT}"
            ) from error


def check_per_sample_gradients(
    model: nn.Module, objective: Objective, x: Tensor, y: Tensor, clipping: FlatClipping
) -> None:
    """Refuse a model that mixes rows in its backward pass alone, by a custom autograd function or a hook.

    What some rows add to the sum of gradients must not change, up to rounding, when other rows do.

    Args:
        model: passed by `check_per_sample`; in any mode; it is not changed.
        objective: one loss per row.
        x, y: rows of the kind that it will see, (N, *input), and their targets (N, *target).
        clipping: computes the per-sample gradients; one that takes a row at a time is run on one.

    Raises:
        CrossSampleGradientError: rows are mixed.
        Exception: of any kind, where the clipping does not support the model.
    """
    probe = training_copy(model)
    count = clipping.max_physical_batch or SMALL_BATCH

    def contributions(rows: Batch, unchanged: Tensor) -> Tensor:
        """The norms and the summed gradient of the unchanged rows, in one vector."""
        fresh, losses = copy.deepcopy((probe, PerSampleLosses(objective)))
        with clipping.gradients(fresh) as gradients, seeded_pass(fresh, 0, cuda_devices(fresh)) as generator:
            computed = gradients(lambda: losses(fresh, *rows, generator=generator))
            factors = unchanged.to(computed.norms).expand_as(computed.norms)
            sums = computed.weighted_sums(factors)
            return torch.cat([computed.norms[:, unchanged].flatten(), *(total.flatten() for total in sums)])

    for noisy in (False, True):
        if noisy:
            add_noise(probe)
        rows, others = next(dummy_batches((x, y), count))
        for mask in separating_masks(count):
            before = contributions(rows, ~mask)
            after = contributions(replace_rows(rows, others, mask), ~mask)
            if differ(before, after, rounding_of(before)):
                raise CrossSampleGradientError(
                    f"{type(model).__name__} mixes the rows of a batch in its backward pass: a row's gradient changes "
                    f"when other rows do; {HINT}"
                )


def training_copy(model: nn.Module) -> nn.Module:
    """A copy of a model, in training mode.

    Raises:
        ValueError: the model has no trainable weights, or cannot be copied.
    """
    if not trainable_parameters(model):
        raise ValueError("all weights are frozen: there is nothing to train")
    try:
        return in_training(copied(model))
    except (RuntimeError, TypeError) as error:
        raise ValueError(
            f"{type(model).__name__} cannot be copied, and is tried on a copy ({error}): let it hold no tensor with a "
            "graph and nothing such as an open file or a lock"
        ) from error


@torch.no_grad()
def add_noise(model: nn.Module) -> None:
    """Add standard normal noise to all weights, in place."""
    generator = torch.Generator().manual_seed(0)
    for weight in model.parameters():
        weight.add_(torch.randn(weight.shape, generator=generator).to(weight))


def name_of(objective: object) -> str:
    """The name of a function, or of an object's class."""
    return str(getattr(objective, "__name__", type(objective).__name__))


def _is_batch_norm(layer: nn.Module) -> bool:
    """Whether the layer is one that mixes rows, or keeps statistics of them, in its present mode."""
    if not isinstance(layer, nn.modules.batchnorm._NormBase) or not layer.training:
        return False
    return isinstance(layer, nn.modules.batchnorm._BatchNorm) or layer.track_running_stats


def _hint(layer: nn.Module) -> str:
    return next((hint for kind, hint in HINTS.items() if isinstance(layer, kind)), HINT)
