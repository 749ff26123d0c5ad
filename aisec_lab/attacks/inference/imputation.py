"""Imputation: a column of a row that the attacker does not see, from the population alone, without the model."""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from aisec_lab.attacks.inference.attributes import SensitiveAttribute
from aisec_lab.data import Dataset
from aisec_lab.models import MLP, Fit, logits_of
from aisec_lab.models.layers import Architecture


@dataclass(frozen=True, eq=False)
class Imputer:
    """What a model of the attribute says, made by `Imputation` from rows of the same kind.

    Args:
        network: classifier of rows without the attribute and with their class.
        sensitive: the attribute.
        classes: K, of the rows.
    """

    network: nn.Module
    sensitive: SensitiveAttribute
    classes: int

    def posterior(self, x: Tensor, y: Tensor) -> Tensor:
        """Probabilities of the candidates (N, V) for rows (N, D), whose attribute is not looked at, of classes (N,)."""
        return logits_of(self.network, _known(self.sensitive, x, y, self.classes)).softmax(1)

    def __call__(self, x: Tensor, y: Tensor) -> Tensor:
        """Guesses (N,), int64: the most probable candidates."""
        return self.posterior(x, y).argmax(1)


@dataclass(frozen=True)
class Imputation:
    """Guessing the attribute without the model, from the other columns and the class (Jayaraman & Evans, 2022).

    arXiv:2209.01292: what this finds is how the population is, and an attack has to find more to be a leak.

    Args of the call:
        public: rows of the same population with their attribute, none of which the model was trained on.
        sensitive: the attribute.
        generator: source of weights and order.
    """

    architecture: Architecture = MLP((32,))
    fit: Fit = Fit(epochs=20, learning_rate=0.01)

    def __call__(self, public: Dataset, sensitive: SensitiveAttribute, *, generator: torch.Generator) -> Imputer:
        x = _known(sensitive, public.x, public.y, len(public.classes))
        rows = Dataset(x, sensitive.truth(public.x), sensitive.names, f"{public.name}, {sensitive.names}")
        network = self.architecture(rows.shape, len(sensitive.names), generator=generator)
        self.fit(network, rows, _cross_entropy, generator=generator)
        return Imputer(network, sensitive, len(public.classes))


def _known(sensitive: SensitiveAttribute, x: Tensor, y: Tensor, classes: int) -> Tensor:
    return torch.cat([sensitive.hidden(x), F.one_hot(y, classes).to(x)], 1)


def _cross_entropy(model: nn.Module, x: Tensor, y: Tensor, *, generator: torch.Generator) -> Tensor:
    return F.cross_entropy(model(x), y, reduction="none")
