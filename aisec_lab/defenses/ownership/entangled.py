"""Entangled watermarks: triggers that share their features with natural rows, so that a copy learns them too."""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from aisec_lab.attacks.extraction.result import published_probabilities
from aisec_lab.data import Dataset
from aisec_lab.defenses.ownership.entangling import Entangling, Triggers
from aisec_lab.defenses.ownership.key import Key, check_key
from aisec_lab.defenses.ownership.suspect import Suspect
from aisec_lab.defenses.ownership.watermark import WatermarkedModel, claim_rows
from aisec_lab.models import Fit, copied
from aisec_lab.models.asked import asked


@dataclass(frozen=True)
class EntangledWatermark:
    """Stamped rows of a source class are classified as a target class (Jia et al., 2021, arXiv:2002.12200, section 4).

    Training raises the soft nearest neighbour loss between stamped rows and natural rows of the target class. Both then
    use the same units, so a copy that learns the task also learns something of the mark.

    The paper has one trigger, placed by a gradient, and compares success rates by a t-test. Here there are several
    triggers, and the key alone gives their patterns, places, source and target classes. So a target is uniform over the
    other classes, and the p-value is exact for any model that is independent of the key. For each trigger, classes are
    ranked by how much probability stamping moves to them; the test statistic is the sum of the ranks of the targets.
    This finds a weak trace in many triggers, even if no stamped row is classified as its target any more.

    Fine-tuning, pruning and quantisation leave the mark. Extraction leaves a trace at best if it learns probabilities,
    and hardly any if it learns labels.

    Call contract: docs/ownership.md, "Watermarks". The rows of the claim are natural rows without stamps. A suspect
    that publishes probabilities shows more than one that publishes labels.

    Args:
        triggers: number of triggers, at least 1. The smallest p-value is (K - 1)^-triggers.
        size: side of the square stamp, in pixels, which are 0 or 1.
        kappa: weight of the entanglement, at least 0; 0 gives a plain backdoor.
        rows: natural rows of each class that a suspect is queried with, at least 1.
        fit: training from scratch, or fine-tuning of a trained model.

    Raises:
        ValueError: a setting out of range; inputs that are no images or smaller than a stamp; fewer than three classes,
            or one without rows.
    """

    triggers: int = 64
    size: int = 3
    kappa: float = 1.0
    rows: int = 20
    fit: Fit = Fit()

    def __post_init__(self) -> None:
        if min(self.triggers, self.size, self.rows) < 1 or not self.kappa >= 0:
            raise ValueError(f"triggers, size and rows must be positive, kappa at least 0: {self}")

    def embed(self, model: nn.Module, train: Dataset, key: Key, *, generator: torch.Generator) -> WatermarkedModel:
        """Embed the mark; see `Watermark.embed`."""
        check_key(key)
        if len(train.classes) < 3:
            raise ValueError(
                f"{train.name} has {len(train.classes)} classes: a target that is the one other class proves nothing, "
                "so this mark takes three at least"
            )
        triggers = self._triggers(key, train)
        marked = copied(model)
        self.fit(marked, train, Entangling(triggers, train, self.kappa), generator=generator)
        shown = [(train.y == label).nonzero().squeeze(1)[: self.rows] for label in range(len(train.classes))]
        return WatermarkedModel(marked, key, train.subset(torch.cat(shown)))

    def verify(self, suspect: nn.Module, marked: WatermarkedModel) -> float:
        """The p-value of a suspect; see `Watermark.verify`."""
        rows = claim_rows(marked)
        triggers = self._triggers(marked.key, rows)
        rank, possible = self.ranks(suspect, triggers, rows)
        return rank_sum_p_value(rank, possible, triggers.target)

    def ranks(self, suspect: nn.Module, triggers: Triggers, rows: Dataset) -> tuple[Tensor, Tensor]:
        """Rank the classes by how much probability each trigger moves to them.

        Args:
            suspect: a classifier, or an `Oracle`.
            triggers: J triggers; their targets are not used.
            rows: natural rows without stamps.

        Returns:
            For each trigger and class, the number of possible targets that gain less probability (J, K), int64; and
            which classes are possible targets (J, K), bool.
        """
        moved = self._moved(suspect, triggers, rows)  # (J, K)
        possible = torch.arange(moved.shape[1]) != triggers.source[:, None]
        return ((moved[:, None] < moved[:, :, None]) & possible[:, None]).sum(2), possible

    def _triggers(self, key: Key, like: Dataset) -> Triggers:
        """The key's triggers, for images of the shape and the classes of a dataset."""
        if len(like.shape) != 3 or min(like.shape[1:]) < self.size:
            raise ValueError(
                f"stamps of {self.size} pixels a side are for images (C, H, W) of at least that, got {like.shape}"
            )
        return Triggers.of(key, self.triggers, self.size, like.shape, len(like.classes))

    def _moved(self, suspect: nn.Module, triggers: Triggers, rows: Dataset) -> Tensor:
        """How much probability each trigger moves to each class, on average over rows of its source class: (J, K)."""
        of = [(rows.y == label).nonzero().squeeze(1) for label in range(len(rows.classes))]
        which = torch.cat([torch.full((len(of[s]),), j) for j, s in enumerate(triggers.source.tolist())])
        where = torch.cat([of[s] for s in triggers.source.tolist()])
        with asked(suspect):
            seen = Suspect(suspect, len(rows.classes))
            before = published_probabilities(seen, rows.x)[where.cpu()]
            after = published_probabilities(seen, triggers.stamped(rows.x[where], which))
        total = torch.zeros(len(triggers), before.shape[1], dtype=torch.float64)
        total.index_add_(0, which, (after - before).double())
        return total / which.bincount(minlength=len(triggers))[:, None]


def rank_sum_p_value(values: Tensor, possible: Tensor, chosen: Tensor) -> float:
    """The p-value of a sum of values of randomly drawn classes.

    Args:
        values: value of each class in each of J draws (J, K), integers of at least 0.
        possible: the classes that each draw is uniform on (J, K), bool.
        chosen: the classes that were drawn (J,).

    Returns:
        P[sum >= the sum of the chosen classes], by exact convolution; in (0, 1].
    """
    return float(tail_probabilities(values, possible)[int(values.gather(1, chosen[:, None]).sum())])


def tail_probabilities(values: Tensor, possible: Tensor) -> np.ndarray:
    """P[sum >= s] for each sum s from 0 to the largest; `values` and `possible` as in `rank_sum_p_value`."""
    sums = np.ones(1)
    for value, allowed in zip(values.numpy(), possible.numpy(), strict=True):
        counts = np.bincount(value[allowed])
        sums = np.convolve(sums, counts / counts.sum())
    return np.minimum(1.0, sums[::-1].cumsum()[::-1])
