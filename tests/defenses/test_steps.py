"""Steps and the probe: weight perturbation, free replays, and the watch against catastrophic overfitting."""

import copy
from dataclasses import replace

import pytest
import torch
from torch.nn.functional import cross_entropy

from aisec_lab.attacks import FGSM, L2, PGD, Linf
from aisec_lab.data import Dataset
from aisec_lab.defenses import (
    AWP,
    TRADES,
    AdversarialTraining,
    FreeAdversarialTraining,
    ObjectiveWithStep,
    OverfittingProbe,
    Standard,
)
from aisec_lab.models import MLP, Fit, plain_step


def seed(number):
    return torch.Generator().manual_seed(number)


def fresh(hidden=(16,)):
    return MLP(hidden)((1, 8, 8), 10, generator=seed(1)).double().train()


def sgd(model):
    return torch.optim.SGD(model.parameters(), lr=0.1)


@pytest.fixture
def batch(splits):
    return splits.train.x[:32].double(), splits.train.y[:32]


@pytest.fixture
def few(splits):
    """100 rows: three batches, the last one small."""
    return splits.train.subset(torch.arange(100))


def same(a, b):
    return all(torch.equal(p, q) for p, q in zip(a.parameters(), b.parameters(), strict=True))


def test_awp_is_its_formula(batch):
    """By hand: each matrix moves by gamma |w| g / |g|, the gradient is taken there, the update is made from w."""
    x, y = batch
    model, gamma = fresh(), 0.1
    moved = copy.deepcopy(model)
    cross_entropy(moved(x), y).backward()
    with torch.no_grad():
        for w in moved.parameters():
            if w.ndim > 1:
                w += gamma * w.norm() * w.grad / w.grad.norm()
    moved.zero_grad()
    there = cross_entropy(moved(x), y, reduction="none")
    there.mean().backward()
    expected = [w - 0.1 * v.grad for w, v in zip(model.parameters(), moved.parameters(), strict=True)]
    batch_losses = AWP(gamma)(model, sgd(model), lambda: cross_entropy(model(x), y, reduction="none"))
    torch.testing.assert_close(batch_losses, there.detach())
    torch.testing.assert_close(list(model.parameters()), expected)
    assert (there > cross_entropy(fresh()(x), y, reduction="none")).double().mean() > 0.9


def test_awp_restores_the_weights_to_the_bit(batch):
    """With a learning rate of zero nothing is left of the perturbation; nor when the objective fails on the way."""
    x, y = batch
    model, calls = fresh().float(), []
    still = torch.optim.SGD(model.parameters(), lr=0.0)
    before = copy.deepcopy(model)

    def losses():
        calls.append(not same(model, before))
        if len(calls) > 2:
            raise KeyboardInterrupt
        return cross_entropy(model(x.float()), y, reduction="none")

    AWP(0.3)(model, still, losses)
    assert calls == [False, True]
    assert same(model, before)
    calls[:] = [True]
    with pytest.raises(KeyboardInterrupt):
        AWP(0.3)(model, still, losses)
    assert calls == [True, False, True]
    assert same(model, before)


def test_awp_composes_with_trades(few):
    """Through the one loop, and not the same as without it; it costs twice the passes."""
    objective = TRADES(PGD(Linf(0.1), steps=2))
    records, models = [], []
    for trained_with in (objective, ObjectiveWithStep(objective, step=AWP())):
        models.append(fresh().float())
        records += Fit(epochs=1)(models[-1], few, trained_with, generator=seed(0))
    assert not same(*models)
    assert records[1]["forward_passes"] == 2 * records[0]["forward_passes"]


@pytest.mark.parametrize("ball", [Linf(0.1), L2(0.5)], ids=repr)
def test_free_replays_with_a_perturbation_that_it_carries(ball, batch):
    """Against a loop by hand: three replays of two batches; the second, a smaller one, begins where the first ended."""
    x, y = batch
    model, naive = fresh(), fresh()
    optimizer, by_hand = sgd(model), sgd(naive)
    delta = torch.zeros_like(x)
    for rows in (slice(0, 32), slice(10, 30)):
        a, b = x[rows], y[rows]
        losses = FreeAdversarialTraining(ball, replays=3)(
            model, optimizer, lambda a=a, b=b: cross_entropy(model(a), b, reduction="none")
        )
        for _ in range(3):
            start = ball.project(a, delta[: len(a)])
            z = (a + start).requires_grad_()
            by_hand.zero_grad()
            expected = cross_entropy(naive(z), b, reduction="none")
            expected.mean().backward()
            by_hand.step()
            delta[: len(a)] = ball.project(a, start + ball.eps * ball.ascent_direction(z.grad))
        torch.testing.assert_close(losses, expected.detach())
    torch.testing.assert_close(list(model.parameters()), list(naive.parameters()))
    assert not model._forward_pre_hooks


def test_free_costs_its_replays_and_nothing_else(few):
    """m passes forward and backward a row and epoch, where PGD would cost its steps more."""
    (record,) = Fit(epochs=1)(
        fresh().float(),
        few,
        ObjectiveWithStep(Standard(), step=FreeAdversarialTraining(Linf(0.1), 4)),
        generator=seed(0),
    )
    assert (record["forward_passes"], record["backward_passes"]) == (400, 400)


def test_an_interrupted_free_run_goes_on_to_the_same_bits(few, tmp_path):
    """The perturbation is resumed with the optimizer's state."""

    class Killed(FreeAdversarialTraining):
        left = 3 * 2

        def __call__(self, model, optimizer, losses):
            Killed.left -= 1
            if Killed.left < 0:
                raise KeyboardInterrupt
            return super().__call__(model, optimizer, losses)

    fit, ball = Fit(epochs=4, batch_size=40), Linf(0.1)
    whole, half, resumed = (fresh().float() for _ in range(3))
    expected = fit(whole, few, ObjectiveWithStep(Standard(), step=FreeAdversarialTraining(ball)), generator=seed(0))
    with pytest.raises(KeyboardInterrupt):
        fit(half, few, ObjectiveWithStep(Standard(), step=Killed(ball)), generator=seed(0), resume=tmp_path / "run.pt")
    objective = ObjectiveWithStep(Standard(), step=FreeAdversarialTraining(ball))
    assert fit(resumed, few, objective, generator=seed(9), resume=tmp_path / "run.pt") == expected
    assert same(resumed, whole)


def test_free_training_makes_digits_robust(splits):
    """Where clean digits do not."""
    robust = {}
    attack = PGD(Linf(0.2), steps=10)
    for name, step in {"plain": plain_step, "free": FreeAdversarialTraining(Linf(0.2), replays=4)}.items():
        model = MLP((64,))((1, 8, 8), 10, generator=seed(0))
        Fit(epochs=8, learning_rate=0.01)(model, splits.train, Standard(), generator=seed(0), step=step)
        x_adv = attack(model, splits.test.x, splits.test.y, generator=seed(0))
        robust[name] = (model(x_adv).argmax(1) == splits.test.y).double().mean().item()
    assert robust["free"] > robust["plain"] + 0.3


def test_the_probe_sees_catastrophic_overfitting_and_only_that(splits):
    """A single step of 0.4 without a random start overfits: the loss falls on, robustness at 0.15 collapses.

    Training ends before the epoch in which that is seen. Under PGD training at the same eps the probe keeps still.
    """
    train = replace(
        splits.train,
        x=torch.cat([splits.train.x, splits.splits["clean"].x]),
        y=torch.cat([splits.train.y, splits.splits["clean"].y]),
    )
    ball, fit = Linf(0.4), Fit(epochs=20, learning_rate=0.002)
    probe = OverfittingProbe(PGD(Linf(0.15), steps=10, step_size=0.25), fall=0.15)
    histories, robust = [], []
    for attack in (FGSM(ball), PGD(ball, steps=5, step_size=0.25, early_stop=False)):
        model = MLP((512, 512))((1, 8, 8), 10, generator=seed(0))
        objective = ObjectiveWithStep(AdversarialTraining(attack), probe=probe)
        histories.append(fit(model, train, objective, generator=seed(0)))
        robust.append(probe(model, train)["probe_accuracy"])
    single, many = histories
    assert 3 < len(single) < 20
    assert single[-1]["loss"] < single[-4]["loss"]
    assert single[-1]["probe_accuracy"] < max(r["probe_accuracy"] for r in single) - 0.15
    assert robust[0] == single[-2]["probe_accuracy"]
    assert len(many) == 20
    assert robust[1] > 0.5


class Scripted:
    """A probe that is told what to find."""

    def __init__(self, accuracies):
        self.left = list(accuracies)

    def __call__(self, model, dataset):
        return {"probe_accuracy": self.left.pop(0)}

    def should_stop(self, history):
        return OverfittingProbe(PGD(Linf(0.1))).should_stop(history)


def test_a_spoiled_epoch_is_undone_and_ends_the_training(few):
    """The weights are those after the epoch before, to the bit; the spoiled one has its record."""
    model, expected = fresh().float(), fresh().float()
    history = Fit(epochs=9)(model, few, Standard(), generator=seed(0), probe=Scripted([0.1, 0.5, 0.4, 0.29, 0.9]))
    assert [record["probe_accuracy"] for record in history] == [0.1, 0.5, 0.4, 0.29]
    assert not model.training

    with pytest.raises(IndexError):  # the same training, cut off after its third epoch
        Fit(epochs=9)(expected, few, Standard(), generator=seed(0), probe=Cut())
    assert same(model, expected)


class Cut:
    def __call__(self, model, dataset):
        return {}

    def should_stop(self, history):
        if len(history) == 3:
            raise IndexError
        return False


def test_a_resumed_run_stops_where_the_whole_one_did(few, tmp_path):
    """The spoiled epoch is not written to the file: it is run again, and found spoiled again."""
    script = [0.5, 0.5, 0.1]
    whole, resumed = fresh().float(), fresh().float()
    expected = Fit(epochs=9)(
        whole, few, Standard(), generator=seed(0), probe=Scripted(script), resume=tmp_path / "run.pt"
    )
    history = Fit(epochs=9)(
        resumed, few, Standard(), generator=seed(9), probe=Scripted(script[2:]), resume=tmp_path / "run.pt"
    )
    assert history == expected
    assert same(whole, resumed)


def test_probing_changes_no_weight_and_is_counted(few):
    """The training draws nothing from the probe; its passes are part of the cost."""
    probed, alone = fresh().float(), fresh().float()
    probe = OverfittingProbe(PGD(Linf(0.01), steps=3, early_stop=False), rows=50)
    (record,) = Fit(epochs=1)(probed, few, ObjectiveWithStep(Standard(), probe=probe), generator=seed(0))
    (plainly,) = Fit(epochs=1)(alone, few, Standard(), generator=seed(0))
    assert same(probed, alone)
    assert record["forward_passes"] == plainly["forward_passes"] + 50 * (4 + 1)
    assert record["backward_passes"] == plainly["backward_passes"] + 50 * 3


def test_a_recipe_takes_no_second_step(few: Dataset):
    """It would be ambiguous which one counts."""
    with pytest.raises(ValueError, match="ObjectiveWithStep brings its own step, batches and probe"):
        Fit(epochs=1)(fresh(), few, ObjectiveWithStep(Standard()), generator=seed(0), step=AWP())


@pytest.mark.parametrize(
    "make",
    [
        lambda: AWP(0),
        lambda: FreeAdversarialTraining(Linf(0.1), 0),
        lambda: OverfittingProbe(PGD(Linf(0.1)), fall=0),
        lambda: OverfittingProbe(PGD(Linf(0.1)), rows=0),
    ],
)
def test_impossible_settings_are_refused(make):
    """When they are made."""
    with pytest.raises(ValueError, match="must"):
        make()
