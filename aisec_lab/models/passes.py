"""Run a model over many rows, and count forward and backward passes."""

from contextlib import ExitStack

import torch
from torch import Tensor, nn

from aisec_lab.core.modes import in_training_mode
from aisec_lab.core.validation import check_shape
from aisec_lab.models.checked import checked_model
from aisec_lab.models.layers import refuse_opaque


class PassCounter(nn.Module):
    """Wrap a classifier and count the rows of its forward and backward passes.

    Cost is counted in passes of one row, which is the same on every machine. The counts are `forward_passes` and
    `backward_passes`.

    Args:
        model: classifier.
        fewest: least number of logits.

    Raises:
        ValueError: in a call, fewer logits, or an output that is not (N, K).
    """

    def __init__(self, model: nn.Module, fewest: int = 1) -> None:
        super().__init__()
        self.fewest = fewest
        self.model = model
        self.training = in_training_mode(model)  # the parts of the model keep their modes
        self.forward_passes = 0
        self.backward_passes = 0

    def forward(self, x: Tensor) -> Tensor:
        """The model's logits (N, K) of inputs (N, *input)."""
        self.forward_passes += len(x)
        logits: Tensor = self.model(x)
        check_shape(logits, len(x))
        if logits.shape[1] < self.fewest:
            raise ValueError(
                f"the model answers with {logits.shape[1]} logits and is trained on {self.fewest} classes: give it as "
                "many; a binary model with one logit is wrapped in aisec_lab.models.TwoLogits"
            )
        if logits.requires_grad:
            logits.register_hook(self._count_backward)
        return logits

    def _count_backward(self, grad: Tensor) -> None:
        self.backward_passes += len(grad)


def device_of(model: nn.Module, x: Tensor) -> torch.device:
    """The device on which a model computes.

    Args:
        model: any module.
        x: its inputs.

    Returns:
        The device of the model's first parameter; that of `x`, if the model has no parameters.
    """
    return next((parameter.device for parameter in model.parameters()), x.device)


@torch.no_grad()
def logits_of(model: nn.Module, x: Tensor, batch_size: int = 500) -> Tensor:
    """Logits of many rows, batch by batch, in evaluation mode and without gradients.

    Args:
        model: classifier; the modes of all its modules are restored afterwards.
        x: inputs (N, *input) in [0, 1], on any device.
        batch_size: rows per pass; a fixed value, since the last bits of float32 logits depend on it.

    Returns:
        Logits (N, K) on the CPU.

    Raises:
        ValueError: outputs that `check_logits` refuses.
    """
    device = device_of(model, x)
    with checked_model(model):
        return torch.cat([model(batch.to(device)).cpu() for batch in x.split(batch_size)])


@torch.no_grad()
def called_layers(model: nn.Module, x: Tensor, kinds: type[nn.Module] | tuple[type[nn.Module], ...]) -> list[nn.Module]:
    """The layers that a pass calls, in the order of their first calls.

    The order in `model.modules()` is that of the constructor, which may not be the order of calls.

    Args:
        model: any module, in any mode.
        x: its inputs (N, *input).
        kinds: types of the layers.

    Returns:
        Each layer once; a layer that is never called is left out.

    Raises:
        ValueError: an opaque model.
    """
    refuse_opaque(model)
    order: dict[nn.Module, None] = {}
    with ExitStack() as hooks:
        for layer in model.modules():
            if isinstance(layer, kinds):
                hooks.callback(layer.register_forward_pre_hook(lambda layer, _: order.setdefault(layer)).remove)
        model(x.clone())
    return list(order)
