"""Checks during private training: rows without a finite gradient, buffers that change, epochs that are interrupted."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from aisec_lab.data import Dataset
from aisec_lab.models.training.fit import Losses, Step
from aisec_lab.privacy.gradients import GradientFunction, PerSampleGradients, empty_gradients

Stop = Callable[[nn.Module], bool]


class TrainingMonitor:
    """A `Callback` that counts dropped rows, keeps the weights of the last whole epoch, and may stop the training.

    Args:
        stop: called after each epoch with the model in evaluation mode; true ends the training. None never does.
    """

    def __init__(self, stop: Stop | None = None) -> None:
        self.stop, self.dropped_rows = stop, 0
        self.model: nn.Module | None = None
        self.last_epoch: dict[str, Tensor] = {}

    def __call__(self, model: nn.Module, dataset: Dataset) -> dict[str, float]:
        """`dropped_rows` since the last call and, where there is a `stop`, its answer as `stopped`."""
        dropped, self.dropped_rows = self.dropped_rows, 0
        if self.model is not None:
            self.last_epoch = copy_weights(self.model)
        stopped = {} if self.stop is None else {"stopped": float(bool(self.stop((self.model or model).eval())))}
        return {"dropped_rows": dropped} | stopped

    def should_stop(self, history: list[dict[str, float]]) -> bool:
        """False: no epoch of a private training is undone."""
        return False

    @contextmanager
    def keep_whole_epochs(self, model: nn.Module) -> Iterator[None]:
        """If training is interrupted inside this context, restore the weights from after the last whole epoch.

        So the weights that remain were made by the steps that the records count.

        Args:
            model: the model that is trained.
        """
        self.model, self.last_epoch = model, copy_weights(model)
        try:
            yield
        except BaseException:
            with torch.no_grad():
                for name, weight in model.named_parameters():
                    weight.copy_(self.last_epoch[name])
            model.eval()
            raise


def copy_weights(model: nn.Module) -> dict[str, Tensor]:
    """A copy of a model's weights, by name."""
    return {name: weight.detach().clone() for name, weight in model.named_parameters()}


def finite_gradients(
    losses: Losses, rows: Tensor, *, model: nn.Module, gradients: GradientFunction, monitor: TrainingMonitor
) -> PerSampleGradients:
    """The per-sample gradients of a batch without the rows whose loss or gradient is not finite.

    Args:
        losses: computes the losses of some rows of the batch.
        rows: indices (n,) of the rows that are used.
        model: the model that is trained.
        gradients: computes its per-sample gradients.
        monitor: counts the rows that are dropped.

    Returns:
        The gradients of the remaining rows, of which there may be none.
    """
    while len(rows):
        computed = gradients(partial(losses, rows))
        finite = (computed.norms.isfinite().all(0) & computed.losses.isfinite()).to(rows.device)
        if finite.all():
            return computed
        monitor.dropped_rows += int((~finite).sum())
        rows = rows[finite]
    return empty_gradients(model)


def checked_step(
    model: nn.Module, optimizer: Optimizer, losses: Losses, *, step: Step, buffers: dict[str, Tensor]
) -> Tensor:
    """Make a step, then refuse changed buffers.

    Args:
        model, optimizer, losses: arguments of the step.
        step: the step.
        buffers: the model's buffers by name, as they have to stay.

    Returns:
        What the step returns.

    Raises:
        ValueError: a buffer has changed; it is restored.
    """
    result = step(model, optimizer, losses)
    refuse_changed_buffers(model, buffers)
    return result


def refuse_changed_buffers(model: nn.Module, buffers: dict[str, Tensor]) -> None:
    """Restore the buffers of a model, and refuse it if one had changed: no noise protects what a buffer holds.

    Args:
        model: the model that is trained.
        buffers: its buffers by name, as they were before training.

    Raises:
        ValueError: a buffer had changed.
    """
    now = dict(model.named_buffers())
    changed = [name for name, value in now.items() if name not in buffers or not torch.equal(value, buffers[name])]
    for name in changed:
        place, _, leaf = name.rpartition(".")
        owned = model.get_submodule(place)._buffers
        if name in buffers:
            owned[leaf] = buffers[name]
        else:
            del owned[leaf]
    if changed:
        raise ValueError(
            f"the buffer {changed[0]} changed in a step, where no noise protects it, and was restored: compute it from "
            "the weights alone"
        )
