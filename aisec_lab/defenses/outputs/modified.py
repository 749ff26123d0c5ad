"""What a client is told in place of the model's answer: probabilities, handed on as their logarithms."""

from typing import Protocol

from torch import Tensor, nn

from aisec_lab.attacks.answers import check_not_probabilities
from aisec_lab.models.contexts import trains


class OutputTransform(Protocol):
    """A module that makes a published answer of the model's."""

    def __call__(self, logits: Tensor, x: Tensor) -> Tensor:
        """Log-probabilities (N, K) for the model's logits (N, K) on inputs (N, *input)."""
        ...


class ModifiedOutput(nn.Module):
    """A classifier whose answer to x changes in a way that depends on x; again a classifier.

    Where the answer alone decides, `nn.Sequential(model, change)` will do. In both the change is a part of its own,
    whose first argument is the logits, so that `BPDA` can look through one that is marked `differentiable = False`.

    Args:
        model: a classifier; its mode is that of the whole.
        change: a module, called as `OutputTransform`.

    Raises:
        ValueError: on a call, a model that answers with probabilities: they would be softmaxed twice.
    """

    def __init__(self, model: nn.Module, change: nn.Module) -> None:
        super().__init__()
        self.model, self.change = model, change
        self.training = trains(model)  # of the model's parts each keeps its own
        change.train(trains(model))

    def forward(self, x: Tensor) -> Tensor:
        """Log-probabilities (N, K) of inputs (N, *input)."""
        logits = self.model(x)
        check_not_probabilities(logits)
        published: Tensor = self.change(logits, x)
        return published
