"""Dataset inference: a model that comes from private rows keeps a larger distance from them than from others."""

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.stats import mannwhitneyu
from torch import Tensor, nn

from aisec_lab.attacks.evasion.attack import check
from aisec_lab.data import Dataset
from aisec_lab.defenses.ownership.margins import BlindWalk, Margins
from aisec_lab.defenses.ownership.suspect import Suspect
from aisec_lab.defenses.training.adversarial import Standard
from aisec_lab.models import MLP, Fit, logits_of
from aisec_lab.models.asked import asked

KINDS = ("public", "private")
SEEDS = 2**62
MOST = 300  # rows of a kind that are compared: the exact test of so many takes a second, and of twice as many 16


@dataclass(frozen=True, eq=False)
class DatasetFingerprint:
    """The claim that a model comes from private rows.

    Args:
        margins: how distances are measured.
        seed: of their directions, the same for every suspect.
        low, high: the model's smallest and largest distances (F,), to which a suspect's are scaled and cut.
        judge: a classifier of scaled distances (N, F) into public and private.
        private, public: the rows that are compared, none of which the judge has learned from.
    """

    margins: Margins
    seed: int
    low: Tensor
    high: Tensor
    judge: nn.Module
    private: Dataset
    public: Dataset

    def confidence(self, suspect: nn.Module, rows: Dataset) -> Tensor:
        """How private each row looks in a suspect's distances (N,): the judge's log-odds."""
        distances = scaled(_distances(self.margins, suspect, rows, self.seed), self.low, self.high)
        logits = logits_of(self.judge, distances)
        return logits[:, 1] - logits[:, 0]

    def verify(self, suspect: nn.Module) -> float:
        """The p-value of the Mann-Whitney test that private rows look no more private than public ones.

        P[p <= a] <= a holds for a suspect that is independent of which of these rows are private, whatever the numbers
        of rows and the law of what the judge says of them; ties count against the claim. Of more rows of a kind than
        `MOST`, the first ones are compared. The rows must have been split at random. What chance does to a split it
        does to all suspects alike: an unlucky one accuses many unrelated models at once. Split in another way it
        accuses as a rule: a model made by others of rows from where the private ones are from, where the public ones
        are from elsewhere, is farther from the private too (Szyller et al., 2022, arXiv:2210.13631). Models that others
        have trained on the same private rows are found as well, rightly or not.

        Args:
            suspect: a classifier, or an `Oracle` where the distances need winning classes only.

        Raises:
            ValueError: a suspect that can't be asked (`Suspect`); an opaque one, where distances need its gradient.
        """
        first = (rows.subset(torch.arange(min(len(rows), MOST))) for rows in (self.private, self.public))
        return outranks(*(self.confidence(suspect, rows).double().numpy() for rows in first))


def outranks(first: NDArray[np.float64], second: NDArray[np.float64]) -> float:
    """The exact p-value of "these (n,) are no larger than those (m,)" (Mann & Whitney, 1947); equal is smaller."""
    both, first_comes = np.concatenate([first, second]), np.arange(len(first) + len(second))
    rank = np.empty(len(both))
    rank[np.lexsort((first_comes, both))] = first_comes
    own, others = rank[: len(first)], rank[len(first) :]
    return float(mannwhitneyu(own, others, alternative="greater", method="exact").pvalue)


@dataclass(frozen=True)
class DatasetInference:
    """Recognise what was learned from private rows, with nothing embedded (Maini et al., 2021, arXiv:2104.10706).

    Sections 4.2 and 5: distances to the model's boundary, of private and of public rows, teach a judge to tell these
    apart; other rows of both kinds are then judged by a suspect's distances, and a test compares them. The paper's is a
    t-test, whose p-value is up to 60 times too small where there are few rows of one kind, many of the other, and the
    judge's answers are skewed; here it is the test of Mann and Whitney, which is exact.

    Args:
        margins: how distances are measured.
        share: of the rows that teach the judge, the first ones in a random order; the others are compared.
        hidden: units of the judge's one hidden layer.
        fit: how it is trained.

    Args of `make`:
        model: classifier in evaluation mode, trained on the private rows.
        private: rows that the model has learned from.
        public: rows that it has not, from the same source, split off at random.
        generator: source of all randomness.

    Raises:
        ValueError: fields out of range; fewer than four rows of a kind; what an attack refuses of a model and inputs.
    """

    margins: Margins = BlindWalk()
    share: float = 0.5
    hidden: int = 100
    fit: Fit = Fit(epochs=20, learning_rate=0.01)

    def __post_init__(self) -> None:
        if not 0 < self.share < 1 or self.hidden < 1:
            raise ValueError(f"share must lie between 0 and 1, hidden be positive: {self}")

    def make(
        self, model: nn.Module, private: Dataset, public: Dataset, *, generator: torch.Generator
    ) -> DatasetFingerprint:
        """The claim; the model stays as it is."""
        for rows in (private, public):
            check(model, rows.x, rows.y)
            if len(rows) < 4:
                raise ValueError(f"a judge and a test need two rows of a kind each, got {len(rows)}: give more rows")
        seed = int(torch.randint(SEEDS, (), generator=generator))
        taught, kept = [], []
        for rows in (public, private):
            order = torch.randperm(len(rows), generator=generator)
            cut = min(max(2, round(self.share * len(rows))), len(rows) - 2)
            taught.append(rows.subset(order[:cut]))
            kept.append(rows.subset(order[cut:]))
        distances = [_distances(self.margins, model, rows, seed) for rows in taught]
        both = torch.cat(distances)
        low, high = both.amin(0), both.amax(0)
        kind = torch.cat([torch.full((len(part),), number) for number, part in enumerate(distances)])
        judge = MLP((self.hidden,))((both.shape[1],), len(KINDS), generator=generator)
        self.fit(judge, Dataset(scaled(both, low, high), kind, KINDS, "distances"), Standard(), generator=generator)
        return DatasetFingerprint(self.margins, seed, low, high, judge, private=kept[1], public=kept[0])


def scaled(distances: Tensor, low: Tensor, high: Tensor) -> Tensor:
    """Distances (N, F) in [0, 1]: 0 at `low` (F,) and below, 1 at `high` (F,) and above."""
    return ((distances - low) / (high - low).clamp(min=1e-12)).clamp(0, 1)


def _distances(margins: Margins, model: nn.Module, rows: Dataset, seed: int) -> Tensor:
    with asked(model):
        return margins(
            Suspect(model, len(rows.classes)), rows.x, rows.y, generator=torch.Generator().manual_seed(seed)
        ).float()
