"""Classifiers that publish modified outputs, as log-probabilities."""

from typing import Protocol

from torch import Tensor, nn

from aisec_lab.attacks.answers import check_not_probabilities
from aisec_lab.models.contexts import trains


class OutputTransform(Protocol):
    """A module that computes the published output from the model's."""

    def __call__(self, logits: Tensor, x: Tensor) -> Tensor:
        """Transform an output.

        Args:
            logits: the model's, (N, K).
            x: the inputs (N, *input).

        Returns:
            Log-probabilities (N, K), float.
        """
        ...


class ModifiedOutput(nn.Module):
    """A classifier whose output is transformed in a way that depends on the input too.

    Where the output alone decides, `nn.Sequential(model, change)` is enough. In both, the transform is a module of its
    own with the logits as its first argument, so that `BPDA` can replace one that is marked `differentiable = False`.

    Args:
        model: a classifier; the whole has its mode.
        change: a module that is called like `OutputTransform`.

    Raises:
        ValueError: on a call, a model that returns probabilities and not logits.
    """

    def __init__(self, model: nn.Module, change: nn.Module) -> None:
        super().__init__()
        self.model, self.change = model, change
        self.training = trains(model)  # the parts of the model keep their own modes
        change.train(trains(model))

    def forward(self, x: Tensor) -> Tensor:
        """Log-probabilities (N, K) of inputs (N, *input)."""
        logits = self.model(x)
        check_not_probabilities(logits)
        published: Tensor = self.change(logits, x)
        return published
