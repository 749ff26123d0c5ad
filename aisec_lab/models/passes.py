"""Running a model over many rows, and counting what that cost."""

from contextlib import ExitStack

import torch
from torch import Tensor, nn

from aisec_lab.models.asked import asked, check_shape
from aisec_lab.models.contexts import trains
from aisec_lab.models.layers import refuse_opaque


class PassCounter(nn.Module):
    """A classifier that counts the rows that go forward and backward through it.

    Cost in this lab is counted in passes of one example, the same on every machine; seconds are for benchmarks.

    Args:
        model: classifier.
        fewest: logits that it must answer with at least; a ValueError at a call where it has fewer, or none.
    """

    def __init__(self, model: nn.Module, fewest: int = 1) -> None:
        super().__init__()
        self.fewest = fewest
        self.model = model
        self.training = trains(model)  # of this module alone: the model's parts keep their modes
        self.forward_passes = 0
        self.backward_passes = 0

    def forward(self, x: Tensor) -> Tensor:
        """The model's own logits (N, K)."""
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
    """Where a model is, by its first parameter; where the inputs are, if it has none."""
    return next((parameter.device for parameter in model.parameters()), x.device)


@torch.no_grad()
def logits_of(model: nn.Module, x: Tensor, batch_size: int = 500) -> Tensor:
    """Logits of many rows, batch by batch, in evaluation mode.

    Args:
        model: classifier; its mode, and that of each of its parts, is restored afterwards.
        x: inputs (N, *input) in [0, 1], on any device.
        batch_size: rows a pass; a fixed value, since float32 logits depend on it in the last bits.

    Returns:
        Logits (N, K) on the CPU.

    Raises:
        ValueError: what is no answer (`check_logits`).
    """
    device = device_of(model, x)
    with asked(model):
        return torch.cat([model(batch.to(device)).cpu() for batch in x.split(batch_size)])


@torch.no_grad()
def called(model: nn.Module, x: Tensor, kinds: type[nn.Module] | tuple[type[nn.Module], ...]) -> list[nn.Module]:
    """The layers that a pass calls, in the order of their first calls.

    The order in which a model lists its layers is that of its constructor, and says nothing of what it does with them.

    Args:
        model: any module, in the mode in which it is looked at.
        x: what it is called with.
        kinds: of layers.

    Returns:
        Each layer once; none that is listed and never called.

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
