"""What is watched while a private training steps: rows that do not count, buffers that change, epochs that end."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from aisec_lab.data import Dataset
from aisec_lab.models.training.fit import Losses, Step
from aisec_lab.privacy.gradients import PerSampleGradients, zero_gradients

Stop = Callable[[nn.Module], bool]


class Tally:
    """Counts the rows whose gradient was not finite, keeps the weights of each epoch's end, asks whether to stop.

    A `Callback`.

    Args:
        stop: asked after each epoch with the model in evaluation mode; none for no question.
    """

    def __init__(self, stop: Stop | None = None) -> None:
        self.stop, self.rows = stop, 0
        self.model: nn.Module | None = None
        self.whole: dict[str, Tensor] = {}

    def __call__(self, model: nn.Module, dataset: Dataset) -> dict[str, float]:
        """How many rows there were since the last call, and where it was asked, whether the training is to stop."""
        found, self.rows = self.rows, 0
        if self.model is not None:
            self.whole = weights_of(self.model)
        asked = {} if self.stop is None else {"stopped": float(bool(self.stop((self.model or model).eval())))}
        return {"dropped_rows": found} | asked

    def should_stop(self, history: list[dict[str, float]]) -> bool:
        """No epoch is."""
        return False

    @contextmanager
    def whole_epochs(self, model: nn.Module) -> Iterator[None]:
        """Inside, a training that does not come to its end leaves the weights of the last epoch that it ended.

        So what can be published is what whole epochs made, whose steps the records count.
        """
        self.model, self.whole = model, weights_of(model)
        try:
            yield
        except BaseException:
            with torch.no_grad():
                for name, weight in model.named_parameters():
                    weight.copy_(self.whole[name])
            model.eval()
            raise


def weights_of(model: nn.Module) -> dict[str, Tensor]:
    """A copy of a model's weights, by name."""
    return {name: weight.detach().clone() for name, weight in model.named_parameters()}


def of_finite(
    losses: Losses,
    rows: Tensor,
    *,
    model: nn.Module,
    gradients: Callable[[Callable[[], Tensor]], PerSampleGradients],
    tally: Tally,
) -> PerSampleGradients:
    """The gradients of those of the rows that have finite ones; the others are left out of the pass."""
    while len(rows):
        found = gradients(partial(losses, rows))
        finite = (found.norms.isfinite().all(0) & found.losses.isfinite()).to(rows.device)
        if finite.all():
            return found
        tally.rows += int((~finite).sum())
        rows = rows[finite]
    return zero_gradients(model)


def watched(model: nn.Module, optimizer: Optimizer, losses: Losses, *, step: Step, kept: dict[str, Tensor]) -> Tensor:
    """A step after which all buffers are as they were."""
    seen = step(model, optimizer, losses)
    refuse_changed_buffers(model, kept)
    return seen


def refuse_changed_buffers(model: nn.Module, kept: dict[str, Tensor]) -> None:
    """ValueError where a buffer is not as it was kept; it is then put back."""
    now = dict(model.named_buffers())
    changed = [name for name, value in now.items() if name not in kept or not torch.equal(value, kept[name])]
    for name in changed:
        place, _, leaf = name.rpartition(".")
        buffers = model.get_submodule(place)._buffers
        if name in kept:
            buffers[leaf] = kept[name]
        else:
            del buffers[leaf]
    if changed:
        raise ValueError(
            f"the buffer {changed[0]} changed in a step, past the noise, and is as it was again: compute it from the "
            "weights alone"
        )
