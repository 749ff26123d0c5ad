"""A mark that a model cannot use its own task without: triggers that share their features with natural rows."""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from aisec_lab.attacks.extraction.result import published_probabilities
from aisec_lab.data import Dataset
from aisec_lab.defenses.ownership.entangling import Entangling, Triggers
from aisec_lab.defenses.ownership.key import Key, check_key
from aisec_lab.defenses.ownership.suspect import Suspect
from aisec_lab.defenses.ownership.watermark import WatermarkedModel, rows_of
from aisec_lab.models import Fit, copied
from aisec_lab.models.asked import asked


@dataclass(frozen=True)
class EntangledWatermark:
    """Stamped rows of a source class that answer with a target class (Jia et al., 2021, arXiv:2002.12200, section 4).

    The soft nearest neighbour loss is raised between stamped rows and natural ones of the target class, so that both go
    through the same units and a copy that learns the task learns something of the mark.

    The paper has one trigger, placed by gradient, and compares success rates with a t-test. Here there are `triggers`
    of them, whose patterns, places, sources and targets follow from the key alone: nothing is fitted to the target, so
    that it is uniform over the other classes given all else, and the p-value is exact for any model that is independent
    of the key. For each trigger, classes are ranked by how much of the suspect's probability stamping moves to them;
    the p-value is that of so high a sum of the targets' ranks. So a faint trace in many triggers is seen, where no
    stamped row is answered with its target any more. Tuning, pruning and rounding leave the mark; extraction leaves a
    trace at best, where it learns probabilities, and none to speak of where it learns labels.

    Args:
        triggers: how many; the smallest p-value is (K - 1)^-triggers.
        size: side of a stamp, pixels of 0 and 1.
        kappa: weight of the entanglement; 0 is a plain backdoor.
        rows: natural rows of a class that a suspect is asked about.
        fit: training from scratch, or fine-tuning where the model is already trained.

    Args of `embed` and `verify`, returns: as for `Watermark`; `rows` of the claim are natural ones, unstamped. A
    suspect that publishes probabilities shows more than one that publishes labels.

    Raises:
        ValueError: fields out of range; inputs that are no images or smaller than a stamp; fewer than three classes, or
            one without a row.
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
        """As `Watermark`."""
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
        """As `Watermark`."""
        rows = rows_of(marked)
        triggers = self._triggers(marked.key, rows)
        rank, possible = self.ranks(suspect, triggers, rows)
        return chance(rank, possible, triggers.target)

    def ranks(self, suspect: nn.Module, triggers: Triggers, rows: Dataset) -> tuple[Tensor, Tensor]:
        """Of the classes that each trigger's target may be, how many a suspect is moved to less than to each (J, K).

        Args:
            suspect: as for `verify`.
            triggers: J of them; their targets are not looked at.
            rows: natural ones, unstamped.

        Returns:
            These counts, int64; and which classes may be the target, bool.
        """
        moved = self._moved(suspect, triggers, rows)  # (J, K)
        possible = torch.arange(moved.shape[1]) != triggers.source[:, None]
        return ((moved[:, None] < moved[:, :, None]) & possible[:, None]).sum(2), possible

    def _triggers(self, key: Key, like: Dataset) -> Triggers:
        if len(like.shape) != 3 or min(like.shape[1:]) < self.size:
            raise ValueError(
                f"stamps of {self.size} pixels a side are for images (C, H, W) of at least that, got {like.shape}"
            )
        return Triggers.of(key, self.triggers, self.size, like.shape, len(like.classes))

    def _moved(self, suspect: nn.Module, triggers: Triggers, rows: Dataset) -> Tensor:
        """How much probability, on average over source rows, each trigger moves to each class (J, K)."""
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


def chance(values: Tensor, possible: Tensor, chosen: Tensor) -> float:
    """The probability that classes drawn at random have so high a sum of values as those that were drawn.

    Args:
        values: of each class in each of J draws (J, K), integers from 0 up.
        possible: from which classes each draw is, uniformly (J, K), bool.
        chosen: the classes that were drawn (J,).

    Returns:
        P[sum >= the chosen one's], by exact convolution; in (0, 1].
    """
    return float(tails(values, possible)[int(values.gather(1, chosen[:, None]).sum())])


def tails(values: Tensor, possible: Tensor) -> np.ndarray:
    """P[sum >= s] for every sum s from 0 up to the largest. Args: as for `chance`."""
    sums = np.ones(1)
    for value, allowed in zip(values.numpy(), possible.numpy(), strict=True):
        counts = np.bincount(value[allowed])
        sums = np.convolve(sums, counts / counts.sum())
    return np.minimum(1.0, sums[::-1].cumsum()[::-1])
