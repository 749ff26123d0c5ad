"""Training a surrogate on a victim's published probabilities."""

from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from aisec_lab.data import Dataset
from aisec_lab.models.layers import Architecture
from aisec_lab.models.training.fit import Fit


class InputAugmentation(Protocol):
    """An augmentation that should not change the victim's outputs: a frozen dataclass of settings that is called."""

    def __call__(self, x: Tensor, *, generator: torch.Generator) -> Tensor:
        """Change a batch of inputs.

        Args:
            x: inputs (N, *input), float32 in [0, 1].
            generator: source of the changes; those of a row do not depend on the other rows.

        Returns:
            Inputs, shape of `x`, in [0, 1].
        """
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
    """Train a new surrogate by cross-entropy with a victim's probabilities.

    Args:
        architecture: of the surrogate.
        x: queries (N, *input), float32 in [0, 1]; the surrogate is made on their device.
        answers: published probabilities (N, K).
        fit: how the surrogate is trained.
        generator: source of its weights, of the order of rows and of the augmentation.
        name: of the queries, as a dataset.
        augmentation: changes the inputs of each batch, while their outputs stay; None for no change.

    Returns:
        The surrogate, a classifier in evaluation mode.
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
    """Train a surrogate further, in place; it is left in evaluation mode.

    Args:
        copy: the surrogate, a classifier.
        x: queries (N, *input), float32 in [0, 1].
        answers: published probabilities (N, K).
        fit: how the surrogate is trained.
        generator: source of the order of rows and of the augmentation.
        name: of the queries, as a dataset.
        augmentation: changes the inputs of each batch, while their outputs stay; None for no change.
    """
    shape, classes = tuple(x.shape[1:]), answers.shape[1]
    rows = torch.cat([x.flatten(1).cpu(), answers.cpu().float()], dim=1)  # Fit's rows have one class: answers travel
    told = Dataset(rows, answers.cpu().argmax(1), tuple(map(str, range(classes))), name)
    fit(_Blind(copy, shape), told, _Imitation(shape, classes, augmentation), generator=generator)


class _Blind(nn.Module):
    """A classifier of rows that hold an input and its published probabilities, of which it uses the input only."""

    def __init__(self, model: nn.Module, shape: tuple[int, ...]) -> None:
        super().__init__()
        self.model, self.shape = model, shape

    def forward(self, rows: Tensor) -> Tensor:
        return self.model(rows[:, : torch.Size(self.shape).numel()].unflatten(1, self.shape))


class _Imitation:
    """Cross-entropy with the published probabilities that the rows hold."""

    def __init__(self, shape: tuple[int, ...], classes: int, augmentation: InputAugmentation | None) -> None:
        self.shape, self.classes, self.augmentation = shape, classes, augmentation

    def __call__(self, model: nn.Module, x: Tensor, y: Tensor, *, generator: torch.Generator) -> Tensor:
        inputs, answers = x.tensor_split([-self.classes], dim=1)
        if self.augmentation is not None:
            inputs = self.augmentation(inputs.unflatten(1, self.shape), generator=generator).flatten(1)
        return F.cross_entropy(model(torch.cat([inputs, answers], dim=1)), answers, reduction="none")
