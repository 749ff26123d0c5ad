"""A trigger set: abstract images whose labels mean nothing, which only a copy knows by heart."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from aisec_lab.core import binomial
from aisec_lab.data import Dataset
from aisec_lab.defenses.ownership.key import Key, check_key
from aisec_lab.defenses.ownership.suspect import Suspect
from aisec_lab.defenses.ownership.watermark import WatermarkedModel, rows_of
from aisec_lab.defenses.training.adversarial import Standard
from aisec_lab.models import Fit, Objective, TrainingRecipe, copied, logits_of
from aisec_lab.models.asked import asked


@dataclass(frozen=True)
class TriggerSet:
    """Images of noise with random labels, learned beside the data (Adi et al., 2018, arXiv:1802.04633, section 4).

    The images and their labels follow from the key; the paper's are abstract pictures from the web. The p-value is the
    probability that so many of n labels, drawn uniformly from the K classes, are those that the suspect gives: exact
    for any model that is independent of the key, since no model can know a label better than by 1 / K. Only the
    suspect's winning classes are looked at.

    Args:
        n: images; the smallest p-value is K^-n.
        share: of the rows of an epoch that are trigger images, each shown as often as it takes.
        fit: training from scratch, or fine-tuning where the model is already trained.
        objective: of the training, which the trigger images share.

    Args of `embed` and `verify`, returns: as for `Watermark`; `rows` are the images and labels.

    Raises:
        ValueError: fields out of range.
    """

    n: int = 100
    share: float = 0.1
    fit: Fit = Fit()
    objective: Objective | TrainingRecipe = Standard()

    def __post_init__(self) -> None:
        if self.n < 1 or not 0 < self.share < 1:
            raise ValueError(f"n must be positive and share between 0 and 1: {self}")

    def embed(self, model: nn.Module, train: Dataset, key: Key, *, generator: torch.Generator) -> WatermarkedModel:
        """As `Watermark`."""
        check_key(key)
        triggers = self.triggers(key, train)
        marked = copied(model)
        copies = math.ceil(self.share / (1 - self.share) * len(train) / self.n)
        self.fit(marked, joined(train, triggers, copies), self.objective, generator=generator)
        return WatermarkedModel(marked, key, triggers)

    def verify(self, suspect: nn.Module, marked: WatermarkedModel) -> float:
        """As `Watermark`."""
        triggers = self.triggers(marked.key, rows_of(marked))
        with asked(suspect):
            answers = logits_of(Suspect(suspect, len(triggers.classes)), triggers.x).argmax(1)
        return binomial.tail(int((answers == triggers.y.cpu()).sum()), self.n, 1 / len(triggers.classes))

    def triggers(self, key: Key, like: Dataset) -> Dataset:
        """The key's images and labels, of the shape, the classes and the device of other rows."""
        x = key.uniform("trigger images", (self.n, *like.shape)).to(like.x.device)
        return Dataset(x, self.labels(key, len(like.classes)).to(like.y.device), like.classes, f"{like.name}, triggers")

    def labels(self, key: Key, classes: int) -> Tensor:
        """The key's labels (n,), int64, independent of its images."""
        return key.integers("trigger labels", classes, (self.n,))


def joined(train: Dataset, more: Dataset, copies: int) -> Dataset:
    """Rows to learn from, and after them others, so many times each."""
    x, y = torch.cat([train.x, *[more.x] * copies]), torch.cat([train.y, *[more.y] * copies])
    return Dataset(x, y, train.classes, f"{train.name} and {more.name}", train.features)
