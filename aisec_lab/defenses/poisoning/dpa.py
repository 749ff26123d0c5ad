"""Deep Partition Aggregation: a vote of models that have no training row in common, and what it proves."""

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
    """How many members vote for each class: a classifier whose logits are counts, without a gradient.

    A tie goes to the smaller class, as `argmax` has it, in a member's own logits too.
    """

    def forward(self, x: Tensor) -> Tensor:
        """Votes (N, K) for inputs (N, *input), floats."""
        votes: Tensor = sum(F.one_hot(z.argmax(1), z.shape[1]) for z in (member(x) for member in self.members))  # type: ignore[assignment]
        return votes.to(x.dtype)


@dataclass(frozen=True)
class DPA:
    """Models of disjoint parts of the training set, and their vote (Levine & Feizi, 2021, arXiv:2006.14768, section 3).

    A row's part is given by a hash of its input alone, so that another label leaves it where it is, and touches one
    model. What a model becomes depends on nothing but the rows of its part: not on their order in the set, nor on the
    other parts. That is what `certified_rows` rests on.

    Args:
        architecture, fit, objective: of each model. With few rows a part, many epochs and a small batch.
        partitions: k, how many parts there are; more of them bear more changed rows, and each model is worse.

    Args of the call:
        dataset: the training set, poisoned or not.
        generator: draws one number, from which the models' seeds come.

    Returns:
        A `VotingModel` in evaluation mode. A part without rows has its untrained model.

    Raises:
        ValueError: no partitions.
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
    """The row numbers of each of k parts, by the sha256 of a row's input; in a part, by that hash, then by label."""
    digests = [hashlib.sha256(row.numpy().tobytes()).digest() for row in dataset.x.cpu().contiguous()]
    order = sorted(range(len(dataset)), key=lambda row: (digests[row], int(dataset.y[row])))
    place = [int.from_bytes(digests[row][:8], "big") % k for row in range(len(dataset))]
    found: list[list[int]] = [[] for _ in range(k)]
    for row in order:
        found[place[row]].append(row)
    return [torch.tensor(rows, dtype=torch.int64) for rows in found]


def certified_rows(votes: Tensor, touched: int = 1) -> Tensor:
    """How many training rows can be changed, whatever the changes, without changing a prediction.

    Levine & Feizi (2021, eq. 10): of the lead over each other class, one less where a tie would go to that class, a
    changed part takes two at most.

    Args:
        votes: of a `VotingModel` (N, K), whole numbers, with at least two classes.
        touched: how many parts a changed row touches at most: 1 where its label is flipped, or it is inserted or
            deleted; 2 where it is replaced by another row.

    Returns:
        Numbers of rows (N,), int64. The prediction need not be right: for a certified accuracy count the right ones.

    Raises:
        ValueError: votes that are no whole numbers or are of one class, `touched` other than 1 or 2.
    """
    if votes.ndim != 2 or votes.shape[1] < 2 or not torch.equal(votes, votes.round()):
        raise ValueError(f"votes are whole numbers (N, K) with K >= 2, got {votes.dtype} {tuple(votes.shape)}")
    if touched not in (1, 2):
        raise ValueError(f"a changed row touches 1 or 2 parts, got {touched}")
    whole = votes.round().long()
    winner = whole.argmax(1, keepdim=True)  # the smaller class of those that tie
    ahead = (torch.arange(whole.shape[1], device=whole.device) < winner).long()  # wins a tie with the winner
    lead = whole.gather(1, winner) - whole - ahead
    return lead.scatter(1, winner, len(votes) + int(whole.sum())).amin(1) // 2 // touched
