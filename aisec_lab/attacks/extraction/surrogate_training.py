"""Training a copy on what a victim publishes."""

from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from aisec_lab.data import Dataset
from aisec_lab.models.layers import Architecture
from aisec_lab.models.training.fit import Fit


class InputAugmentation(Protocol):
    """A frozen dataclass that changes inputs in a way that leaves the victim's answers as they are, more or less."""

    def __call__(self, x: Tensor, *, generator: torch.Generator) -> Tensor:
        """Inputs of the shape of x (N, *input), in [0, 1]; what befalls a row does not depend on the others."""
        ...


def train_surrogate(
    architecture: Architecture,
    x: Tensor,
    answers: Tensor,
    *,
    fit: Fit,
    generator: torch.Generator,
    name: str,
    augmentation: InputAugmentation | None = None,
) -> nn.Module:
    """A new copy that has learned the answers of a victim, by cross-entropy with its probabilities.

    Args:
        architecture: of the copy.
        x: queries (N, *input), float32 in [0, 1]; the copy is made on their device.
        answers: the probabilities (N, K) that were published for them.
        fit: how the copy is trained.
        generator: source of its weights, of the order of rows and of the augmentation.
        name: of the queries, as a dataset.
        augmentation: changes the inputs of each batch; the answers stay; none by default.

    Returns:
        The copy, a classifier in evaluation mode.
    """
    copy = architecture(tuple(x.shape[1:]), answers.shape[1], generator=generator).to(x.device)
    fit_surrogate(copy, x, answers, fit=fit, generator=generator, name=name, augmentation=augmentation)
    return copy


def fit_surrogate(
    copy: nn.Module,
    x: Tensor,
    answers: Tensor,
    *,
    fit: Fit,
    generator: torch.Generator,
    name: str,
    augmentation: InputAugmentation | None = None,
) -> None:
    """Train a copy further on answers; in place, left in evaluation mode. Args: as for `train_surrogate`."""
    shape, classes = tuple(x.shape[1:]), answers.shape[1]
    rows = torch.cat([x.flatten(1).cpu(), answers.cpu().float()], dim=1)  # Fit's rows have one class: answers travel
    told = Dataset(rows, answers.cpu().argmax(1), tuple(map(str, range(classes))), name)
    fit(_Blind(copy, shape), told, _Imitation(shape, classes, augmentation), generator=generator)


class _Blind(nn.Module):
    """A classifier of rows that hold an input and, after it, answers which it does not see."""

    def __init__(self, model: nn.Module, shape: tuple[int, ...]) -> None:
        super().__init__()
        self.model, self.shape = model, shape

    def forward(self, rows: Tensor) -> Tensor:
        return self.model(rows[:, : torch.Size(self.shape).numel()].unflatten(1, self.shape))


class _Imitation:
    """Cross-entropy with the answers that the rows hold."""

    def __init__(self, shape: tuple[int, ...], classes: int, augmentation: InputAugmentation | None) -> None:
        self.shape, self.classes, self.augmentation = shape, classes, augmentation

    def __call__(self, model: nn.Module, x: Tensor, y: Tensor, *, generator: torch.Generator) -> Tensor:
        inputs, answers = x.tensor_split([-self.classes], dim=1)
        if self.augmentation is not None:
            inputs = self.augmentation(inputs.unflatten(1, self.shape), generator=generator).flatten(1)
        return F.cross_entropy(model(torch.cat([inputs, answers], dim=1)), answers, reduction="none")
