"""A watermark in the weights: the signs of secret projections of a layer encode the bits of the key."""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from aisec_lab.core import binomial
from aisec_lab.data import Dataset
from aisec_lab.defenses.ownership.key import Key, check_key
from aisec_lab.defenses.ownership.watermark import Layer, WatermarkedModel, layer_to_mark, matching_layer
from aisec_lab.defenses.training.adversarial import Standard
from aisec_lab.models import Fit, Objective, copied


@dataclass(frozen=True)
class Uchida:
    """Bits in the signs of projections of a layer's mean filter (Uchida et al., 2017, arXiv:1701.04082, section 3).

    Training adds `strength` times the cross-entropy of sigmoid(X w) against the bits, where w is the layer's mean
    filter and X has independent standard normal entries (the paper's random X). The bits are random and independent of
    X and w, so the p-value is the probability that as many fair coins agree with as many of the bits. The weights of
    the suspect must be readable.

    Call contract: docs/ownership.md, "Watermarks". The claim has no rows.

    Args:
        bits: number of bits T, at least 1 and fewer than w has entries. The smallest p-value is 2^-T.
        layer: index of the layer among the linear and convolutional layers, from 0.
        strength: the paper's lambda, above 0.
        fit: training from scratch, or fine-tuning of a trained model.
        objective: the loss of the task, to which the regulariser is added.

    Raises:
        ValueError: a setting out of range; a model without that layer, or where it is too small, frozen or never
            called.
    """

    bits: int = 64
    layer: int = 2
    strength: float = 0.01
    fit: Fit = Fit()
    objective: Objective = Standard()

    def __post_init__(self) -> None:
        if self.bits < 1 or not self.strength > 0:
            raise ValueError(f"bits and strength must be positive: {self}")

    def embed(self, model: nn.Module, train: Dataset, key: Key, *, generator: torch.Generator) -> WatermarkedModel:
        """Embed the mark; see `Watermark.embed`."""
        check_key(key)
        marked = copied(model)
        layer = layer_to_mark(marked, self.layer, train.x[:1])
        size = mean_filter(layer).numel()
        if size <= self.bits:
            raise ValueError(f"{self.bits} bits need more entries than layer {self.layer} has, {size}: lower bits")
        projection, bits = (part.to(layer.weight.device) for part in self.secret(key, size))

        def regularised(model: nn.Module, x: Tensor, y: Tensor, *, generator: torch.Generator) -> Tensor:
            losses = self.objective(model, x, y, generator=generator)
            signs = F.binary_cross_entropy_with_logits(projection @ mean_filter(layer), bits.float(), reduction="sum")
            return losses + self.strength * signs

        self.fit(marked, train, regularised, generator=generator)
        return WatermarkedModel(marked, key)

    def verify(self, suspect: nn.Module, marked: WatermarkedModel) -> float:
        """The p-value of a suspect; see `Watermark.verify`."""
        layer = matching_layer(marked.model, suspect, self.layer)
        if layer is None:
            return 1.0
        w = mean_filter(layer).detach().cpu()
        projection, bits = self.secret(marked.key, len(w))
        return binomial.tail(int(((projection @ w > 0) == bits).sum()), self.bits, 0.5)

    def secret(self, key: Key, size: int) -> tuple[Tensor, Tensor]:
        """The key's projections X (T, size) and bits (T,), bool, for a mean filter with `size` entries."""
        return key.normal("weight projections", (self.bits, size)), key.bits("weight bits", (self.bits,))


def mean_filter(layer: Layer) -> Tensor:
    """The mean of a layer's weights over its outputs, flattened: the paper's w."""
    return layer.weight.mean(0).flatten()
