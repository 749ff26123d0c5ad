"""A mark in what a layer sees: the mean activations of some classes, projected, spell the key's bits."""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from aisec_lab.core import binomial
from aisec_lab.data import Dataset
from aisec_lab.defenses.ownership.key import Key, check_key
from aisec_lab.defenses.ownership.suspect import Suspect
from aisec_lab.defenses.ownership.watermark import WatermarkedModel, markable, rows_of, twin_of
from aisec_lab.defenses.training.adversarial import Standard
from aisec_lab.models import Fit, Objective, copied, logits_of
from aisec_lab.models.asked import asked


@dataclass(frozen=True)
class DeepSigns:
    """Bits in the signs of projected mean activations (Rouhani et al., 2019, arXiv:1804.00750: DeepSigns).

    Training adds strength times the cross-entropy of sigmoid(A mu) against the bits of each chosen class, where mu is
    the mean of what enters the layer over the rows of that class. The paper learns mu beside the weights and draws the
    activations together around it; here it is the mean of a batch's rows. The p-value is the probability that so many
    of as many fair coins fall as the bits do: they are coins of their own, whatever A and mu are. It looks inside: the
    suspect has to be run where its activations can be read.

    Args:
        bits: of each class.
        classes: how many are chosen, by the key; the smallest p-value is 2^-(bits * classes).
        rows: of each class, on which mu is measured afterwards.
        layer: which of the linear and convolutional layers, not the first, nor another that sees what no training
            moves; the last is -1.
        strength: the paper's lambda_2.
        fit: training from scratch, or fine-tuning where the model is already trained.
        objective: of the training; its first pass through the model is the one that counts.

    Args of `embed` and `verify`, returns: as for `Watermark`; `rows` are training rows of all classes.

    Raises:
        ValueError: fields out of range; a model without that layer, or where it is not called once with each row, or
            where nothing before it is trained; data with fewer classes or rows.
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
        """As `Watermark`."""
        check_key(key)
        if self.classes > len(train.classes):
            raise ValueError(
                f"{train.name} has {len(train.classes)} classes, cannot mark {self.classes}: lower classes"
            )
        carriers = train.sample(self.rows * len(train.classes), int(key.integers("carriers", 2**31, ())))
        marked = copied(model)
        layer = markable(marked, self.layer, train.x[:1], enters=True)
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
        """As `Watermark`."""
        rows, layer = rows_of(marked), twin_of(marked.model, suspect, self.layer)
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
    """What enters a layer of a model, on average over the rows of each class: (K, M), on the CPU; 0 without a row."""
    seen: list[Tensor] = []
    with asked(model), layer.register_forward_pre_hook(lambda _, args: seen.append(args[0].detach().flatten(1).cpu())):
        logits_of(Suspect(model, len(rows.classes)), rows.x)
    entered = torch.cat(seen)
    own = F.one_hot(rows.y.cpu(), len(rows.classes)).to(entered).T  # (K, N)
    return own @ entered / own.sum(1, keepdim=True).clamp(min=1)
