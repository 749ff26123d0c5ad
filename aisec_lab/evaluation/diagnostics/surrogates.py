"""Surrogates: other classifiers of the same task, whose gradients an attacker can use instead of the model's."""

import torch
from torch import Tensor, nn

from aisec_lab.models import seeded
from aisec_lab.models.asked import asked
from aisec_lab.models.contexts import trains


class NeverRejecting(nn.Module):
    """A classifier with a reject option, the last column, that it never takes.

    Args:
        model: classifier without a reject option, in evaluation mode.
    """

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model
        self.training = trains(model)

    def forward(self, x: Tensor) -> Tensor:
        """Logits (N, K + 1) of inputs (N, *input)."""
        logits: Tensor = self.model(x)
        return torch.cat([logits, torch.full_like(logits[:, :1], -torch.inf)], 1)


def match_outputs(surrogate: nn.Module, model: nn.Module, x: Tensor, *, rejecting: bool) -> nn.Module:
    """Give a surrogate as many outputs as the model.

    Args:
        surrogate: classifier of the same task.
        model: the classifier that it stands for.
        x: an input (1, *input).
        rejecting: whether the last output of the model is a reject option, which a surrogate need not have.

    Returns:
        The surrogate, or the surrogate wrapped in `NeverRejecting`.

    Raises:
        ValueError: a surrogate with another number of classes, or in training mode.
    """
    if trains(surrogate):
        raise ValueError("a surrogate is in training mode, so that its answers depend on the batch: call .eval()")
    own, wanted = (_outputs(each, x) for each in (surrogate, model))
    if own == wanted:
        return surrogate
    if rejecting and own == wanted - 1:
        return NeverRejecting(surrogate)
    raise ValueError(f"a surrogate has {own} outputs, the model {wanted}: take one that was trained on the same task")


def _outputs(model: nn.Module, x: Tensor) -> int:
    """The number of outputs of a model."""
    with asked(model), torch.no_grad(), seeded(model, torch.Generator(x.device).manual_seed(0)):
        return int(model(x).shape[1])
