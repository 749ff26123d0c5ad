"""AutoAttack: the worst case of its stages, in their order, on the survivors, and resumable."""

import copy
from dataclasses import replace

import pytest
import torch
from torch import nn

from aisec_lab.attacks import (
    APGD,
    L0,
    L1,
    L2,
    PGD,
    AutoAttack,
    Linf,
    SequentialEnsemble,
    Square,
    Untargeted,
)
from aisec_lab.attacks.evasion.auto_attack import CLEAN, ROBUST, spawn_generators
from aisec_lab.models import PassCounter, seeded

ROWS = 60


@pytest.fixture(scope="module")
def exact(cnn, sample):
    """The CNN in float64, where a row's outcome does not depend on its batch."""
    return copy.deepcopy(cnn).double(), sample[0][:ROWS].double(), sample[1][:ROWS]


SUITES = [
    AutoAttack(Linf(0.06), steps=5, targets=2, queries=40),
    AutoAttack(L2(0.4), steps=5, targets=2, queries=40),
    AutoAttack(L1(1.0), steps=5, targets=2, queries=40),
    AutoAttack(L1(1.0), "quick", steps=5, targets=2),
    SequentialEnsemble(
        {"square": Square(Linf(0.07), 30), "pgd": PGD(Linf(0.06), steps=3), "apgd": APGD(Linf(0.06), steps=4)}
    ),
]


@pytest.mark.parametrize("suite", SUITES, ids=repr)
def test_each_row_is_won_by_the_first_stage_that_wins_it_alone(suite, exact, seed):
    """So the suite is never weaker than a stage, no stage repeats the work of one before, and the order is kept."""
    model, x, y = exact
    stages = suite.stages(10)
    expected = torch.where(model(x).argmax(1) == y, ROBUST, CLEAN)
    lowest = Untargeted().margin(model(x), y).detach()
    own = spawn_generators(seed(0), len(stages))
    for number, (attack, generator) in enumerate(zip(stages.values(), own, strict=True), start=1):
        margin = Untargeted().margin(model(attack(model, x, y, generator=generator)), y).detach()
        lowest = torch.where(expected == ROBUST, torch.minimum(lowest, margin), lowest)
        expected[(expected == ROBUST) & (margin < 0)] = number
    *_, worst = suite.run(model, x, y, generator=seed(0))
    assert torch.equal(worst.stage, expected)
    assert torch.allclose(worst.margin, lowest)
    assert torch.allclose(Untargeted().margin(model(worst.x_adv), y), lowest)
    assert len(expected.unique()) >= 3  # or there would be little to see


def test_the_standard_stages_are_those_of_the_paper_and_its_settings():
    """100 steps, 9 targets, 5,000 queries; quick is its beginning."""
    stages = AutoAttack(Linf(8 / 255)).stages(10)
    assert list(stages) == ["apgd_ce", "apgd_t", "fab_t", "square"]
    assert [stages["apgd_ce"].steps, stages["apgd_t"].steps, stages["fab_t"].attack.steps] == [100, 100, 100]
    assert [stages["apgd_t"].targets, stages["fab_t"].attack.targets, stages["square"].queries] == [9, 9, 5000]
    quick = AutoAttack(Linf(8 / 255), "quick").stages(10)
    assert quick == {name: stages[name] for name in ("apgd_ce", "apgd_t")}


def test_in_l1_the_stages_are_those_of_the_reference():
    """Larger balls first, 5 restarts, 5 targets of APGD and 9 of FAB."""
    stages = AutoAttack(L1(12)).stages(10)
    assert stages["apgd_ce"] == APGD(L1(12), 100, restarts=5, larger_first=True)
    assert (stages["apgd_t"].targets, stages["apgd_t"].larger_first) == (5, True)
    assert (stages["fab_t"].attack.targets, stages["fab_t"].ball) == (9, L1(12))
    assert stages["square"] == Square(L1(12), 5000)


@pytest.mark.parametrize("stopped", range(5))
def test_an_interrupted_run_goes_on_with_the_same_bits(stopped, exact, seed):
    """After any number of stages; what was done is not done again."""
    model, x, y = exact
    suite = SUITES[0]
    counted = PassCounter(model)
    progress = []
    for worst in suite.run(counted, x, y, generator=seed(0)):
        progress.append((worst, counted.forward_passes))
    whole, passes = progress[-1]
    after, spent = progress[stopped]
    counted = PassCounter(model)
    *_, resumed = suite.run(counted, x, y, generator=seed(0), after=after)
    assert torch.equal(resumed.x_adv, whole.x_adv)
    assert torch.equal(resumed.stage, whole.stage)
    assert torch.equal(resumed.margin, whole.margin)
    assert counted.forward_passes == passes - spent
    assert [worst.done for worst, _ in progress] == [0, 1, 2, 3, 4]


def test_a_stage_sees_the_survivors_alone(exact, seed):
    """And none is called once no row stands."""
    model, x, y = exact
    seen = []

    def spy(model, x, y, *, generator):
        seen.append(len(x))
        return x

    *_, worst = SequentialEnsemble({"spy": spy, "pgd": PGD(Linf(0.06), steps=5), "again": spy}).run(
        model, x, y, generator=seed(0)
    )
    right = int((model(x).argmax(1) == y).sum())
    assert seen == [right, int((worst.stage == ROBUST).sum())]
    assert 0 < seen[1] < right
    SequentialEnsemble({"pgd": PGD(Linf(1.0)), "again": spy})(model, x, y, generator=seed(0))
    assert len(seen) == 2


def test_a_stage_that_only_says_so_has_not_won(exact, seed):
    """Points are judged by the model, and a row keeps the lowest that was found."""
    model, x, y = exact
    easier = SequentialEnsemble(
        {"back": lambda model, x, y, *, generator: x.flip(0)}
    )  # other rows, some of another class
    *_, worst = easier.run(model, x, y, generator=seed(0))
    margin = Untargeted().margin(model(worst.x_adv), y)
    assert torch.equal(worst.stage == 1, (margin < 0) & (model(x).argmax(1) == y))
    assert (margin <= Untargeted().margin(model(x), y)).all()


@pytest.mark.parametrize("classes", [2, 3])
@pytest.mark.parametrize("suite", [SUITES[0], AutoAttack(Linf(0.06), "rand", steps=5, draws=1)], ids=repr)
def test_few_classes_are_no_obstacle(suite, classes, linear, seed):
    """The margin in place of DLR; on a linear model the closed form, far from the box."""
    x = 0.2 + 0.6 * torch.rand(40, 1, 4, 4, generator=seed(1), dtype=torch.float64)
    model = linear(16, classes=classes)
    logits = model(x).detach()
    y = logits.argmax(1)
    broken = model(suite(model, x, y, generator=seed(0))).argmax(1) != y
    weight = model[1].weight.detach()
    slopes = (weight[None] - weight[y][:, None]).abs().sum(2)  # how fast each class gains on y
    gap = logits.gather(1, y[:, None]) - logits
    assert torch.equal(broken, (gap < suite.ball.eps * slopes).scatter(1, y[:, None], False).any(1))
    assert 0 < broken.sum() < 40


class Shaky(nn.Module):
    """Logits of a model, with noise of its own on the input."""

    def __init__(self, model, generator):
        super().__init__()
        self.model, self.generator = model, generator
        self.eval()

    def forward(self, x):
        return self.model(x + 0.1 * torch.randn(x.shape, generator=self.generator))


def test_rand_attacks_the_mean_of_a_randomised_model(cnn, sample, seed):
    """It leaves fewer standing, on fresh draws, than the attack that sees one draw a step."""
    x, y = sample
    model = Shaky(cnn, seed(7))

    def accuracy(attack):
        with seeded(model, seed(1)):
            x_adv = attack(model, x, y, generator=seed(0))
        with seeded(model, seed(2)):
            return torch.stack([model(x_adv).argmax(1) == y for _ in range(20)]).double().mean()

    rand = AutoAttack(Linf(0.08), "rand", steps=15, draws=10)
    once = replace(rand, draws=1)
    assert accuracy(rand) < accuracy(once) - 0.02
    assert accuracy(once) < accuracy(lambda model, x, y, *, generator: x) - 0.1


def test_a_ball_that_a_stage_does_not_know_is_refused_when_the_suite_is_made():
    """Not after hours."""
    with pytest.raises(ValueError, match="FAB knows the balls Linf, L2 and L1, not L0"):
        AutoAttack(L0(1))


def test_an_unknown_version_is_refused():
    """With the names of those there are."""
    with pytest.raises(ValueError, match="version must be one of standard, quick, rand, got 'plus'"):
        AutoAttack(Linf(0.1), "plus")
