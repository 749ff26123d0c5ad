"""SCAn: do the features of a class form one group of rows, or two?"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from aisec_lab.data import Dataset
from aisec_lab.defenses.poisoning.sanitizer import SanitizerResult, learned_features

STARTS = 10  # random restarts of the split of a class
STEPS = 100  # largest number of steps of one search; it ends long before
ROUNDS = 4  # alternations of splits and covariance
SMALLEST = 0.01  # of the largest eigenvalue: in directions of less variance, a few outliers would outweigh a group
TINY = 1e-12  # keeps the gap of two points finite


@dataclass(frozen=True)
class SCAn:
    """Two groups in a class where one is expected (after Tang et al., 2021, arXiv:1908.00686, section 4).

    The model of the features of a row is its group's mean plus a variation whose covariance all classes share. Features
    are whitened with that covariance, and each class is split into two groups of least variation, as in the paper. Two
    things differ:

    - The paper estimates the covariance on clean rows. Here it is estimated on the training set, from the variation
      within the groups, so that poison does not inflate it. Directions of little variance are left out.
    - The paper tests a class by a likelihood ratio, which grows with the size of a group and misses small groups. Here
      a class is suspicious if the means of its groups are far apart in the groups' own standard deviations along the
      line between them: sqrt(2) |m1 - m0| / sqrt(s0^2 + s1^2) (Ashman et al., 1994, AJ 108, eq. 1). For the two halves
      of a normal distribution this is 2.65.

    The smaller group is taken for the poison. So if more than half of a class is poisoned, the wrong rows are flagged.
    A class with two natural forms is flagged too.

    Call contract: docs/backdoor-defenses.md, "Sanitizers"; the call needs a model, and `generator` draws the starts of
    the splits. The score is the evidence for two groups in the class times the probability that the row belongs to the
    smaller one, if both are normal with the shared covariance and equally large. The evidence is n0 n1 / (n0 + n1)
    times the excess of the squared gap over that of the median class: the paper's likelihood ratio in the groups' own
    units.

    Args:
        gap: a class with a larger distance of its groups is suspicious, and its smaller group is flagged; above 0.

    Raises:
        ValueError: no model, or a gap that is not positive.
    """

    gap: float = 5.0

    def __post_init__(self) -> None:
        if not self.gap > 0:
            raise ValueError(f"gap must be positive, in standard deviations, got {self.gap}")

    def __call__(
        self, dataset: Dataset, *, model: nn.Module | None = None, generator: torch.Generator
    ) -> SanitizerResult:
        seen = learned_features(dataset, model, "SCAn")
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
            if not small[rows].any():  # one group: none of its rows is more suspicious than another
                score[rows] = score.min()
        return SanitizerResult(score, flagged)


def whiten(seen: Tensor, group: Tensor) -> Tensor:
    """Features (N, D) whitened with the covariance of their differences from the means of their groups (N,)."""
    _, index = group.unique(return_inverse=True)
    means = torch.stack([seen[index == number].mean(0) for number in range(int(index.max()) + 1)])
    spread = seen - means[index]
    values, vectors = torch.linalg.eigh(spread.T @ spread / len(spread))
    kept = values > max(SMALLEST * values[-1].item(), TINY)
    return seen @ (vectors[:, kept] / values[kept].sqrt())


def split(z: Tensor, generator: torch.Generator) -> Tensor:
    """Split rows z (N, D) into two groups with the least squared distances from their means.

    Lloyd's algorithm, started from the best cut along the first principal component and from random pairs of rows, the
    second drawn with a probability in proportion to its squared distance from the first (Arthur & Vassilvitskii, 2007).

    Returns:
        The smaller group, (N,), bool; empty if all rows are equal.
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
            other = best_cut(centred)
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


def best_cut(centred: Tensor) -> Tensor:
    """The best cut along the first principal component: the rows on one side of it, (N,), bool."""
    _, _, directions = torch.linalg.svd(centred, full_matrices=False)
    along, order = (centred @ directions[0]).sort()
    n = torch.arange(1, len(along))
    between = (
        along.cumsum(0)[:-1].square() * len(along) / (n * (len(along) - n))
    )  # reduction of the squared distances by a cut
    other = torch.ones(len(along), dtype=torch.bool)
    other[order[: int(between.argmax()) + 1]] = False
    return other


def nearer(z: Tensor, to: Tensor, than: Tensor) -> Tensor:
    """Which rows z (N, D) are nearer to the point `to` than to the point `than`, (N,), bool."""
    return (z - to).square().sum(1) < (z - than).square().sum(1)


def gap(z: Tensor, small: Tensor) -> Tensor:
    """Distance between the means of the rows z (N, D) that are `small` and of the others, in the groups' standard
    deviations along the line between them; 0 if a group is empty."""
    if small.all() or not small.any():
        return torch.zeros((), dtype=z.dtype)
    start, end = z[~small].mean(0), z[small].mean(0)
    far = (end - start).norm()
    along = (z - start) @ (end - start) / far
    both = (along[small].var(correction=0) + along[~small].var(correction=0)) / 2
    return far / both.sqrt().clamp(min=TINY)
