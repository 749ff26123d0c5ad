"""Extraction by copying: what is asked, what a copy learns from it, and what it then knows of its victim."""

import math
from dataclasses import dataclass
from itertools import combinations

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import entropy
from torch import Tensor, nn

from aisec_lab.attacks import Oracle
from aisec_lab.attacks.extraction.active import ActiveExtraction
from aisec_lab.attacks.extraction.augmentation import RandomShift
from aisec_lab.attacks.extraction.bandit import BanditSampling, GradientBandit
from aisec_lab.attacks.extraction.copycat import Copycat, balance_classes
from aisec_lab.attacks.extraction.jacobian import JacobianAugmentation, jacobian_step
from aisec_lab.attacks.extraction.knockoff import Knockoff
from aisec_lab.attacks.extraction.result import published_probabilities
from aisec_lab.attacks.extraction.self_training import SelfTraining
from aisec_lab.attacks.extraction.strategies import KCenter, LargestEntropy, SmallestMargin
from aisec_lab.attacks.extraction.surrogate_training import train_surrogate
from aisec_lab.data import Dataset
from aisec_lab.models import MLP, Fit, logits_of

COPY, BUDGET, FIT = MLP((48,)), 150, Fit(epochs=8, batch_size=32, learning_rate=0.02)
ATTACKS = {
    "knockoff": Knockoff(COPY, BUDGET, FIT),
    "policy": Knockoff(COPY, BUDGET, FIT, policy=BanditSampling()),
    "copycat": Copycat(COPY, BUDGET, FIT),
    "jacobian": JacobianAugmentation(COPY, BUDGET, FIT, seeds=60),
    "margin": ActiveExtraction(COPY, BUDGET, FIT, rounds=2),
    "entropy": ActiveExtraction(COPY, BUDGET, FIT, strategy=LargestEntropy(), rounds=2),
    "k-center": ActiveExtraction(COPY, BUDGET, FIT, strategy=KCenter(), rounds=2),
    "self-training": Knockoff(COPY, BUDGET, FIT, self_training=SelfTraining(teachers=2)),
    "shifts": Knockoff(COPY, BUDGET, FIT, augmentation=RandomShift(1)),
}
OF_THE_POOL = set(ATTACKS) - {"jacobian"}
CHOICES = [SmallestMargin(), LargestEntropy(), KCenter()]


@dataclass(frozen=True)
class Linear:
    """An architecture of one linear layer, for closed forms."""

    def __call__(self, shape, classes, *, generator):
        layer = nn.Linear(math.prod(shape), classes)
        nn.init.normal_(layer.weight, generator=generator)
        nn.init.normal_(layer.bias, generator=generator)
        return nn.Sequential(nn.Flatten(), layer)


class Through(nn.Module):
    """A victim whose answers are changed before they are published."""

    def __init__(self, model, change):
        super().__init__()
        self.model, self.change = model, change

    def forward(self, x):
        return self.change(self.model(x))


@pytest.fixture(scope="module")
def pool(digits) -> Dataset:
    """600 digits, none of them among the sample."""
    return Dataset(digits[0][200:800], digits[1][200:800], tuple("0123456789"), "digits")


@pytest.fixture(scope="module")
def agreement(cnn, sample):
    """How often a model answers as the victim does, on rows that neither has learned."""
    return lambda model: (logits_of(model, sample[0]).argmax(1) == logits_of(cnn, sample[0]).argmax(1)).double().mean()


def recorded(model, **settings) -> tuple[Oracle, list[Tensor]]:
    """An oracle, and the queries that it will have been asked."""
    asked: list[Tensor] = []
    return Oracle(model, monitors=[lambda client, x, answers: asked.append(x)], **settings), asked


def places(x: Tensor, within: Tensor) -> Tensor:
    """Where each row of x stands in `within`; -1 for a row that does not."""
    same = (x.flatten(1)[:, None] == within.flatten(1)[None]).all(2)
    return torch.where(same.any(1), same.int().argmax(1), -1)


def probabilities(seed, rows, classes=4) -> Tensor:
    return (2 * torch.randn(rows, classes, generator=seed)).softmax(1)


@pytest.mark.parametrize("labels_only", [False, True], ids=["probabilities", "labels"])
@pytest.mark.parametrize("name", ATTACKS)
def test_a_copy_for_its_budget_and_not_a_row_more(name, labels_only, cnn, pool, agreement, seed):
    """The oracle, used before, has exactly so many left; what is asked comes from the pool, each row of it once."""
    oracle, asked = recorded(cnn, labels_only=labels_only, budget=BUDGET + 7)
    oracle(pool.x[:7])
    before = [parameter.clone() for parameter in cnn.parameters()]
    stolen = ATTACKS[name](oracle, pool, generator=seed(0))
    assert stolen.queries == BUDGET
    assert oracle.queries == BUDGET + 7
    assert not any(module.training for module in stolen.model.modules())
    assert agreement(stolen.model) > 0.6, "a tenth would be chance"
    assert all(map(torch.equal, before, cnn.parameters()))
    if name in OF_THE_POOL:
        rows = places(torch.cat(asked[1:]), pool.x)
        assert rows.min() >= 0
        assert len(rows.unique()) == BUDGET


@pytest.mark.parametrize("name", ["policy", "jacobian", "shifts"])
def test_the_generator_is_the_only_randomness(name, cnn, pool, seed):
    """The same weights from the same seed, whatever the global generator is at; others from another."""
    first, second, third = (
        torch.cat([w.flatten() for w in ATTACKS[name](Oracle(cnn), pool, generator=seed(n)).model.parameters()])
        for n in (0, 0, 1)
    )
    assert torch.equal(first, second)
    assert not torch.equal(first, third)


CHANGES = {
    "zeros": lambda z: (10 * z.softmax(1)).round().log(),  # -inf where a probability is rounded to 0
    "the largest alone": lambda z: z.masked_fill(z < z.amax(1, keepdim=True), -torch.inf),
    "float64": lambda z: z.double().log_softmax(1),
}


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("name", ["knockoff", "policy", "jacobian", "k-center"])
def test_answers_with_zeros_and_of_another_precision_are_learned(name, change, cnn, pool, agreement, seed):
    """No NaN gets into the copy, and it knows the victim none the less."""
    stolen = ATTACKS[name](Oracle(Through(cnn, CHANGES[change]).eval()), pool, generator=seed(0))
    assert all(weights.isfinite().all() for weights in stolen.model.parameters())
    assert agreement(stolen.model) > 0.6


def test_published_is_the_softmax_or_the_label(cnn, pool):
    """In as many rows as are counted; -inf is a zero, and what is no distribution is refused."""
    oracle = Oracle(cnn)
    assert torch.equal(published_probabilities(oracle, pool.x), logits_of(cnn, pool.x).softmax(1))
    assert oracle.queries == len(pool)
    told = published_probabilities(Oracle(cnn, labels_only=True), pool.x)
    assert torch.equal(told, F.one_hot(logits_of(cnn, pool.x).argmax(1), 10).float())
    tops = published_probabilities(Oracle(Through(cnn, CHANGES["the largest alone"]).eval()), pool.x)
    assert torch.equal(tops, told)
    with pytest.raises(ValueError, match="answer 0 is no distribution"):
        published_probabilities(Oracle(Through(cnn, lambda z: z - torch.inf).eval()), pool.x)


def test_a_step_of_imitation_is_that_of_soft_cross_entropy(seed):
    """On a linear copy the gradient of the mean loss is (softmax(z) - p) x / N, whatever order the rows come in."""
    x, p = torch.rand(12, 1, 2, 3, generator=seed(0)), probabilities(seed(1), 12)
    start = Linear()((1, 2, 3), 4, generator=seed(2))[1]
    one_step = Fit(epochs=1, batch_size=12, learning_rate=0.5, weight_decay=0.0, momentum=0.0)
    copy = train_surrogate(Linear(), x, p, fit=one_step, generator=seed(2), name="rows")
    error = (start(x.flatten(1)).softmax(1) - p) / 12
    assert torch.allclose(copy[1].weight, start.weight - 0.5 * error.T @ x.flatten(1), atol=1e-6)
    assert torch.allclose(copy[1].bias, start.bias - 0.5 * error.sum(0), atol=1e-6)


def test_augmentation_changes_inputs_and_no_answers(seed):
    """As if each step had been made on the changed rows."""

    @dataclass(frozen=True)
    class Negative:
        def __call__(self, x, *, generator):
            return 1 - x

    x, p = torch.rand(12, 1, 2, 3, generator=seed(0)), probabilities(seed(1), 12)
    settings = {"fit": Fit(epochs=3, batch_size=5), "name": "rows"}
    with_it = train_surrogate(Linear(), x, p, generator=seed(2), augmentation=Negative(), **settings)
    on_negatives = train_surrogate(Linear(), 1 - x, p, generator=seed(2), **settings)
    assert torch.equal(with_it[1].weight, on_negatives[1].weight)


@pytest.mark.parametrize("mirror", [False, True])
def test_shifts_move_each_image_as_a_loop_would(mirror, seed):
    """To one of the places in reach, mirrored or not; all places and about half of the mirror images occur."""
    x = torch.rand(400, 2, 4, 5, generator=seed(0))
    moved = RandomShift(1, mirror)(x, generator=seed(1))
    black, seen = F.pad(x, (1, 1, 1, 1)), []
    for flip in (False, True):
        padded = black.flip(3) if flip else black
        for down in range(3):
            for right in range(3):
                window = padded[:, :, down : down + 4, right : right + 5]
                seen.append((window == moved).flatten(1).all(1))
    counts = torch.stack(seen).sum(1)
    assert counts.sum() == len(x)
    assert counts[:9].min() > 0
    assert 150 < counts[9:].sum() < 250 if mirror else counts[9:].sum() == 0


def test_what_befalls_a_row_does_not_depend_on_the_others(seed):
    """Nor on their order."""
    x, shifts = torch.rand(30, 1, 4, 4, generator=seed(0)), RandomShift(2, mirror=True)
    whole, back = shifts(x, generator=seed(1)), shifts(x.flip(0), generator=seed(1))
    assert torch.equal(whole, back.flip(0))
    assert torch.equal(whole[:3], shifts(x[:3], generator=seed(1)))
    with pytest.raises(ValueError, match="only images"):
        shifts(x.flatten(1), generator=seed(1))


def test_copycat_looks_at_the_label_alone(cnn, pool, seed):
    """The same copy, to the bit, whatever else is published."""
    copies = [
        ATTACKS["copycat"](oracle, pool, generator=seed(0)).model
        for oracle in (Oracle(cnn), Oracle(cnn, labels_only=True), Oracle(Through(cnn, lambda z: 3 * z).eval()))
    ]
    assert all(torch.equal(logits_of(copies[0], pool.x), logits_of(copy, pool.x)) for copy in copies[1:])


@given(st.lists(st.integers(0, 4), min_size=1, max_size=60), st.integers(0, 1000))
@settings(max_examples=60, deadline=None)
def test_balanced_rows_have_every_class_equally_often(labels, number):
    """As many rows as divide evenly among the classes that occur; within a class none is favoured."""
    y = torch.tensor(labels)
    rows = balance_classes(y, torch.Generator().manual_seed(number))
    classes = y.unique()
    assert y[rows].bincount(minlength=5)[classes].tolist() == [len(y) // len(classes)] * len(classes)
    times = rows.bincount(minlength=len(y))
    for label in classes:
        assert times[y == label].max() - times[y == label].min() <= 1


def naive_k_center(rest, known, n):
    """Greedy choice by the definition, every distance anew."""
    centres, chosen = list(known.double()), []
    for _ in range(n):
        far = [
            -1.0 if i in chosen else min(float((row - centre).norm()) for centre in centres)
            for i, row in enumerate(rest.double())
        ]
        chosen.append(far.index(max(far)))
        centres.append(rest[chosen[-1]].double())
    return chosen


def radius(rest, centres):
    """The distance at which the last row has a centre."""
    return torch.cdist(rest, centres).amin(1).max()


def test_k_center_is_the_greedy_choice_and_at_most_twice_the_best(seed):
    """Against a loop, and against every choice of three there is."""
    for number in range(5):
        rest, known = probabilities(seed(number), 14).double(), probabilities(seed(100 + number), 2).double()
        chosen = KCenter()(rest, known, 3)
        assert chosen.tolist() == naive_k_center(rest, known, 3)
        best = min(radius(rest, torch.cat([known, rest[list(three)]])) for three in combinations(range(14), 3))
        assert best <= radius(rest, torch.cat([known, rest[chosen]])) <= 2 * best


def test_uncertainty_is_by_definition(seed):
    """Margins and entropies by numpy and scipy, zeros among the probabilities."""
    p = torch.cat([probabilities(seed(0), 40), torch.eye(4)])
    two = p.numpy().copy()
    two.sort(axis=1)
    assert SmallestMargin()(p, p[:1], 9).tolist() == (two[:, -1] - two[:, -2]).argsort(kind="stable")[:9].tolist()
    assert LargestEntropy()(p, p[:1], 9).tolist() == (-entropy(p.numpy(), axis=1)).argsort(kind="stable")[:9].tolist()


@pytest.mark.parametrize("strategy", CHOICES, ids=lambda strategy: type(strategy).__name__)
def test_a_strategy_names_no_row_twice(strategy):
    """Be all rows alike, and be all of them wanted."""
    rows = torch.full((12, 3), 1 / 3)
    assert sorted(strategy(rows, rows[:2], 12).tolist()) == list(range(12))


def test_active_rounds_are_even_and_each_asks_what_its_copy_wants(cnn, pool, seed):
    """The second part is the strategy's choice on the answers of a copy that knows the first."""
    oracle, asked = recorded(cnn)
    attack = ActiveExtraction(COPY, 150, FIT, rounds=3)
    attack(oracle, pool, generator=seed(0))
    assert [len(x) for x in asked] == [38, 38, 37, 37]
    generator = seed(0)
    rows = torch.randperm(len(pool), generator=generator)[:38]
    copy = train_surrogate(
        COPY, pool.x[rows], published_probabilities(oracle, pool.x[rows]), fit=FIT, generator=generator, name="first"
    )
    said, rest = logits_of(copy, pool.x).softmax(1), torch.tensor(sorted(set(range(len(pool))) - set(rows.tolist())))
    expected = rest[SmallestMargin()(said[rest], said[rows], 38)]
    assert torch.equal(asked[1], pool.x[expected])


def test_a_step_along_the_jacobian_is_that_of_the_probability(linear, seed):
    """On a linear model dp_k/dx has the signs of w_k - sum_j p_j w_j; the box holds, the model is as it was."""
    model = linear(12, 3)
    x, y = torch.rand(600, 12, generator=seed(0), dtype=torch.float64), torch.arange(600) % 3
    w, p = model[1].weight, model(x).softmax(1)
    expected = (x + 0.3 * (w[y] - p @ w).sign()).clamp(0, 1)
    moved = jacobian_step(model, x, y, 0.3)
    assert torch.equal(moved, expected.detach())
    assert all(weights.requires_grad and weights.grad is None for weights in model.parameters())


def test_jacobian_augmentation_doubles_what_is_known_and_pays(cnn, pool, agreement, seed):
    """60, 120, then what is left; every new query is one step from a known one. It beats its seeds alone."""
    gains = []
    for number in range(3):
        oracle, asked = recorded(cnn)
        more = ATTACKS["jacobian"](oracle, pool, generator=seed(number))
        assert [len(x) for x in asked] == [60, 60, 30]
        assert places(asked[0], pool.x).min() >= 0
        known = torch.cat(asked[:2])
        steps = (asked[2][:, None] - known[None]).abs().flatten(2).amax(2).amin(1)
        assert steps.max() <= 0.1 + 1e-6
        alone = Knockoff(COPY, 60, FIT)(Oracle(cnn), pool, generator=seed(number))
        gains.append(agreement(more.model) - agreement(alone.model))
    assert sum(gains) > 0


@pytest.mark.parametrize("allowed", [[True, True, True], [True, False, True]], ids=["all", "two"])
def test_the_bandit_follows_the_gradient_of_the_expected_reward(allowed):
    """At step size 1 its mean move over actions is d(pi . q) / dH = pi_z (q_z - pi . q); what is not there stays."""
    q, there = torch.tensor([0.9, 0.1, 0.4], dtype=torch.float64), torch.tensor(allowed)
    mean = torch.zeros(3, dtype=torch.float64)
    for action in there.nonzero().flatten().tolist():
        bandit = GradientBandit(3, window=5)
        bandit.preferences += torch.tensor([0.3, -0.2, 0.5])
        start, pi = bandit.preferences.clone(), bandit.pi(there)
        bandit.rewards = torch.tensor([0.2, 0.6], dtype=torch.float64)  # any baseline: it falls out of the mean
        bandit.learn([action], q[action : action + 1], there)
        mean += pi[action] * (bandit.preferences - start)
        assert bandit.rewards.tolist() == [0.2, 0.6, q[action]]
    assert torch.allclose(mean, pi * (q - pi @ q))


def test_the_bandit_steps_from_the_mean_reward_and_less_each_time():
    """By hand: no step at the first reward; then, from pi = (1/2, 1/2), (r - mean) / N times (1/2, -1/2)."""
    bandit, both = GradientBandit(2, window=2), torch.tensor([True, True])
    bandit.learn([0], torch.tensor([0.7]), both)
    assert bandit.preferences.tolist() == [0, 0]
    bandit.learn([0, 1], torch.tensor([0.1, 0.9]), both)  # means 0.7, then (0.7 + 0.1) / 2; N is 2 and 1
    first, second = (0.1 - 0.7) / 2, (0.9 - 0.4) / 1
    assert bandit.preferences.tolist() == pytest.approx([first / 2 - second / 2, second / 2 - first / 2])
    assert bandit.rewards.tolist() == pytest.approx([0.1, 0.9])


@pytest.mark.parametrize(
    ("weights", "expected"),
    [((1, 0, 0), [0.4, 0.0]), ((0, 1, 0), [0.3, 0.2]), ((0, 0, 1), [0.2, 1.0]), ((1, 1, 2), [0.275, 0.55])],
)
def test_what_an_answer_is_worth(weights, expected):
    """Certainty, diversity against the mean of past answers, and loss, each by hand, and their weighted mean."""
    answers, past = torch.tensor([[0.6, 0.2, 0.2], [0.4, 0.4, 0.2]]), torch.tensor([[0.2, 0.4, 0.4], [0.4, 0.2, 0.4]])
    assert BanditSampling(*weights).reward(answers, past, torch.tensor([0.2, 1.0])).tolist() == pytest.approx(expected)
    unheard = BanditSampling(0, 1, 0).reward(
        answers, past[:0], torch.ones(2)
    )  # then the block's own mean, (0.5, 0.3, 0.2)
    assert unheard.tolist() == pytest.approx([0.1, 0.1])


def test_the_bandit_comes_to_what_pays(seed):
    """The step shrinks with the times that an action was taken; a window forgets."""
    bandit, generator, allowed = GradientBandit(3, window=25), seed(0), torch.tensor([True, True, False])
    assert bandit.pi(allowed).tolist() == [0.5, 0.5, 0]
    for _ in range(400):
        action = int(torch.multinomial(bandit.pi(allowed), 1, generator=generator))
        bandit.learn([action], torch.tensor([float(action == 1)]), allowed)
    assert bandit.pi(allowed)[1] > 0.9
    assert bandit.taken.sum() == 400
    assert len(bandit.rewards) == 25


def test_a_policy_asks_about_what_it_is_rewarded_for(seed):
    """A victim is sure of one class of the pool and knows nothing of the other."""

    def sure(z):
        return torch.where(z[:, :1] > 0.5, torch.tensor([9.0, 0.0]), torch.zeros(2))

    x = torch.cat([torch.full((120, 4), 0.9), torch.full((120, 4), 0.1)]) + 0.05 * torch.rand(240, 4, generator=seed(0))
    pool = Dataset(x, torch.arange(240) // 120, ("sure", "unsure"), "two kinds")
    shares = {}
    for name, weights in {"certainty": (1, 0, 0), "loss": (0, 0, 1)}.items():
        oracle, asked = recorded(Through(nn.Identity(), sure).eval())
        policy = BanditSampling(*weights, block=1)
        policy(oracle, pool, 100, Linear(), generator=seed(1))
        shares[name] = float((torch.cat(asked)[:, 0] > 0.5).double().mean())
    assert shares["certainty"] > 0.75
    assert shares["loss"] < 0.35, "once learned, the sure answers cost no loss; the others always do"
    asked_out = BanditSampling(1, 0, 0)(
        Oracle(Through(nn.Identity(), sure).eval()), pool, 200, Linear(), generator=seed(1)
    )
    assert len(places(asked_out.x, pool.x).unique()) == 200
    assert len(asked_out.rest) == 40


def test_self_training_answers_the_rest_by_the_mean_of_its_teachers(seed):
    """Each round one copy more; nothing is asked, and where nothing is left to answer one copy is all."""
    x, answers, rest = (
        torch.rand(5, 3, generator=seed(0)),
        probabilities(seed(1), 5),
        torch.rand(7, 3, generator=seed(2)),
    )
    trained, made = [], []

    def train(x, answers):
        trained.append((x, answers))
        made.append(Linear()((3,), 4, generator=seed(len(made))).eval())
        return made[-1]

    last = SelfTraining(teachers=3, rounds=2)(train, x, answers, rest)
    assert last is made[4]
    assert len(made) == 5
    assert all(torch.equal(given[0], x) and torch.equal(given[1], answers) for given in trained[:3])
    mean = sum(model(rest).softmax(1) for model in made[:3]) / 3
    for (told_x, told), guessed in zip(trained[3:], (mean, made[3](rest).softmax(1)), strict=True):
        assert torch.equal(told_x, torch.cat([x, rest]))
        assert torch.allclose(told, torch.cat([answers, guessed]), atol=1e-6)
    SelfTraining(teachers=3)(train, x, answers, rest[:0])
    assert len(made) == 6


@pytest.mark.parametrize(
    ("attack", "budget", "message"),
    [
        (Knockoff(COPY, 0), None, "a budget of 1 queries at least, got 0"),
        (Knockoff(COPY, 300), 299, "the oracle answers only 299 more"),
        (Copycat(COPY, 601), None, "takes 601 rows of digits, which has 600"),
        (JacobianAugmentation(COPY, 900, seeds=601), None, "where it has seeds, those"),
    ],
    ids=["none", "oracle", "pool", "seeds"],
)
def test_what_cannot_be_carried_out_asks_nothing(attack, budget, message, cnn, pool, seed):
    """It is refused at the door."""
    oracle = Oracle(cnn, budget=budget)
    with pytest.raises(ValueError, match=message):
        attack(oracle, pool, generator=seed(0))
    assert oracle.queries == 0


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: JacobianAugmentation(COPY, 50, seeds=60), "seeds must lie in 1..budget"),
        (lambda: ActiveExtraction(COPY, 4, rounds=4), "fewer than the budget"),
        (lambda: BanditSampling(0, 0, 0), "nor all zero"),
        (lambda: SelfTraining(teachers=0), "at least 1"),
        (lambda: RandomShift(-1), "at least 0 pixels"),
    ],
)
def test_settings_that_make_no_sense_are_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_a_victim_in_training_mode_is_refused(cnn, pool, seed):
    """Its answers would depend on the batch."""
    cnn.train()
    try:
        with pytest.raises(ValueError, match="training mode"):
            ATTACKS["knockoff"](Oracle(cnn), pool, generator=seed(0))
    finally:
        cnn.eval()


class Until(nn.Module):
    """A victim that takes 40 rows a call, and times out on the first one that passes so many rows in all."""

    rows = 40

    def __init__(self, model, last):
        super().__init__()
        self.model, self.left, self.training = model, last, False
        self.error = TimeoutError("no answer in time")

    def forward(self, x):
        self.left -= len(x)
        if self.left < 0:
            raise self.error
        return self.model(x)


@pytest.mark.parametrize("name", ATTACKS)
def test_a_thief_whose_victim_fails_half_way_keeps_what_was_answered(name, cnn, pool, agreement, seed):
    """A copy of the rows that were answered and of no other, the error beside it, and a warning."""
    asked: list[Tensor] = []
    oracle = Oracle(Until(cnn, 130), monitors=[lambda client, x, answers: asked.append(x)])
    with pytest.warns(RuntimeWarning, match="stopped answering after .* TimeoutError: no answer in time"):
        stolen = ATTACKS[name](oracle, pool, generator=seed(0))
    assert stolen.error is oracle.model.error
    assert 100 <= stolen.queries == oracle.queries == sum(map(len, asked)) <= 130
    assert agreement(stolen.model) > 0.4, "a tenth would be chance"
    assert not any(module.training for module in stolen.model.modules())
    with pytest.raises(TimeoutError, match="no answer in time"):
        ATTACKS[name](Oracle(Until(cnn, 0)), pool, generator=seed(0))


def test_answers_so_far_are_those_of_the_whole_run(cnn, pool, seed):
    """To the bit: the first rows, the copy that is trained on them alone, and no error where all is answered."""
    rows = torch.randperm(len(pool), generator=seed(0))[:120]
    with pytest.warns(RuntimeWarning):
        stolen = ATTACKS["knockoff"](Oracle(Until(cnn, 120)), pool, generator=seed(0))
    whole = published_probabilities(Oracle(cnn), pool.x[rows])
    generator = seed(0)
    torch.randperm(len(pool), generator=generator)
    copy = train_surrogate(COPY, pool.x[rows], whole, fit=FIT, generator=generator, name="answers")
    assert torch.equal(logits_of(stolen.model, pool.x), logits_of(copy, pool.x))
    assert ATTACKS["knockoff"](Oracle(cnn), pool, generator=seed(0)).error is None


@pytest.mark.parametrize("name", ["knockoff", "policy", "jacobian", "margin"])
def test_a_thief_whose_account_is_locked_has_what_it_was_told_before(name, cnn, pool, seed):
    """The answer that a monitor withholds is neither counted nor learned; who was never told anything has nothing."""
    seen = 0

    def lock(client, x, answers):
        nonlocal seen
        seen += len(x)
        if seen > 100:
            raise PermissionError(f"{client} is locked out")

    oracle = Oracle(cnn, monitors=[lock])
    if name == "knockoff":  # asks all at once
        with pytest.raises(PermissionError, match="attacker is locked out"):
            ATTACKS[name](oracle, pool, generator=seed(0))
        assert oracle.queries == 0
    else:
        with pytest.warns(RuntimeWarning, match="attacker is locked out"):
            stolen = ATTACKS[name](oracle, pool, generator=seed(0))
        assert isinstance(stolen.error, PermissionError)
        assert stolen.queries == oracle.queries <= 100
