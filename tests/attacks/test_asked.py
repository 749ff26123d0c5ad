"""Every attack on models as people have them: it finds what it finds on a plain equivalent, or says why not."""

import copy

import pytest
import torch
from torch import nn
from torch.nn.utils import parametrizations, prune

from aisec_lab.attacks import (
    APGD,
    DDN,
    EAD,
    FAB,
    FGSM,
    FMN,
    L1,
    L2,
    NES,
    PGD,
    AutoAttack,
    Boundary,
    BrendelBethge,
    CarliniWagner,
    DeepFool,
    GeoDA,
    HopSkipJump,
    Linf,
    SignOPT,
    SimBA,
    SpatialGrid,
    SpatialPGD,
    Square,
    WorstOfK,
)
from aisec_lab.models import CNN, TwoLogits, frozen

OLD = pytest.mark.filterwarnings("ignore:`torch.nn.utils.weight_norm`:FutureWarning")
EPS = 0.2
ATTACKS = {
    "FGSM": FGSM(Linf(EPS)),
    "PGD": PGD(Linf(EPS), steps=5, step_size=0.4),
    "APGD": APGD(Linf(EPS), steps=5),
    "Square": Square(Linf(EPS), queries=20),
    "NES": NES(Linf(EPS), queries=60),
    "AutoAttack": AutoAttack(Linf(EPS), steps=3, queries=10),
    "DeepFool": DeepFool(L2(0.0)),
    "DDN": DDN(steps=10),
    "FMN": FMN(L2(0.0), steps=10),
    "FAB": FAB(L2(0.0), steps=3),
    "CarliniWagner": CarliniWagner(steps=10, searches=2),
    "APGD in L1": APGD(L1(1.0), steps=5, larger_first=True),
    "Square in L1": Square(L1(1.0), queries=20),
    "EAD": EAD(steps=20, searches=2, step_size=0.05, beta=0.005, first_c=1.0),
    "BrendelBethge": BrendelBethge(L2(0.0), steps=5),
    "Boundary": Boundary(L2(0.0), queries=60),
    "HopSkipJump": HopSkipJump(L2(0.0), queries=200, samples=10),
    "SimBA": SimBA(Linf(EPS), queries=20),
    "SignOPT": SignOPT(L2(0.0), queries=60, directions=5, samples=10),
    "GeoDA": GeoDA(L2(0.0), queries=60, samples=5),
    "SpatialGrid": SpatialGrid(angles=3, shifts=3),
    "WorstOfK": WorstOfK(k=5),
    "SpatialPGD": SpatialPGD(steps=5),
}


def seed(number):
    return torch.Generator().manual_seed(number)


@pytest.fixture(scope="module")
def plain():
    return CNN(width=4, hidden=8)((1, 8, 8), 4, generator=seed(0)).eval()


@pytest.fixture(scope="module")
def rows(plain):
    x = torch.rand(6, 1, 8, 8, generator=seed(1))
    with torch.no_grad():
        return x, plain(x).argmax(1)


def found(attack, model, rows):
    x, y = rows
    given = x.clone(), y.clone()
    result = attack(model, *given, generator=seed(2))
    assert torch.equal(given[0], x)
    assert torch.equal(given[1], y)
    return getattr(result, "x_adv", result)


def last(model):
    return model[len(model) - 1]


def old_weight_norm(model):
    nn.utils.weight_norm(last(model))
    return model


def old_spectral_norm(model):
    nn.utils.spectral_norm(last(model))
    return model


def pruned(model):
    prune.l1_unstructured(last(model), "weight", 0.5)
    return model


def permuting(model):
    model.register_forward_hook(lambda _, args, logits: logits[:, [1, 2, 3, 0]])
    return model


def shifting(model):
    model.register_forward_pre_hook(lambda _, args: (1 - args[0],))
    return model


class InPlace(nn.Module):
    def __init__(self, model):
        super().__init__()
        self.model, self.training = model, False

    def forward(self, x):
        return self.model(x.mul_(0.5).add_(0.25))


class Gan(nn.Module):
    """A part with an attribute of the name that the lab's random models use."""

    def __init__(self, model):
        super().__init__()
        self.generator, self.model, self.training = nn.Identity(), model, False

    def forward(self, x):
        return self.model(self.generator(x))


KINDS = {
    "weight norm by a hook": old_weight_norm,
    "spectral norm by a hook": old_spectral_norm,
    "pruned": pruned,
    "weight norm": lambda model: parametrizations.weight_norm(last(model)) and model,
    "orthogonal": lambda model: parametrizations.orthogonal(last(model)) and model,
    "a hook that permutes classes": permuting,
    "a hook that turns images": shifting,
    "in place": InPlace,
    "a part called generator": Gan,
    "a part used twice": lambda model: nn.Sequential(blur := nn.AvgPool2d(3, 1, 1), blur, model),
}


class Written(nn.Module):
    """The same function with nothing that looks at it: each call runs a fresh copy in evaluation mode."""

    def __init__(self, model):
        super().__init__()
        self.training = False
        self._model = [model]  # no submodule: out of everybody's reach

    def forward(self, x):
        return self._model[0](x.clone())


def made(kind, plain):
    return KINDS[kind](copy.deepcopy(plain)).eval()


@OLD
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", ATTACKS)
def test_an_attack_sees_the_model_that_is_used(name, kind, plain, rows):
    """Loaded and never run, as by `load_state_dict`; the attack finds what it finds on the function as it is."""
    model = made(kind, plain)
    with torch.no_grad():
        for weight in model.parameters():  # as if other weights had been loaded
            weight.mul_(1.1)
        y = Written(model)(rows[0]).argmax(1)
    seen, expected = (found(ATTACKS[name], each, (rows[0], y)) for each in (model, Written(model)))
    torch.testing.assert_close(seen, expected)


@OLD
@pytest.mark.parametrize("kind", KINDS)
def test_a_frozen_model_is_the_same_function(kind, plain, rows):
    model = made(kind, plain)
    with torch.no_grad():
        outside = model(rows[0].clone())
        with frozen(model):
            assert torch.equal(model(rows[0].clone()), outside)


class Answer(nn.Module):
    """A model whose answer is what a function makes of logits."""

    def __init__(self, model, change):
        super().__init__()
        self.model, self.change, self.training = model, change, False

    def forward(self, x):
        return self.change(self.model(x), x)


NO_ANSWER = {
    "NaN": (lambda logits, x: logits * torch.nan, "NaN or infinite"),
    "infinity": (lambda logits, x: logits + torch.inf, "NaN or infinite"),
    "two infinities": (
        lambda logits, x: torch.cat([torch.full_like(logits[:, :2], torch.inf), logits[:, 2:]], 1),
        "NaN",
    ),
    "a tuple": (lambda logits, x: (logits, x), "got a tuple"),
    "a dict": (lambda logits, x: {"logits": logits}, "got a dict"),
    "a list": (lambda logits, x: [logits], "got a list"),
    "no columns": (lambda logits, x: logits[:, 0], r"got torch.float32 of shape \(6,\)"),
    "maps": (lambda logits, x: logits[:, :, None, None], r"of shape \(6, 4, 1, 1\)"),
    "classes": (lambda logits, x: logits.argmax(1), "got torch.int64"),
    "one logit": (lambda logits, x: logits[:, :1], "TwoLogits"),
    "another number of rows": (lambda logits, x: logits[:2], r"of shape \(2, 4\)"),
}


@pytest.mark.parametrize("kind", NO_ANSWER)
@pytest.mark.parametrize("name", ATTACKS)
def test_what_is_no_answer_is_refused_in_one_line(name, kind, plain, rows):
    change, message = NO_ANSWER[kind]
    y = torch.zeros_like(rows[1])
    with pytest.raises(ValueError, match=message) as raised:
        found(ATTACKS[name], Answer(plain, change), (rows[0], y))
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("value", [torch.nan, torch.inf])
@pytest.mark.parametrize("name", sorted(ATTACKS.keys() - {"FGSM"}))  # which asks about the clean rows alone
def test_a_model_that_breaks_down_off_the_data_is_not_robust(name, value, plain, rows):
    """Right on the clean rows, and no number anywhere else: the attack says so, and does not call it robust."""
    x, y = (rows[0] * 255).round() / 255, rows[1]
    with torch.no_grad():
        y = plain(x).argmax(1)
    clean = x.flatten(1)

    def change(logits, points):
        off = (torch.cdist(points.detach().flatten(1), clean).amin(1) > 1e-5)[:, None]
        return torch.where(off, value, logits)

    with pytest.raises(ValueError, match="NaN or infinite"):
        found(ATTACKS[name], Answer(plain, change), (x, y))


INPUTS = {
    "an array": (lambda x, y: (x.numpy(), y), "must be torch tensors, got ndarray"),
    "a list of classes": (lambda x, y: (x, y.tolist()), "must be torch tensors, got Tensor and list"),
    "bfloat16": (lambda x, y: (x.bfloat16(), y), r"torch.bfloat16: use \.float\(\)"),
    "float16": (lambda x, y: (x.half(), y), "torch.float16"),
    "bytes": (lambda x, y: ((x * 255).byte(), y), "divide bytes by 255"),
    "int32": (lambda x, y: (x, y.int()), r"use y\.long\(\)"),
    "one-hot": (lambda x, y: (x, nn.functional.one_hot(y, 4)), r"use y\.argmax\(1\)"),
}


@pytest.mark.parametrize("kind", INPUTS)
@pytest.mark.parametrize("name", ATTACKS)
def test_other_inputs_are_refused_with_the_mend(name, kind, plain, rows):
    change, message = INPUTS[kind]
    with pytest.raises(ValueError, match=message):
        ATTACKS[name](plain, *change(*rows), generator=seed(0))


def test_one_logit_is_two(rows):
    """The wrapper gives sigmoid's probability, for (N, 1) and for (N,), and can be attacked."""
    torch.manual_seed(0)
    binary = nn.Sequential(nn.Flatten(), nn.Linear(64, 1)).eval()
    two = TwoLogits(binary).eval()
    assert torch.allclose(two(rows[0]).softmax(1)[:, 1], binary(rows[0]).squeeze(1).sigmoid())
    flat = TwoLogits(nn.Sequential(binary, nn.Flatten(0)).eval())
    assert torch.equal(flat(rows[0]), two(rows[0]))
    y = two(rows[0]).argmax(1)
    assert (two(PGD(Linf(0.3))(two, rows[0], y, generator=seed(0))).argmax(1) != y).any()
