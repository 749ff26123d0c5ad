"""Deep Partition Aggregation: its parts, its certificate by brute force, and label flips that never pass below it."""

from itertools import product

import pytest
import torch
from torch import nn

from aisec_lab.attacks import InfluenceLabelFlips, LabelFlips
from aisec_lab.data import Dataset
from aisec_lab.defenses.poisoning.dpa import DPA, VotingModel, certified_rows, parts
from aisec_lab.models import MLP, Fit, logits_of

DEFENSE = DPA(MLP((32,)), Fit(epochs=12, batch_size=16, learning_rate=0.01), partitions=20)


def seed(number):
    return torch.Generator().manual_seed(number)


@pytest.fixture(scope="module")
def rows(splits):
    """1,000 digits to learn from, 400 that are attacked."""
    return splits.train, splits.test


@pytest.fixture(scope="module")
def clean(rows):
    """The vote of models of clean rows, on the rows that are attacked."""
    train, test = rows
    return logits_of(DEFENSE(train, generator=seed(0)), test.x)


def relabelled(dataset, where, labels):
    y = dataset.y.clone()
    y[where] = labels
    return Dataset(dataset.x, y, dataset.classes, dataset.name)


def spread(train, budget):
    """One flip in each of as many parts: the most parts that a budget can touch."""
    where = torch.stack([part[0] for part in parts(train, DEFENSE.partitions)[:budget]])
    return relabelled(train, where, (train.y[where] + 1) % 10)


def worst(train, test, budget):
    surrogate = nn.Sequential(nn.Flatten(), nn.Linear(64, 10)).eval()
    return InfluenceLabelFlips(budget / len(train))(train, surrogate=surrogate, targets=test, generator=seed(0)).dataset


ATTACKS = {
    "random": lambda train, test, n: LabelFlips(n / len(train))(train, generator=seed(1)).dataset,
    "targeted": lambda train, test, n: LabelFlips(n / len(train), 1, 7)(train, generator=seed(1)).dataset,
    "worst": worst,
    "spread": lambda train, test, n: spread(train, n),
}


@pytest.mark.parametrize("name", ATTACKS)
def test_no_label_flips_pass_below_the_bound(name, rows, clean):
    """At each budget the certified accuracy is no more than what is left; nor does any certified prediction change."""
    train, test = rows
    right, certified = clean.argmax(1) == test.y, certified_rows(clean)
    for budget in (2, 5):
        flipped = ATTACKS[name](train, test, budget)
        assert int((flipped.y != train.y).sum()) == budget
        votes = logits_of(DEFENSE(flipped, generator=seed(0)), test.x)
        assert (votes - clean).abs().sum(1).max() <= 2 * budget
        assert (votes != clean).any()
        holds = right & (certified >= budget)
        assert holds.double().mean() > 0.2
        assert holds.double().mean() <= (votes.argmax(1) == test.y).double().mean()
        assert torch.equal(votes.argmax(1)[certified >= budget], clean.argmax(1)[certified >= budget])


@pytest.mark.parametrize("members", [1, 4, 5, 8])
def test_the_certificate_is_exact_for_changed_votes(members):
    """For all counts of three classes, and all that a number of changed members can make of them."""
    counts = torch.tensor([c for c in product(range(members + 1), repeat=3) if sum(c) == members])
    moved = (counts[:, None] - counts).clamp(min=0).sum(2)  # how many members have to change their vote
    other = counts.argmax(1)[:, None] != counts.argmax(1)
    least = moved.masked_fill(~other, members + 1).amin(1)
    assert torch.equal(certified_rows(counts.double()), least - 1)
    assert torch.equal(certified_rows(counts.float(), touched=2), (least - 1) // 2)


def test_a_part_is_chosen_by_the_input_alone(rows):
    """Each row is in one part; other labels and another order leave it there; the parts are about equally large."""
    train, _ = rows
    found = parts(train, 20)
    assert torch.equal(torch.cat(found).sort().values, torch.arange(1000))
    assert all(torch.equal(a, b) for a, b in zip(found, parts(relabelled(train, train.y >= 0, 0), 20), strict=True))
    order = torch.randperm(1000, generator=seed(0))
    shuffled = parts(train.subset(order), 20)
    assert all(torch.equal(order[a], b) for a, b in zip(shuffled, found, strict=True))
    sizes = torch.tensor([len(part) for part in found]).double()
    assert ((sizes - 50) ** 2 / 50).sum() < 43.8  # the 99.9 % point of chi squared with 19 degrees of freedom


def differing(a, b):
    """Numbers of the members that are not the same to the bit."""
    return [
        number
        for number, (first, second) in enumerate(zip(a.members, b.members, strict=True))
        if any(not torch.equal(p, q) for p, q in zip(first.parameters(), second.parameters(), strict=True))
    ]


def test_a_row_touches_one_member_and_a_replaced_one_two(rows):
    """A flip, a deletion, an insertion; a row replaced by another; and the order of the rows touches none."""
    train = rows[0].subset(torch.arange(100))
    defense = DPA(MLP((4,)), Fit(epochs=1), partitions=6)
    before = defense(train, generator=seed(0))
    home = next(number for number, part in enumerate(parts(train, 6)) if 7 in part)
    other = torch.cat([torch.arange(7), torch.arange(8, 100)])
    assert differing(before, defense(relabelled(train, 7, (train.y[7] + 1) % 10), generator=seed(0))) == [home]
    assert differing(before, defense(train.subset(other), generator=seed(0))) == [home]
    assert differing(before, defense(train.subset(torch.arange(99, -1, -1)), generator=seed(0))) == []
    x = train.x.clone()
    x[7] = 1 - x[7]
    replaced = Dataset(x, train.y, train.classes, train.name)
    assert len(differing(before, defense(replaced, generator=seed(0)))) <= 2


def test_the_logits_are_votes(rows, clean):
    """Counted member by member; a tie goes to the smaller class; more parts than rows leave untrained members."""
    train, test = rows
    few = DPA(MLP((4,)), Fit(epochs=1), partitions=9)(train.subset(torch.arange(5)), generator=seed(0))
    with torch.no_grad():
        votes = few(test.x)
        for row in range(10):
            each = [int(member(test.x[row : row + 1]).argmax()) for member in few.members]
            assert votes[row].tolist() == [each.count(c) for c in range(10)]
    assert not few.training
    assert (clean.sum(1) == 20).all()
    assert (clean.argmax(1) == test.y).double().mean() > 0.7

    class Fixed(nn.Module):
        def __init__(self, c):
            super().__init__()
            self.c = c

        def forward(self, x):
            return torch.eye(3)[self.c].expand(len(x), 3)

    tied = VotingModel([Fixed(2), Fixed(1)])(torch.zeros(4, 1))
    assert tied.argmax(1).tolist() == [1] * 4
    assert certified_rows(tied).tolist() == [0] * 4


def test_what_makes_no_sense_is_refused():
    """With what was given."""
    with pytest.raises(ValueError, match="partitions must be positive, got 0"):
        DPA(MLP(), Fit(), partitions=0)
    with pytest.raises(ValueError, match="at least one member"):
        VotingModel([])
    with pytest.raises(ValueError, match="1 or 2 parts, got 3"):
        certified_rows(torch.zeros(2, 3), touched=3)
    for votes in (torch.rand(2, 3), torch.ones(2, 1), torch.ones(3)):
        with pytest.raises(ValueError, match="whole numbers"):
            certified_rows(votes)
