"""OARS: attacks that adapt to a service which rejects similar queries, and that service itself."""

import copy
from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binomtest
from torch import nn

from aisec_lab.attacks import L2, OARS, Boundary, EvadeDetector, HopSkipJump, Linf, Oracle, Square, Targeted
from aisec_lab.defenses import Blacklight
from aisec_lab.evaluation import predicted_classes

KEY = bytes(range(16))
FAST = OARS(steps=4, probes=5, attempts=5)
FEW = OARS(steps=3, probes=3, rate=0.7)
ATTACKS = {
    "HopSkipJump": HopSkipJump(L2(0), queries=150, samples=30, goal=EvadeDetector(), oars=FAST),
    "HopSkipJump in Linf": HopSkipJump(Linf(0), queries=150, samples=30, goal=EvadeDetector(), oars=FAST),
    "Boundary": Boundary(L2(0), queries=80, goal=EvadeDetector(), oars=FAST),
    "Square": Square(Linf(0.03), queries=40, goal=EvadeDetector(), oars=FEW),
    "Square in L2": Square(L2(0.2), queries=40, goal=EvadeDetector(), oars=FEW),
}


class Fussy(nn.Module):
    """Rejects about a third of all inputs, by digits of a sum of the input that an attack cannot foresee."""

    rejects = True

    def __init__(self, model):
        super().__init__()
        self.model, self.training = model, False

    def forward(self, x):
        logits = self.model(x)
        odd = (x.double().flatten(1) * torch.arange(1, 1 + x[0].numel())).sum(1).mul(997).remainder(1) < 0.35
        reject = torch.where(odd, logits.amax(1) + 1, logits.amin(1) - 1)
        return torch.cat([logits, reject[:, None]], 1)


def x_adv_of(result):
    return getattr(result, "x_adv", result)


@given(st.floats(0, 0.99), st.integers(0, 12), st.integers(1, 9))
def test_the_smallest_size_that_is_accepted_is_found(limit, steps, probes):
    """Where a size is rejected exactly below a limit: never too small, and too large by one halving at most."""
    asked = []

    def rejected(size, number):
        asked.append(number)
        return size < limit

    oars = OARS(steps=steps, probes=probes, rate=0.0)
    low, high = torch.zeros(3, dtype=torch.float64), torch.ones(3, dtype=torch.float64)
    size = oars.smallest(low, high, rejected)
    assert (size >= limit).all()
    assert (size <= limit + 2.0**-steps).all()
    assert asked == list(range(steps * probes))
    assert (low == 0).all()
    assert (high == 1).all()


def test_a_size_is_accepted_up_to_the_rate():
    """Two of twenty probes are rejected at every size: 10 % is accepted, 9 % is not."""
    low, high = torch.zeros(1), torch.ones(1)
    for rate, expected in ((0.1, 2.0**-5), (0.09, 1.0)):
        size = OARS(steps=5, rate=rate).smallest(low, high, lambda size, number: torch.tensor([number % 20 < 2]))
        assert size.item() == expected


@pytest.mark.parametrize("name", ["HopSkipJump", "Boundary", "Square"])
def test_nothing_changes_where_nothing_can_be_rejected(name, cnn, sample, seed):
    """On a model without a reject option, bit for bit."""
    x, target = sample[0][:10], (sample[1][:10] + 1) % 10
    adaptive = replace(ATTACKS[name], goal=Targeted())
    starts = {"starts": sample[0]} if name != "Square" else {}
    results = [
        x_adv_of(attack(cnn, x, target, generator=seed(0), **starts))
        for attack in (adaptive, replace(adaptive, oars=None))
    ]
    assert torch.equal(*results)
    assert not torch.equal(results[0], x)


@pytest.mark.parametrize("name", ATTACKS)
def test_the_contract_of_a_black_box_attack_holds(name, cnn, sample, seed):
    """In ball and box; wrong rows untouched after one query; no row over its budget; no rejected point a success."""
    attack, model = ATTACKS[name], Fussy(cnn)
    x, y = sample[0][:16].clone(), sample[1][:16].clone()
    y[:3] = (y[:3] + 1) % 10
    before = x.clone()
    result = attack(model, x, y, generator=seed(0))
    x_adv = x_adv_of(result)
    assert torch.equal(x, before)
    assert x_adv.min() >= 0
    assert x_adv.max() <= 1
    if attack.ball.eps:
        assert (attack.ball.norm(x_adv - x) <= attack.ball.eps * (1 + 1e-5)).all()
    else:
        assert torch.equal(attack.ball.norm(x_adv - x), torch.where(result.distance < torch.inf, result.distance, 0))
    wrong = EvadeDetector().margin(model(x), y) < 0
    assert 0 < wrong.sum() < 16
    assert torch.equal(x_adv[wrong], x[wrong])
    found = EvadeDetector().margin(model(x_adv), y) < 0
    moved = (x_adv != x).flatten(1).any(1)
    if attack.ball.eps == 0:
        assert found[moved].all()
        assert moved.sum() >= 9
    for row in (int(wrong.nonzero()[0]), int((~wrong).nonzero()[-1])):
        oracle = Oracle(model)
        attack(oracle, x[row : row + 1], y[row : row + 1], generator=seed(0))
        assert oracle.queries == 1 if wrong[row] else 1 < oracle.queries <= attack.queries
        if attack.ball.eps == 0 and not wrong[row]:
            assert oracle.queries == attack.queries


@pytest.mark.parametrize("name", ATTACKS)
def test_float64_rows_do_not_notice_their_batch(name, cnn, sample, seed):
    """On a model whose rejections depend on the row alone."""
    model, x, y = Fussy(copy.deepcopy(cnn).double()), sample[0][:12].double(), sample[1][:12]
    whole = x_adv_of(ATTACKS[name](model, x, y, generator=seed(0)))
    order = torch.randperm(12, generator=seed(2))
    shuffled = x_adv_of(ATTACKS[name](model, x[order], y[order], generator=seed(0)))
    assert torch.equal(shuffled, whole[order])
    parts = [x_adv_of(ATTACKS[name](model, x[part], y[part], generator=seed(0))) for part in (slice(5), slice(5, 12))]
    assert torch.equal(torch.cat(parts), whole)


def attacked(attack, model, x, y, generator):
    """Which rows an account misleads that Blacklight watches, within the attack's ball; and the share it rejects."""
    oracle = Oracle(model, monitors=[Blacklight(KEY)], rejects=True)
    x_adv = x_adv_of(attack(oracle, x, y, generator=generator))
    near = attack.ball.norm(x_adv - x) <= attack.ball.eps * (1 + 1e-5)
    return near & (model(x_adv).argmax(1) != y), oracle.rejected / oracle.queries


@pytest.mark.parametrize(
    "attack",
    [
        HopSkipJump(L2(1.2), queries=300, samples=50, goal=EvadeDetector()),
        Boundary(L2(1.2), queries=300, goal=EvadeDetector()),
        Square(Linf(0.2), queries=200, goal=EvadeDetector()),
    ],
    ids=lambda attack: type(attack).__name__,
)
def test_oars_gets_past_blacklight_where_the_plain_attack_does_not(attack, cnn, sample, seed):
    """On the same 20 rows, exact sign test of those that only one of the two misleads; and fewer queries rejected."""
    right = (cnn(sample[0]).argmax(1) == sample[1]).nonzero().squeeze(1)[:20]
    x, y = sample[0][right], sample[1][right]
    plain, plain_rejected = attacked(attack, cnn, x, y, seed(0))
    oars, oars_rejected = attacked(replace(attack, oars=OARS(steps=5, probes=10)), cnn, x, y, seed(0))
    gained, lost = int((oars & ~plain).sum()), int((plain & ~oars).sum())
    assert binomtest(gained, gained + lost, alternative="greater").pvalue < 0.05
    assert oars_rejected < plain_rejected


def test_a_service_rejects_the_queries_that_are_flagged_and_answers_the_others(cnn, sample):
    """One by one, whatever the size of a call; nobody is locked out; a rejected query counts, and tells no class."""
    x = torch.cat([sample[0][:5], sample[0][:3], sample[0][5:7]])
    answers = []
    for size in (10, 1, 4):
        oracle = Oracle(cnn, monitors=[Blacklight(KEY)], rejects=True)
        answers.append(torch.cat([oracle(part) for part in x.split(size)]))
        assert oracle.queries == 10
        assert oracle.rejected == 3
    flagged = torch.tensor([False] * 5 + [True] * 3 + [False] * 2)
    for answer in answers:
        assert answer.shape == (10, 11)
        assert torch.equal(answer.argmax(1) == 10, flagged)
        assert torch.allclose(answer[~flagged, :10], cnn(x)[~flagged], atol=1e-5)
        assert (answer[flagged] == answer[5]).all()
    assert torch.equal(predicted_classes(oracle, sample[0][:1], 10), torch.tensor([-1]))
    labels = Oracle(cnn, monitors=[Blacklight(KEY)], rejects=True, labels_only=True)(x)
    assert torch.equal(labels.argmax(1), answers[0].argmax(1))
    assert torch.equal(labels.sum(1), torch.ones(10))
    silent = Oracle(cnn, monitors=[lambda client, x, answers: None], rejects=True)
    assert (silent(x).argmax(1) < 10).all()
    assert Oracle(cnn, monitors=[Blacklight(KEY)])(x).shape == (10, 10)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda cnn: OARS(steps=-1), "steps must be at least 0"),
        (lambda cnn: OARS(probes=0), "probes and attempts at least 1"),
        (lambda cnn: OARS(rate=1.0), r"rate lie in \[0, 1\)"),
        (lambda cnn: OARS(attempts=0), "attempts at least 1"),
        (lambda cnn: HopSkipJump(oars=OARS()), "EvadeDetector or Targeted"),
        (lambda cnn: Boundary(oars=OARS()), "EvadeDetector or Targeted"),
        (lambda cnn: Square(Linf(0.1), oars=OARS()), "EvadeDetector or Targeted"),
        (lambda cnn: Oracle(Fussy(cnn), rejects=True), "has a reject option already"),
    ],
)
def test_what_makes_no_sense_is_refused(make, message, cnn):
    """With what is accepted."""
    with pytest.raises(ValueError, match=message):
        make(cnn)
