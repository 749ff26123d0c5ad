"""DeepSigns: the signs of projected mean activations of some classes encode the bits of the key."""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from aisec_lab.core import binomial
from aisec_lab.data import Dataset
from aisec_lab.defenses.ownership.key import Key, check_key
from aisec_lab.defenses.ownership.suspect import Suspect
from aisec_lab.defenses.ownership.watermark import WatermarkedModel, claim_rows, layer_to_mark, matching_layer
from aisec_lab.defenses.training.adversarial import Standard
from aisec_lab.models import Fit, Objective, copied, logits_of
from aisec_lab.models.asked import asked


@dataclass(frozen=True)
class DeepSigns:
    """Bits in the signs of projected mean activations (Rouhani et al., 2019, arXiv:1804.00750).

    Training adds `strength` times the cross-entropy of sigmoid(A mu) against the bits of each marked class, where mu is
    the mean of the layer's inputs over the rows of that class. The paper learns mu as a parameter and pulls the
    activations towards it; here it is the mean over the batch. The bits are random and independent of A and mu, so the
    p-value is the probability that as many fair coins agree with as many of the bits. The activations of the suspect
    must be readable.

    Call contract: docs/ownership.md, "Watermarks". The rows of the claim are training rows of all classes.

    Args:
        bits: bits for each class, at least 1.
        classes: number of marked classes, at least 1, chosen by the key. The smallest p-value is 2^-(bits * classes).
        rows: rows of each class on which `verify` measures mu, at least 1.
        layer: index among the linear and convolutional layers, whose inputs are marked; the last is -1. Something that
            is trained must lie before it, so it cannot be the first.
        strength: the paper's lambda_2, above 0.
        fit: training from scratch, or fine-tuning of a trained model.
        objective: the loss of the task. The mark is put into its first pass through the model.

    Raises:
        ValueError: a setting out of range; a model without that layer, one that does not call it once with each row, or
            one with nothing trainable before it; a dataset with fewer classes or rows.
    """

    bits: int = 16
    classes: int = 2
    rows: int = 20
    layer: int = -2
    strength: float = 0.01
    fit: Fit = Fit()
    objective: Objective = Standard()

    def __post_init__(self) -> None:
        if min(self.bits, self.classes, self.rows) < 1 or not self.strength > 0:
            raise ValueError(f"bits, classes, rows and strength must be positive: {self}")

    def embed(self, model: nn.Module, train: Dataset, key: Key, *, generator: torch.Generator) -> WatermarkedModel:
        """Embed the mark; see `Watermark.embed`."""
        check_key(key)
        if self.classes > len(train.classes):
            raise ValueError(
                f"{train.name} has {len(train.classes)} classes, cannot mark {self.classes}: lower classes"
            )
        carriers = train.sample(self.rows * len(train.classes), int(key.integers("carriers", 2**31, ())))
        marked = copied(model)
        layer = layer_to_mark(marked, self.layer, train.x[:1], enters=True)
        size = class_means(marked, layer, carriers).shape[1]
        chosen, projection, bits = (part.to(layer.weight.device) for part in self.secret(key, len(train.classes), size))

        def marking(model: nn.Module, x: Tensor, y: Tensor, *, generator: torch.Generator) -> Tensor:
            seen: list[Tensor] = []
            with layer.register_forward_pre_hook(lambda _, args: seen.append(args[0].flatten(1))):
                losses = self.objective(model, x, y, generator=generator)
            own = (y == chosen[:, None]).to(seen[0])  # (classes, N)
            means = own @ seen[0] / own.sum(1, keepdim=True).clamp(min=1)
            signs = F.binary_cross_entropy_with_logits(means @ projection.T, bits.float(), reduction="none").sum(1)
            return losses + self.strength * (signs * own.any(1)).sum()

        self.fit(marked, train, marking, generator=generator)
        return WatermarkedModel(marked, key, carriers)

    def verify(self, suspect: nn.Module, marked: WatermarkedModel) -> float:
        """The p-value of a suspect; see `Watermark.verify`."""
        rows, layer = claim_rows(marked), matching_layer(marked.model, suspect, self.layer)
        if layer is None:
            return 1.0
        means = class_means(suspect, layer, rows)
        chosen, projection, bits = self.secret(marked.key, *means.shape)
        return binomial.tail(int(((means[chosen] @ projection.T > 0) == bits).sum()), bits.numel(), 0.5)

    def secret(self, key: Key, classes: int, size: int) -> tuple[Tensor, Tensor, Tensor]:
        """The key's classes (s,), projections (bits, size), and bits (s, bits), bool."""
        chosen = key.uniform("marked classes", (classes,), torch.float64).argsort()[: self.classes]
        projection = key.normal("activation projections", (self.bits, size))
        return chosen, projection, key.bits("activation bits", (self.classes, self.bits))


def class_means(model: nn.Module, layer: nn.Module, rows: Dataset) -> Tensor:
    """Mean input of a layer over the rows of each class: (K, M), on the CPU; 0 for a class without rows."""
    seen: list[Tensor] = []
    with asked(model), layer.register_forward_pre_hook(lambda _, args: seen.append(args[0].detach().flatten(1).cpu())):
        logits_of(Suspect(model, len(rows.classes)), rows.x)
    entered = torch.cat(seen)
    own = F.one_hot(rows.y.cpu(), len(rows.classes)).to(entered).T  # (K, N)
    return own @ entered / own.sum(1, keepdim=True).clamp(min=1)
