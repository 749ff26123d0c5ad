"""Transfer learning: what is frozen stays, the rest is trained, and where nothing could be, one line says so."""

import copy

import pytest
import torch
from torch import nn
from torch.nn.utils import parametrizations, prune

from aisec_lab.attacks import PGD, FineTuningAttack, Linf, OverwritingAttack
from aisec_lab.data import Dataset
from aisec_lab.defenses import (
    AWP,
    HYDRA,
    IBAU,
    AdversarialTraining,
    DeepSigns,
    DefensiveDistillation,
    EntangledWatermark,
    FinePruning,
    FreeAdversarialTraining,
    Key,
    KnowledgeDistillation,
    MagnitudePruning,
    NeuralCleanse,
    NeuralCleanseUnlearning,
    ObjectiveWithStep,
    Standard,
    StructuredPruning,
    TriggerSet,
    Uchida,
    WarmStart,
)
from aisec_lab.defenses.ownership.entangling import Entangling, Triggers, soft_nearest_neighbours
from aisec_lab.models import MLP, Fit, copied, trainable

KEY = Key(bytes(32))
SHORT = Fit(epochs=1, batch_size=32)
SCORES = Fit(epochs=1, batch_size=32, weight_decay=0.0)
STANDARD = Standard()


def seed(number):
    return torch.Generator().manual_seed(number)


@pytest.fixture(scope="module")
def rows():
    return Dataset(torch.rand(61, 1, 8, 8, generator=seed(0)), torch.arange(61) % 3, ("a", "b", "c"), "made")


def backbone():
    """Convolutions with batch norms, and linear layers behind them."""
    torch.manual_seed(0)
    return nn.Sequential(
        *(nn.Conv2d(1, 4, 3, 2, 1), nn.BatchNorm2d(4), nn.ReLU()),
        *(nn.Conv2d(4, 8, 3, 2, 1), nn.BatchNorm2d(8), nn.ReLU()),
        *(nn.Flatten(), nn.Linear(32, 12), nn.ReLU(), nn.Linear(12, 8), nn.ReLU(), nn.Linear(8, 3)),
    )


def transferred():
    """The convolutions and their norms are frozen, as someone else's; they have seen data."""
    model = backbone()
    with torch.no_grad():
        model(torch.rand(50, 1, 8, 8, generator=seed(1)))
    model[:6].requires_grad_(False)
    return model.eval()


def followed(objective):
    """A training in place, as a defense of a copy."""

    def train(model, rows):
        model = copied(model)
        SHORT(model, rows, objective, generator=seed(0))
        return model

    return train


def repaired(defense):
    return lambda model, rows: defense(model, rows, generator=seed(0))


def compressed(defense):
    return lambda model, rows: defense(model, data=rows, generator=seed(0))


def marked(mark):
    return lambda model, rows: mark.embed(model, rows, KEY, generator=seed(0)).model


TRAINED = {
    "fine-tuning": repaired(FineTuningAttack(SHORT)),
    "I-BAU": repaired(IBAU(rounds=2)),
    "unstamping": repaired(NeuralCleanseUnlearning(NeuralCleanse(rounds=2, threshold=0.01), SHORT)),
    "overwriting": repaired(OverwritingAttack(TriggerSet(n=5, fit=SHORT), Key.drawn)),
    "trigger set": marked(TriggerSet(n=5, fit=SHORT)),
    "entangled": marked(EntangledWatermark(4, 2, fit=SHORT)),
    "weight mark": marked(Uchida(bits=4, layer=-2, fit=SHORT)),
    "activation mark": marked(DeepSigns(bits=4, rows=2, layer=-1, fit=SHORT)),
    "standard": followed(STANDARD),
    "adversarial": followed(AdversarialTraining(PGD(Linf(0.1), steps=1, step_size=1.6))),
    "distillation": followed(DefensiveDistillation()),
    "warm start": followed(WarmStart(STANDARD, 1)),
    "AWP": followed(ObjectiveWithStep(STANDARD, AWP())),
    "free": followed(ObjectiveWithStep(STANDARD, FreeAdversarialTraining(Linf(0.1), 2))),
}
EDITED = {
    "fine-pruning": repaired(FinePruning(fit=SHORT)),
    "magnitude": compressed(MagnitudePruning(0.5, 1, SHORT)),
    "robust": compressed(HYDRA(STANDARD, 0.5, SCORES, SHORT)),
}


@pytest.mark.parametrize("name", TRAINED)
def test_what_is_frozen_stays_to_the_bit_and_the_rest_learns(name, rows):
    model = transferred()
    before = copy.deepcopy(model.state_dict())
    after = TRAINED[name](model, rows)
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())
    assert [weight.requires_grad for weight in after.parameters()] == [w.requires_grad for w in model.parameters()]
    for key, value in after.state_dict().items():
        if int(key.split(".")[0]) < 6:
            assert torch.equal(value, before[key])
    assert not torch.equal(after[7].weight, model[7].weight)
    assert not any(part.training for part in after.modules())


@pytest.mark.parametrize("name", EDITED)
def test_what_is_frozen_is_pruned_and_not_trained(name, rows):
    """An entry of a frozen layer is zero or what it was, and statistics stay."""
    model = transferred()
    before = copy.deepcopy(model.state_dict())
    after = EDITED[name](model, rows)
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())
    assert [weight.requires_grad for weight in after.parameters()] == [w.requires_grad for w in model.parameters()]
    for key, value in after.state_dict().items():
        if int(key.split(".")[0]) < 6:
            assert torch.equal(value, before[key] * (value != 0))
    assert not torch.equal(after[9].weight, model[9].weight * (after[9].weight != 0))


@pytest.mark.parametrize("name", [*TRAINED, *EDITED])
def test_a_model_without_a_trainable_weight_is_refused(name, rows):
    with pytest.raises(ValueError, match=r"all weights are frozen|cannot be marked|can be entangled"):
        (TRAINED | EDITED)[name](transferred().requires_grad_(False), rows)


def test_a_student_learns_from_a_frozen_teacher(rows):
    teacher = transferred().requires_grad_(False)
    student = KnowledgeDistillation(MLP((4,)), SHORT)(teacher, data=rows, generator=seed(0))
    assert len(trainable(student)) == 4


def test_structured_pruning_keeps_what_is_frozen_frozen(rows):
    pruned = StructuredPruning(0.5, SHORT)(transferred(), data=rows, generator=seed(0))
    assert [weight.requires_grad for weight in pruned.parameters()] == [False] * 8 + [True] * 6
    assert pruned[0].weight.shape == (2, 1, 3, 3)


REFUSED = {
    "a frozen layer": (Uchida(bits=4, layer=0), transferred, "its weight is frozen: take another"),
    "frozen before it": (DeepSigns(4, layer=2), transferred, "nothing that is trained lies before it"),
    "the first": (DeepSigns(4, layer=0), backbone, "nothing that is trained lies before it"),
    "no hidden layer": (
        EntangledWatermark(4, 2, fit=SHORT),
        lambda: nn.Sequential(nn.Flatten(), nn.Linear(64, 3)),
        "set kappa=0 for a plain backdoor",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_a_mark_that_training_cannot_make_is_refused(name, rows):
    mark, build, message = REFUSED[name]
    with pytest.raises(ValueError, match=message):
        mark.embed(build(), rows, KEY, generator=seed(0))


class Spare(nn.Module):
    """Lists a layer first that it never calls, and its layers in another order than that of the calls."""

    def __init__(self):
        super().__init__()
        self.unused, self.last, self.first = nn.Linear(8, 8), nn.Linear(6, 3), nn.Linear(64, 6)

    def forward(self, x):
        return self.last(self.first(x.flatten(1)).relu())


@pytest.mark.parametrize("mark", [Uchida(bits=4, layer=0), DeepSigns(4, layer=0)], ids=["weights", "entering"])
def test_a_mark_in_a_layer_that_is_never_called_is_refused(mark, rows):
    with pytest.raises(ValueError, match="layer 0 is called never: choose one that sees each row once"):
        mark.embed(Spare(), rows, KEY, generator=seed(0))


def test_what_is_entangled_is_what_is_called_before_the_last(rows):
    """`first`, though it is listed behind `last`: what kappa takes off is the loss of its outputs alone."""
    triggers = Triggers.of(KEY, 4, 2, rows.shape, 3)
    model, x, y, seen = Spare(), rows.x[:9], rows.y[:9], []
    with model.first.register_forward_hook(lambda _, args, out: seen.append(out)):
        plain, entangled = (Entangling(triggers, rows, kappa)(model, x, y, generator=seed(0)) for kappa in (0, 1))
    target = triggers.target[torch.randint(4, (9,), generator=seed(0))]
    kind = torch.arange(18) >= 9
    expected = soft_nearest_neighbours(seen[1], torch.cat([y, target]), kind)
    torch.testing.assert_close(plain - entangled, expected.expand(9))
    assert expected > 0


@pytest.mark.parametrize("training", [AWP(), FreeAdversarialTraining(Linf(0.1), 2)], ids=["AWP", "free"])
def test_a_weight_that_is_never_used_is_no_obstacle(training, rows):
    for learn in (followed(ObjectiveWithStep(STANDARD, training)), repaired(IBAU(rounds=1))):
        model = Spare().eval()
        after = learn(model, rows)
        assert not torch.equal(after.first.weight, model.first.weight)


HOOKED = {
    "pruned": lambda layer: prune.l1_unstructured(layer, "weight", 0.3),
    "weight norm by a hook": nn.utils.weight_norm,
    "spectral norm by a hook": nn.utils.spectral_norm,
    "weight norm": parametrizations.weight_norm,
    "spectral norm": parametrizations.spectral_norm,
}


@pytest.mark.filterwarnings("ignore:`torch.nn.utils.weight_norm`:FutureWarning")
@pytest.mark.parametrize("kind", HOOKED)
@pytest.mark.parametrize("name", [name for name in TRAINED if name != "unstamping"])
def test_weights_that_are_computed_are_copied_and_trained(kind, name, rows):
    model = backbone()
    HOOKED[kind](model[7])
    model.train()(rows.x)  # leaves the last weight with its graph
    model.eval()
    twin = copied(model)
    torch.testing.assert_close(twin(rows.x), model(rows.x))
    before = copied(model).state_dict()
    TRAINED[name](model, rows)
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())


@pytest.mark.filterwarnings("ignore:`torch.nn.utils.weight_norm`:FutureWarning")
@pytest.mark.parametrize("kind", HOOKED)
def test_a_mark_in_computed_weights_is_seen_right_after_loading(kind, rows):
    """No pass since `load_state_dict`: the suspect's weights are those that its next pass computes."""
    mark = Uchida(bits=8, layer=2, strength=1.0, fit=Fit(epochs=30, batch_size=32, learning_rate=0.01))
    model, fresh = backbone(), backbone()
    HOOKED[kind](model[7])
    HOOKED[kind](fresh[7])
    claim = mark.embed(model, rows, KEY, generator=seed(0))
    found = mark.verify(claim.model, claim)
    assert found < 0.05
    fresh.load_state_dict(claim.model.state_dict())
    assert mark.verify(fresh.eval(), claim) == found
