"""Deep Partition Aggregation: a vote of models with disjoint training sets, and its certificate."""

import hashlib
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from aisec_lab.data import Dataset
from aisec_lab.defenses.training.adversarial import Standard
from aisec_lab.defenses.training.ensembles import EnsembleMembers
from aisec_lab.models import Architecture, Fit, Objective, TrainingRecipe


class VotingModel(EnsembleMembers):
    """A majority vote: a classifier whose logits are the numbers of votes, without a gradient.

    Levine & Feizi (2021, arXiv:2006.14768, section 3). Ties go to the smaller class, as in `argmax`, also within the
    logits of a member.

    Args:
        members: classifiers of the same task, in evaluation mode.
    """

    def forward(self, x: Tensor) -> Tensor:
        """Votes (N, K), whole numbers as floats, for inputs (N, *input)."""
        votes: Tensor = sum(F.one_hot(z.argmax(1), z.shape[1]) for z in (member(x) for member in self.members))  # type: ignore[assignment]
        return votes.to(x.dtype)


@dataclass(frozen=True)
class DPA:
    """Train one model on each of k disjoint parts, and let them vote (Levine & Feizi, 2021, arXiv:2006.14768, sec. 3).

    The part of a row depends on a hash of its input alone, so a changed label affects one model only. Each model
    depends on the rows of its part alone, not on their order or on other parts. The certificate of `certified_rows`
    rests on this.

    Args:
        architecture: of each model.
        fit: training of each model. Parts are small, so take many epochs and a small batch.
        objective: what each training minimises.
        partitions: number of parts k, at least 1. More parts tolerate more changed rows, but each model is less
            accurate.

    Args of the call:
        dataset: the training set, poisoned or not.
        generator: draws one number, from which the seeds of the models follow.

    Returns:
        The vote, in evaluation mode. The model of an empty part is untrained.

    Raises:
        ValueError: fewer than one part.
    """

    architecture: Architecture
    fit: Fit
    objective: Objective | TrainingRecipe = Standard()
    partitions: int = 50

    def __post_init__(self) -> None:
        if self.partitions < 1:
            raise ValueError(f"partitions must be positive, got {self.partitions}")

    def __call__(self, dataset: Dataset, *, generator: torch.Generator) -> VotingModel:
        first = int(torch.randint(2**31, (), generator=generator))
        members = []
        for number, rows in enumerate(parts(dataset, self.partitions)):
            own = torch.Generator().manual_seed(first + number)
            member = self.architecture(dataset.shape, len(dataset.classes), generator=own).eval()
            if len(rows):
                self.fit(member, dataset.subset(rows), self.objective, generator=own)
            members.append(member)
        return VotingModel(members)


def parts(dataset: Dataset, k: int) -> list[Tensor]:
    """The row numbers of each of k parts, chosen by the SHA-256 of the input; sorted by that hash, then by label."""
    digests = [hashlib.sha256(row.numpy().tobytes()).digest() for row in dataset.x.cpu().contiguous()]
    order = sorted(range(len(dataset)), key=lambda row: (digests[row], int(dataset.y[row])))
    place = [int.from_bytes(digests[row][:8], "big") % k for row in range(len(dataset))]
    found: list[list[int]] = [[] for _ in range(k)]
    for row in order:
        found[place[row]].append(row)
    return [torch.tensor(rows, dtype=torch.int64) for rows in found]


def certified_rows(votes: Tensor, touched: int = 1) -> Tensor:
    """How many training rows can be changed arbitrarily without changing a prediction.

    Levine & Feizi (2021, eq. 10): the lead over each other class, minus one if a tie would go to that class, shrinks by
    at most two for each changed part.

    Args:
        votes: logits of a `VotingModel` (N, K), whole numbers, K at least 2.
        touched: largest number of parts that a changed row affects: 1 if its label is flipped or it is inserted or
            deleted, 2 if it is replaced by another row.

    Returns:
        Numbers of training rows (N,), int64. They hold for wrong predictions too: for a certified accuracy, count only
        the correct ones.

    Raises:
        ValueError: votes that are no whole numbers or are of one class, or `touched` other than 1 or 2.
    """
    if votes.ndim != 2 or votes.shape[1] < 2 or not torch.equal(votes, votes.round()):
        raise ValueError(f"votes are whole numbers (N, K) with K >= 2, got {votes.dtype} {tuple(votes.shape)}")
    if touched not in (1, 2):
        raise ValueError(f"a changed row touches 1 or 2 parts, got {touched}")
    whole = votes.round().long()
    winner = whole.argmax(1, keepdim=True)  # of tied classes, the smaller one
    ahead = (torch.arange(whole.shape[1], device=whole.device) < winner).long()  # wins a tie with the winner
    lead = whole.gather(1, winner) - whole - ahead
    return lead.scatter(1, winner, len(votes) + int(whole.sum())).amin(1) // 2 // touched
