"""Dataset inference: a model is farther from the decision boundary on rows that it was trained on."""

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
MOST = 300  # rows of a kind that are compared: the exact test takes a second for 300 and 16 seconds for 600


@dataclass(frozen=True, eq=False)
class DatasetFingerprint:
    """The claim that a model was trained on private rows, made by `DatasetInference`.

    Args:
        margins: how distances are measured.
        seed: seed of the directions of the distances, the same for every suspect.
        low: the model's smallest distances (F,); a suspect's are scaled so that these are 0, and clipped.
        high: its largest distances (F,), which are scaled to 1.
        judge: classifier of scaled distances (N, F) into public (0) and private (1).
        private: private rows that the judge was not trained on.
        public: public rows that the judge was not trained on.
    """

    margins: Margins
    seed: int
    low: Tensor
    high: Tensor
    judge: nn.Module
    private: Dataset
    public: Dataset

    def confidence(self, suspect: nn.Module, rows: Dataset) -> Tensor:
        """The judge's log-odds that each row is private.

        Args:
            suspect: a classifier, or an `Oracle` if the distances need predicted classes only.
            rows: N rows with their true classes.

        Returns:
            Log-odds (N,), larger for private.
        """
        distances = scaled(_distances(self.margins, suspect, rows, self.seed), self.low, self.high)
        logits = logits_of(self.judge, distances)
        return logits[:, 1] - logits[:, 0]

    def verify(self, suspect: nn.Module) -> float:
        """The p-value of the Mann-Whitney test of "private rows look no more private than public rows".

        P[p <= a] <= a holds for a suspect that is independent of which of the rows are private, for any numbers of rows
        and any distribution of the judge's answers. Ties count against the claim. At most `MOST` rows of each kind are
        compared, the first ones. Two conditions matter:

        - Private and public rows must be a random split of one dataset. If their sources differ, a model that others
          trained on data from the source of the private rows is accused too (Szyller et al., 2022, arXiv:2210.13631).
        - The split is the same for all suspects, so an unlucky one accuses many unrelated models at once.

        A model that others trained on the same private rows is found as well, rightly or not.

        Args:
            suspect: a classifier, or an `Oracle` if the distances need predicted classes only.

        Returns:
            The p-value, in (0, 1].

        Raises:
            ValueError: a suspect that cannot be queried with the rows (see `Suspect`), or an opaque one if the
                distances need its gradient.
        """
        first = (rows.subset(torch.arange(min(len(rows), MOST))) for rows in (self.private, self.public))
        return mann_whitney_p_value(*(self.confidence(suspect, rows).double().numpy() for rows in first))


def mann_whitney_p_value(first: NDArray[np.float64], second: NDArray[np.float64]) -> float:
    """The exact p-value of "`first` (n,) is no larger than `second` (m,)" (Mann & Whitney, 1947); ties favour it."""
    both, first_comes = np.concatenate([first, second]), np.arange(len(first) + len(second))
    rank = np.empty(len(both))
    rank[np.lexsort((first_comes, both))] = first_comes
    own, others = rank[: len(first)], rank[len(first) :]
    return float(mannwhitneyu(own, others, alternative="greater", method="exact").pvalue)


@dataclass(frozen=True)
class DatasetInference:
    """Recognise a model that was trained on private rows (Maini et al., 2021, arXiv:2104.10706, sections 4.2 and 5).

    A judge is trained to tell private from public rows by their distances from the model's decision boundary. Other
    rows of both kinds are then judged by a suspect's distances, and a test compares the answers. The paper uses a
    t-test. With few rows of one kind, many of the other, and skewed answers, its p-value is up to 60 times too small;
    here it is the exact test of Mann and Whitney.

    Args:
        margins: how distances are measured.
        share: share of the rows that train the judge, in (0, 1), drawn at random; the others are compared.
        hidden: units of the judge's hidden layer, at least 1.
        fit: training of the judge.

    Raises:
        ValueError: a setting out of range.
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
        """Make the claim.

        Args:
            model: classifier in evaluation mode, trained on the private rows. It is not changed.
            private: rows that the model was trained on, inputs in [0, 1].
            public: rows from the same source that it was not trained on, split off at random.
            generator: source of all randomness.

        Returns:
            The claim, with the rows that `verify` compares.

        Raises:
            ValueError: fewer than four rows of a kind, inputs outside [0, 1], or a model in training mode.
        """
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
    """Scale distances (N, F) so that `low` (F,) becomes 0 and `high` (F,) becomes 1, clipped to [0, 1]."""
    return ((distances - low) / (high - low).clamp(min=1e-12)).clamp(0, 1)


def _distances(margins: Margins, model: nn.Module, rows: Dataset, seed: int) -> Tensor:
    """Distances (N, F), float32, of rows from a model's boundary, in directions drawn from a seed."""
    with asked(model):
        return margins(
            Suspect(model, len(rows.classes)), rows.x, rows.y, generator=torch.Generator().manual_seed(seed)
        ).float()
