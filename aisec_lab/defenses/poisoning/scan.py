"""Untangling: is a class of what a model has learned one group of rows, or two?"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from aisec_lab.data import Dataset
from aisec_lab.defenses.poisoning.sanitizer import SanitizerResult, learned

STARTS = 10  # of the search for the best split of a class
STEPS = 100  # of one such search, which ends long before
ROUNDS = 4  # of splits and covariances in turn
SMALLEST = 0.01  # of the largest eigenvalue: in directions of less, a few rows far out would outweigh a group
TINY = 1e-12  # keeps the gap of two points finite


@dataclass(frozen=True)
class SCAn:
    """Two groups in a class where one is expected (after Tang et al., 2021, arXiv:1908.00686, section 4: SCAn).

    A row's features are its group's mean plus a variation whose covariance all classes share. In the units of that
    covariance each class is split in two so that the variation is least, as in the paper. It differs in two places:

    - The paper knows the covariance from clean rows. Here it is that of the training set, estimated anew from the
      variation that the splits leave, so that poison does not hide in it; directions of little variation are left out.
    - The paper's test of a class, a likelihood ratio, grows with the rows of a group, and lets a small one pass. Here a
      class is suspicious where the means of its groups lie far apart in the groups' own standard deviations along the
      line between them: sqrt(2) |m1 - m0| / sqrt(s0^2 + s1^2) (Ashman et al., 1994, AJ 108, eq. 1). For the halves of
      a normal law that is 2.65.

    The smaller group is taken for the poison: where more than half of a class is, the wrong rows are flagged. A class
    that has two natural forms is flagged too.

    Args:
        gap: a class with a larger one is suspicious, and its smaller group flagged.

    Args of the call: as for `Sanitizer`, with a model; `generator` draws the starts of the splits.

    Returns:
        The score is the evidence for two groups in the class times the probability that a row is of the smaller one,
        were both normal with the shared covariance and equally large. The evidence is n0 n1 / (n0 + n1) times what the
        squared gap has more than that of the median class: the paper's likelihood ratio, in the groups' own units.

    Raises:
        ValueError: no model, a gap that is not positive.
    """

    gap: float = 5.0

    def __post_init__(self) -> None:
        if not self.gap > 0:
            raise ValueError(f"gap must be positive, in standard deviations, got {self.gap}")

    def __call__(
        self, dataset: Dataset, *, model: nn.Module | None = None, generator: torch.Generator
    ) -> SanitizerResult:
        seen = learned(dataset, model, "Untangling")
        classes = [(dataset.y == c).nonzero().squeeze(1) for c in dataset.y.unique()]
        group = dataset.y
        for _ in range(ROUNDS):
            whitened = whiten(seen, group)
            small = torch.zeros(len(dataset), dtype=torch.bool)
            for rows in classes:
                small[rows] = split(whitened[rows], generator)
            group = 2 * dataset.y + small
        score, flagged = torch.zeros(len(dataset), dtype=seen.dtype), torch.zeros(len(dataset), dtype=torch.bool)
        apart = [gap(whitened[rows], small[rows]) for rows in classes]
        usual = torch.stack(apart).median()
        for rows, far in zip(classes, apart, strict=True):
            z, part = whitened[rows], small[rows]
            if part.any():
                nearness = (z - z[~part].mean(0)).square().sum(1) - (z - z[part].mean(0)).square().sum(1)
                evidence = (far.square() - usual.square()) * part.sum() * (~part).sum() / len(rows)
                score[rows] = evidence * (nearness / 2).sigmoid()
                flagged[rows] = part & (far > self.gap)
        for rows in classes:
            if not small[rows].any():  # one group: no row of it is more suspicious than any other
                score[rows] = score.min()
        return SanitizerResult(score, flagged)


def whiten(seen: Tensor, group: Tensor) -> Tensor:
    """Features (N, D) in the units of the covariance of their differences from the means of groups (N,)."""
    _, index = group.unique(return_inverse=True)
    means = torch.stack([seen[index == number].mean(0) for number in range(int(index.max()) + 1)])
    spread = seen - means[index]
    values, vectors = torch.linalg.eigh(spread.T @ spread / len(spread))
    kept = values > max(SMALLEST * values[-1].item(), TINY)
    return seen @ (vectors[:, kept] / values[kept].sqrt())


def split(z: Tensor, generator: torch.Generator) -> Tensor:
    """The smaller (N,), bool, of two groups of rows z (N, D) with the least squared distance to their means.

    Lloyd's algorithm, from the best cut across the first principal component and from pairs of rows, the second drawn
    by its squared distance to the first (Arthur & Vassilvitskii, 2007); empty where all rows are alike.
    """
    centred = z - z.mean(0)
    best, least = torch.zeros(len(z), dtype=torch.bool), float(centred.square().sum())
    if len(z) < 2 or least == 0:
        return best
    for start in range(STARTS):
        if start:
            first = z[int(torch.randint(len(z), (), generator=generator))]
            chances = (z - first).square().sum(1)
            other = nearer(z, z[int(torch.multinomial(chances, 1, generator=generator))], first)
        else:
            other = cut(centred)
        for _ in range(STEPS):
            if other.all() or not other.any():
                break
            former, other = other, nearer(z, z[other].mean(0), z[~other].mean(0))
            if torch.equal(former, other):
                left = sum(float((part - part.mean(0)).square().sum()) for part in (z[other], z[~other]))
                if left < least:
                    best, least = other, left
                break
    return best if 2 * best.sum() <= len(z) else ~best


def cut(centred: Tensor) -> Tensor:
    """The rows (N,), bool, beyond the point of the first principal component where the groups' means differ most."""
    _, _, directions = torch.linalg.svd(centred, full_matrices=False)
    along, order = (centred @ directions[0]).sort()
    n = torch.arange(1, len(along))
    between = along.cumsum(0)[:-1].square() * len(along) / (n * (len(along) - n))  # squared distance that a cut saves
    other = torch.ones(len(along), dtype=torch.bool)
    other[order[: int(between.argmax()) + 1]] = False
    return other


def nearer(z: Tensor, to: Tensor, than: Tensor) -> Tensor:
    """Which rows z (N, D) lie nearer to one point than to another, (N,), bool."""
    return (z - to).square().sum(1) < (z - than).square().sum(1)


def gap(z: Tensor, small: Tensor) -> Tensor:
    """How far the mean of the rows z (N, D) that are `small` lies from the others', in the two groups' standard
    deviations along the line between them; 0 where there are no two groups."""
    if small.all() or not small.any():
        return torch.zeros((), dtype=z.dtype)
    start, end = z[~small].mean(0), z[small].mean(0)
    far = (end - start).norm()
    along = (z - start) @ (end - start) / far
    both = (along[small].var(correction=0) + along[~small].var(correction=0)) / 2
    return far / both.sqrt().clamp(min=TINY)
