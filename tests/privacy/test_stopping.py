"""Stopping early, being interrupted, going on: the accountant is told of the steps that the weights have seen."""

from dataclasses import dataclass, field

import pytest
import torch
from torch import nn

from aisec_lab.data import Dataset
from aisec_lab.models import Fit
from aisec_lab.privacy import DPSGD, RowByRowClipping, epsilons
from aisec_lab.privacy.dp_step import DPStep
from aisec_lab.privacy.federated import ClientUpdate

ROWS, BATCH = 50, 8
EPOCH = 7  # steps of one
X = torch.rand(ROWS, 4, generator=torch.Generator().manual_seed(0))
DATA = Dataset(X, (2 * X[:, 0]).long().clamp(max=1), ("a", "b"), "made")
FIT = Fit(epochs=5, batch_size=BATCH)


def seed(number):
    return torch.Generator().manual_seed(number)


def network():
    torch.manual_seed(0)
    return nn.Linear(4, 2)


def vector(model):
    return nn.utils.parameters_to_vector(model.parameters()).detach().clone()


@dataclass(frozen=True)
class After:
    """Stops after so many epochs, and counts how often it was asked."""

    epochs: int
    asked: list = field(default_factory=list, compare=False, repr=False)

    def __call__(self, model):
        assert not model.training
        self.asked.append(vector(model))
        return len(self.asked) == self.epochs


def told(mechanisms):
    """What an accountant says of them."""
    return epsilons(mechanisms, 1e-3, accountants=["rdp"])["rdp"]


def steps_of(monkeypatch):
    """The list that grows by one with each noisy step."""
    taken, real = [], DPStep.__call__

    def counted(self, *args, **kwargs):
        taken.append(1)
        return real(self, *args, **kwargs)

    monkeypatch.setattr(DPStep, "__call__", counted)
    return taken


@pytest.mark.parametrize("epochs", [1, 3, 5])
def test_a_training_that_stops_spends_the_steps_it_took(epochs, monkeypatch):
    """With the noise of the whole plan: less than the target, and just it where it ends as planned."""
    taken, stop = steps_of(monkeypatch), After(epochs)
    recipe, model = DPSGD(noise_multiplier=1.5, delta=1e-3, stop=stop), network()
    history = FIT(model, DATA, recipe, generator=seed(1))
    spent, planned = recipe.spent(FIT, ROWS, history), recipe.mechanism(FIT, ROWS)
    assert len(taken) == spent.steps == epochs * EPOCH
    assert len(history) == len(stop.asked) == epochs
    assert (spent.q, spent.sigma) == (planned.q, planned.sigma)
    assert torch.equal(vector(model), stop.asked[-1])
    assert not model.training
    assert (told([spent]) < 0.99 * told([planned])) == (epochs < 5)


def test_a_question_changes_nothing_of_the_training():
    """Asked and never stopped it ends with the same bits as unasked."""
    ends = []
    for stop in (None, After(99)):
        model = network()
        history = FIT(model, DATA, DPSGD(noise_multiplier=1.0, delta=1e-3, stop=stop), generator=seed(1))
        ends.append(vector(model))
        assert ("stopped" in history[-1]) == (stop is not None)
    assert torch.equal(*ends)


def test_a_training_that_has_stopped_stays_so_when_it_is_resumed(tmp_path, monkeypatch):
    """Its file says so; nothing more is taken, and it spends what it spent."""
    stop, model, again = After(2), network(), network()
    recipe = DPSGD(noise_multiplier=1.0, delta=1e-3, stop=stop)
    history = FIT(model, DATA, recipe, generator=seed(1), resume=tmp_path / "run")
    taken = steps_of(monkeypatch)
    assert FIT(again, DATA, recipe, generator=seed(9), resume=tmp_path / "run") == history
    assert not taken
    assert torch.equal(vector(again), vector(model))


@pytest.mark.parametrize("release", [False, True])
@pytest.mark.parametrize("at", [0, 3, EPOCH, 2 * EPOCH + 1, 3 * EPOCH - 1])
def test_an_interruption_leaves_whole_epochs(at, release, tmp_path, monkeypatch):
    """The steps of the broken epoch are in no weight that is left: what is resumed spends no more than was planned."""
    stop, model, taken = After(99), network(), steps_of(monkeypatch)
    recipe = DPSGD(noise_multiplier=1.0, delta=1e-3, stop=stop, release=release)
    before, real = vector(model), DPStep.__call__

    def broken(self, *args, **kwargs):
        if len(taken) == at:
            raise KeyboardInterrupt
        return real(self, *args, **kwargs)

    monkeypatch.setattr(DPStep, "__call__", broken)
    with pytest.raises(KeyboardInterrupt):
        FIT(model, DATA, recipe, generator=seed(1), resume=tmp_path / "run")
    whole = at // EPOCH
    assert len(stop.asked) == whole
    assert torch.equal(vector(model), stop.asked[-1] if whole else before)
    assert not model.training
    monkeypatch.setattr(DPStep, "__call__", real)
    taken.clear()
    history = FIT(model, DATA, recipe, generator=seed(1), resume=tmp_path / "run")
    assert len(taken) == (5 - whole) * EPOCH
    assert recipe.spent(FIT, ROWS, history).steps == 5 * EPOCH == whole * EPOCH + len(taken)


def test_training_on_spends_beside():
    """Two calls are two mechanisms: together more than either, and less than their sum."""
    recipe, model = DPSGD(noise_multiplier=1.0, delta=1e-3, clipping=RowByRowClipping()), network()
    first, then = FIT, Fit(epochs=2, batch_size=BATCH)
    spent = [recipe.spent(fit, ROWS, fit(model, DATA, recipe, generator=seed(1))) for fit in (first, then)]
    alone = [told([one]) for one in spent]
    assert max(alone) < told(spent) < sum(alone)
    assert told(spent) == pytest.approx(told([recipe.mechanism(Fit(epochs=7, batch_size=BATCH), ROWS)]))


def test_what_makes_no_sense_is_refused():
    recipe = DPSGD(noise_multiplier=1.0, delta=1e-3, stop=After(1))
    with pytest.raises(ValueError, match="6 records of a training of 5 epochs"):
        recipe.spent(FIT, ROWS, [{}] * 6)
    with pytest.raises(ValueError, match="not asked to stop"):
        ClientUpdate(privacy=recipe)
