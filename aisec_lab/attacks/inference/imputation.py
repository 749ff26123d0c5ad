"""Imputation: guess a sensitive column of a row from the population alone, without the model under attack."""

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
    """A trained predictor of a sensitive attribute, made by `Imputation`.

    Args:
        network: classifier from rows without the attribute, with their class one-hot, to the V candidates.
        sensitive: the attribute.
        classes: K, the number of classes of the rows.
    """

    network: nn.Module
    sensitive: SensitiveAttribute
    classes: int

    def posterior(self, x: Tensor, y: Tensor) -> Tensor:
        """Probabilities of the candidates.

        Args:
            x: rows (N, D); the values in the sensitive columns are not used.
            y: their true classes (N,), int64.

        Returns:
            Probabilities (N, V).
        """
        return logits_of(self.network, _known(self.sensitive, x, y, self.classes)).softmax(1)

    def __call__(self, x: Tensor, y: Tensor) -> Tensor:
        """Guesses (N,), int64: the most probable candidate of each row; arguments as in `posterior`."""
        return self.posterior(x, y).argmax(1)


@dataclass(frozen=True)
class Imputation:
    """Train a predictor of an attribute from the other columns and the class (Jayaraman & Evans, 2022).

    arXiv:2209.01292. It does not use the model under attack, and is the baseline: only what an attack infers beyond
    it is leaked by the model.

    Args:
        architecture: of the predictor.
        fit: how it is trained.
    """

    architecture: Architecture = MLP((32,))
    fit: Fit = Fit(epochs=20, learning_rate=0.01)

    def __call__(self, public: Dataset, sensitive: SensitiveAttribute, *, generator: torch.Generator) -> Imputer:
        """Train the predictor.

        Args:
            public: rows of the same population with their attribute, none of which the model was trained on.
            sensitive: the attribute.
            generator: source of the weights and of the order of rows.

        Returns:
            The trained predictor.
        """
        x = _known(sensitive, public.x, public.y, len(public.classes))
        rows = Dataset(x, sensitive.truth(public.x), sensitive.names, f"{public.name}, {sensitive.names}")
        network = self.architecture(rows.shape, len(sensitive.names), generator=generator)
        self.fit(network, rows, _cross_entropy, generator=generator)
        return Imputer(network, sensitive, len(public.classes))


def _known(sensitive: SensitiveAttribute, x: Tensor, y: Tensor, classes: int) -> Tensor:
    """What the predictor sees of rows: all but the attribute, and the class one-hot."""
    return torch.cat([sensitive.without_attribute(x), F.one_hot(y, classes).to(x)], 1)


def _cross_entropy(model: nn.Module, x: Tensor, y: Tensor, *, generator: torch.Generator) -> Tensor:
    return F.cross_entropy(model(x), y, reduction="none")
