"""Attribute inference: each rule by hand, blindness to what is looked for, and a leak that is no correlation."""

import pytest
import torch
from torch import nn

from aisec_lab.attacks.inference.attributes import (
    CSMIA,
    Fredrikson,
    SensitiveAttribute,
    confusion_matrix,
)
from aisec_lab.attacks.inference.imputation import Imputation
from aisec_lab.data import Dataset
from aisec_lab.defenses import Standard
from aisec_lab.models import MLP, Fit

FEATURES = ("age", "sex=f", "sex=m", "pay")


def table(n=400, number=0, features=FEATURES):
    """Random rows of a table with a word of two columns."""
    generator = torch.Generator().manual_seed(number)
    x = torch.rand(n, 4, generator=generator)
    x[:, 1] = (torch.rand(n, generator=generator) < 0.5).float()
    x[:, 2] = 1 - x[:, 1]
    return Dataset(x, torch.randint(2, (n,), generator=generator), ("no", "yes"), "table", features)


def test_a_field_is_its_columns_and_its_candidates():
    """A word is a group of columns, a number its values or, where there are many, quantiles."""
    rows = table()
    sex = SensitiveAttribute.of(rows, "sex")
    assert sex.columns == (1, 2)
    assert sex.values.tolist() == [[1, 0], [0, 1]]
    assert sex.names == ("sex=f", "sex=m")
    assert torch.equal(sex.truth(rows.x), rows.x[:, 2].long())
    assert torch.equal(sex.without_attribute(rows.x), rows.x[:, [0, 3]])
    with_each_candidate = sex.with_each_candidate(rows.x)
    for v in range(2):
        assert torch.equal(with_each_candidate[v][:, [0, 3]], rows.x[:, [0, 3]])
        assert (with_each_candidate[v][:, 1:3] == sex.values[v]).all()
    pay = SensitiveAttribute.of(rows, "pay", levels=4)
    assert pay.values.flatten().tolist() == pytest.approx(rows.x[:, 3].quantile(torch.arange(1, 8, 2) / 8).tolist())
    assert (pay.truth(rows.x).bincount() > 60).all()
    coin = Dataset(rows.x[:, 1:2], rows.y, rows.classes, "coin", ("smoker",))
    assert SensitiveAttribute.of(coin, "smoker").values.tolist() == [[0], [1]]


class Lookup(nn.Module):
    """Answers a row (age, sex=f, sex=m, pay) by a table: its age, 0 to 5 sixths, says which line."""

    #        with f         with m: probabilities of class 1
    lines = ((0.9, 0.2), (0.2, 0.9), (0.7, 0.8), (0.8, 0.7), (0.1, 0.3), (0.3, 0.1))

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(1))

    def forward(self, x):
        line = (x[:, 0] * 6).round().long()
        yes = torch.tensor(self.lines)[line, x[:, 2].long()]
        return torch.stack([1 - yes, yes], 1).log() + 0 * self.weight


def lookup_rows():
    x = torch.zeros(6, 4)
    x[:, 0], x[:, 1] = torch.arange(6) / 6, 1
    return x, torch.ones(6, dtype=torch.int64)


def test_confidence_scores_by_hand():
    """One right: that one; both right: the surer; both wrong: the less sure."""
    x, y = lookup_rows()
    sex = SensitiveAttribute.of(table(), "sex")
    model = Lookup().eval()
    assert CSMIA()(model, x, y, sex).tolist() == [0, 1, 1, 0, 1, 0]
    assert CSMIA()(model, x, 1 - y, sex).tolist() == [1, 0, 0, 1, 0, 1]


def test_most_probable_by_hand():
    """Prior times the chance of the answer: a rare candidate has to explain the class much better."""
    x, y = lookup_rows()
    sex, model = SensitiveAttribute.of(table(), "sex"), Lookup().eval()
    confusion = torch.tensor([[0.7, 0.3], [0.2, 0.8]])
    attack = Fredrikson()
    assert attack(model, x, y, sex, prior=torch.tensor([0.5, 0.5]), confusion=confusion)[:2].tolist() == [0, 1]
    assert attack(model, x, y, sex, prior=torch.tensor([0.4, 0.6]), confusion=confusion).tolist() == [0, 1, 1, 1, 1, 1]
    rare = attack(model, x, y, sex, prior=torch.tensor([0.1, 0.9]), confusion=confusion)
    assert rare.tolist() == [1, 1, 1, 1, 1, 1]  # 0.1 * 0.8 < 0.9 * 0.2
    quarter = attack(model, x, y, sex, prior=torch.tensor([0.25, 0.75]), confusion=confusion)
    assert quarter[0] == 0  # 0.25 * 0.8 > 0.75 * 0.2: by what is said of class 1, not by what else is said to be 1
    own = torch.tensor([[0.9, 0.1]] * 3 + [[0.1, 0.9]] * 3)
    assert attack(model, x, y, sex, prior=own, confusion=confusion).tolist() == [0, 0, 0, 1, 1, 1]
    never = torch.tensor([[1.0, 0.0], [1.0, 0.0]])  # the model never says 1: the prior decides where it does
    assert attack(model, x, y, sex, prior=torch.tensor([0.4, 0.6]), confusion=never)[2:4].tolist() == [1, 1]


def test_confusion_is_what_is_counted():
    """By hand; a class without rows has no preference."""
    x = torch.tensor([[0.0, 1, 0, 0], [1 / 6, 1, 0, 0], [2 / 6, 1, 0, 0]])  # the model says 1, 0, 1
    rows = Dataset(x, torch.tensor([1, 1, 1]), ("no", "yes"), "rows")
    assert confusion_matrix(Lookup().eval(), rows).tolist() == [[0.5, 0.5], pytest.approx([1 / 3, 2 / 3])]


@pytest.fixture(scope="module")
def memorised():
    """A model that has learned by heart 200 rows in which class, sex and all else are coins of their own."""
    train = table(200, 1)
    model = MLP((128, 128))((4,), 2, generator=torch.Generator().manual_seed(0))
    Fit(epochs=120, learning_rate=0.01, weight_decay=0)(
        model, train, Standard(), generator=torch.Generator().manual_seed(1)
    )
    return train, model


def guesses(model, rows, imputer, sex):
    """Of all attacks on the same rows, as shares that are right."""
    confusion = torch.tensor([[0.9, 0.1], [0.1, 0.9]])
    x, y = rows.x, rows.y
    found = {
        "scores": CSMIA()(model, x, y, sex),
        "marginal": Fredrikson()(model, x, y, sex, prior=torch.tensor([0.5, 0.5]), confusion=confusion),
        "imputed": Fredrikson()(model, x, y, sex, prior=imputer.posterior(x, y), confusion=confusion),
        "without": imputer(x, y),
    }
    return {name: (guess == sex.truth(x)).double().mean().item() for name, guess in found.items()}


def test_a_leak_is_told_from_correlation(memorised):
    """On its training rows the model betrays what no imputation can know; on others nobody does better than a coin."""
    train, model = memorised
    sex = SensitiveAttribute.of(train, "sex")
    imputer = Imputation()(table(1000, 2), sex, generator=torch.Generator().manual_seed(3))
    inside, outside = (guesses(model, rows, imputer, sex) for rows in (train, table(1000, 4)))
    assert inside["scores"] > 0.6
    assert inside["marginal"] > 0.58
    assert inside["imputed"] > inside["without"] + 0.03
    assert inside["without"] < 0.56
    assert all(abs(share - 0.5) < 0.06 for share in outside.values()), outside


def test_imputation_finds_a_correlation():
    """An attribute that follows from another column and the class is guessed without any model."""
    rows, more = table(800, 5), table(300, 6)
    known = [Dataset(each.x, each.y, each.classes, each.name, FEATURES) for each in (rows, more)]
    for each in known:
        told = (each.x[:, 0] > 0.5) ^ each.y.bool()
        each.x[:, 2], each.x[:, 1] = told.float(), (~told).float()
    sex = SensitiveAttribute.of(known[0], "sex")
    imputer = Imputation()(known[0], sex, generator=torch.Generator().manual_seed(0))
    assert (imputer(known[1].x, known[1].y) == sex.truth(known[1].x)).double().mean() > 0.9
    torch.testing.assert_close(imputer.posterior(known[1].x, known[1].y).sum(1), torch.ones(300))


def test_no_attack_looks_at_what_it_guesses(memorised):
    """The attribute is overwritten with noise: the same guesses."""
    train, model = memorised
    sex = SensitiveAttribute.of(train, "sex")
    imputer = Imputation(fit=Fit(epochs=1))(table(100, 2), sex, generator=torch.Generator().manual_seed(3))
    noisy = train.x.clone()
    noisy[:, 1:3] = torch.rand(200, 2, generator=torch.Generator().manual_seed(9))
    y, prior, confusion = train.y, torch.tensor([0.5, 0.5]), confusion_matrix(model, train)
    for attack in (
        lambda x: CSMIA()(model, x, y, sex),
        lambda x: Fredrikson()(model, x, y, sex, prior=prior, confusion=confusion),
        lambda x: imputer.posterior(x, y),
    ):
        assert torch.equal(attack(train.x), attack(noisy))


def test_what_makes_no_sense_is_refused(memorised):
    """At the door."""
    train, model = memorised
    sex = SensitiveAttribute.of(train, "sex")
    half, x, y = torch.tensor([0.5, 0.5]), train.x, train.y
    cases = [
        (lambda: SensitiveAttribute.of(train, "seks"), "choose from \\['age', 'pay', 'sex'\\]"),
        (lambda: SensitiveAttribute((0,), torch.zeros(1, 1), ("one",)), "two candidates at least"),
        (lambda: SensitiveAttribute((0,), torch.zeros(2, 2), ("a", "b")), "two candidates at least"),
        (lambda: CSMIA()(model, 3 * x, y, sex), "inputs must lie in"),
        (lambda: CSMIA()(model, x, y + 2, sex), "classes must lie in 0..1"),
        (
            lambda: Fredrikson()(model, x, y, sex, prior=half[:1], confusion=torch.eye(2)),
            "the prior must be \\(2,\\)",
        ),
        (lambda: Fredrikson()(model, x, y, sex, prior=half, confusion=torch.eye(3)), "the confusion \\(2, 2\\)"),
    ]
    for call, message in cases:
        with pytest.raises(ValueError, match=message):
            call()
