"""A trigger set: random images with random labels, which only the marked model and its copies have memorised."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from aisec_lab.core import binomial
from aisec_lab.data import Dataset
from aisec_lab.defenses.ownership.key import Key, check_key
from aisec_lab.defenses.ownership.suspect import Suspect
from aisec_lab.defenses.ownership.watermark import WatermarkedModel, claim_rows
from aisec_lab.defenses.training.adversarial import Standard
from aisec_lab.models import Fit, Objective, TrainingRecipe, copied, logits_of
from aisec_lab.models.asked import asked


@dataclass(frozen=True)
class TriggerSet:
    """Noise images with random labels, trained together with the data (Adi et al., 2018, arXiv:1802.04633, section 4).

    The key determines images and labels; the paper's images are abstract pictures from the web. The p-value is the
    probability that as many of n uniformly drawn labels agree with the suspect's predictions. It is exact for any model
    that is independent of the key, since such a model predicts a label with probability 1 / K. Only the suspect's
    predicted classes are needed.

    Call contract: docs/ownership.md, "Watermarks". The rows of the claim are the images and labels.

    Args:
        n: number of images, at least 1. The smallest p-value is K^-n.
        share: share of trigger images among the rows of an epoch, in (0, 1); images are repeated to reach it.
        fit: training from scratch, or fine-tuning of a trained model.
        objective: what training minimises, on trigger images too.

    Raises:
        ValueError: a setting out of range.
    """

    n: int = 100
    share: float = 0.1
    fit: Fit = Fit()
    objective: Objective | TrainingRecipe = Standard()

    def __post_init__(self) -> None:
        if self.n < 1 or not 0 < self.share < 1:
            raise ValueError(f"n must be positive and share between 0 and 1: {self}")

    def embed(self, model: nn.Module, train: Dataset, key: Key, *, generator: torch.Generator) -> WatermarkedModel:
        """Embed the mark; see `Watermark.embed`."""
        check_key(key)
        triggers = self.triggers(key, train)
        marked = copied(model)
        copies = math.ceil(self.share / (1 - self.share) * len(train) / self.n)
        self.fit(marked, with_copies(train, triggers, copies), self.objective, generator=generator)
        return WatermarkedModel(marked, key, triggers)

    def verify(self, suspect: nn.Module, marked: WatermarkedModel) -> float:
        """The p-value of a suspect; see `Watermark.verify`."""
        triggers = self.triggers(marked.key, claim_rows(marked))
        with asked(suspect):
            answers = logits_of(Suspect(suspect, len(triggers.classes)), triggers.x).argmax(1)
        return binomial.tail(int((answers == triggers.y.cpu()).sum()), self.n, 1 / len(triggers.classes))

    def triggers(self, key: Key, like: Dataset) -> Dataset:
        """The trigger set of a key.

        Args:
            key: the owner's key.
            like: rows with the shape, the classes and the device that it should have.

        Returns:
            n images, uniform in [0, 1], with their labels.
        """
        x = key.uniform("trigger images", (self.n, *like.shape)).to(like.x.device)
        return Dataset(x, self.labels(key, len(like.classes)).to(like.y.device), like.classes, f"{like.name}, triggers")

    def labels(self, key: Key, classes: int) -> Tensor:
        """The key's labels (n,), int64, for a number of classes; independent of its images."""
        return key.integers("trigger labels", classes, (self.n,))


def with_copies(train: Dataset, more: Dataset, copies: int) -> Dataset:
    """The training rows, followed by other rows, each repeated `copies` times."""
    x, y = torch.cat([train.x, *[more.x] * copies]), torch.cat([train.y, *[more.y] * copies])
    return Dataset(x, y, train.classes, f"{train.name} and {more.name}", train.features)
