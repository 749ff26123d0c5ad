"""Other classifiers of the same task, whose gradients an attacker may follow instead of the model's."""

import torch
from torch import Tensor, nn

from aisec_lab.models import seeded
from aisec_lab.models.asked import asked
from aisec_lab.models.contexts import trains


class NeverRejecting(nn.Module):
    """A classifier with one more column, the reject option, which it never takes."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model
        self.training = trains(model)

    def forward(self, x: Tensor) -> Tensor:
        """Logits (N, K + 1) of inputs (N, *input)."""
        logits: Tensor = self.model(x)
        return torch.cat([logits, torch.full_like(logits[:, :1], -torch.inf)], 1)


def matched(surrogate: nn.Module, model: nn.Module, x: Tensor, *, rejecting: bool) -> nn.Module:
    """A surrogate with as many outputs as the model it stands in for.

    Args:
        surrogate, model: classifiers.
        x: an input (1, *input).
        rejecting: whether the model's last output is a reject option, which a surrogate need not have.

    Returns:
        The surrogate, or `NeverRejecting` around it.

    Raises:
        ValueError: it knows other classes, or is in training mode.
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
    with asked(model), torch.no_grad(), seeded(model, torch.Generator(x.device).manual_seed(0)):
        return int(model(x).shape[1])
