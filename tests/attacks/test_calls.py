"""How an attack is called: every attack refuses the same misuse in one line, and leaves nothing of a call behind."""

import re
import warnings
from functools import partial

import pytest
import torch
from torch import nn

from aisec_lab.attacks import (
    APGD,
    BPDA,
    FAB,
    FGSM,
    FMN,
    L1,
    L2,
    MIFGSM,
    NES,
    PGD,
    Adaptive,
    AdversarialPatch,
    AutoAttack,
    Boundary,
    DeepFool,
    FixedEpsilon,
    HopSkipJump,
    InBatches,
    Linf,
    LowPrecision,
    MIFace,
    Oracle,
    Sponge,
    Square,
    Targeted,
    TargetedAPGD,
    TargetedFAB,
    Universal,
)
from aisec_lab.attacks.extraction.result import published_probabilities
from aisec_lab.attacks.inference.inversion import PriorInversion
from aisec_lab.data import Dataset
from aisec_lab.defenses.ownership.suspect import Suspect
from aisec_lab.evaluation import run_attack, run_minimum_norm, security_curve
from aisec_lab.evaluation.diagnostics import diagnose
from aisec_lab.models import logits_of
from tests.attacks.every_attack import ATTACKS, found
from tests.odd_models import seed

BY_ANSWERS = {
    "Square",
    "Square in L1",
    "NES",
    "SimBA",
    "Boundary",
    "HopSkipJump",
    "SignOPT",
    "GeoDA",
    "SpatialGrid",
    "WorstOfK",
}
BY_GRADIENT = sorted(ATTACKS.keys() - BY_ANSWERS)


@pytest.fixture(scope="module")
def dataset(rows):
    return Dataset(*rows, ("a", "b", "c", "d"), "rows")


@pytest.mark.parametrize("generator", [None, 0], ids=repr)
@pytest.mark.parametrize("name", ATTACKS)
def test_a_generator_is_a_generator(name, generator, plain, rows):
    with pytest.raises(ValueError, match=r"must be a torch.Generator, got .*: use torch.Generator\(\)"):
        ATTACKS[name](plain, *rows, generator=generator)


@pytest.mark.parametrize("name", ATTACKS)
def test_a_model_is_a_module(name, plain, rows):
    with pytest.raises(ValueError, match="must be a torch.nn.Module in evaluation mode, got a function"):
        ATTACKS[name](lambda x: plain(x), *rows, generator=seed(0))


class Rounded(nn.Module):
    """What a server answers: computed elsewhere, so without a gradient."""

    def __init__(self, model):
        super().__init__()
        self.model, self.training = model, False

    def forward(self, x):
        return torch.as_tensor(self.model(x).detach().numpy())


@pytest.mark.parametrize("name", BY_GRADIENT)
def test_no_gradient_is_said(name, plain, rows):
    with pytest.raises(ValueError, match="has no gradient in its inputs") as raised:
        ATTACKS[name](Rounded(plain), *rows, generator=seed(0))
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("invert", [partial(MIFace(steps=2), start=torch.rand(2, 1, 8, 8)),
                                    partial(PriorInversion(steps=2), mean=torch.rand(1, 8, 8))])  # fmt: skip
def test_no_gradient_is_said_where_a_prior_has_one(invert, plain):
    with pytest.raises(ValueError, match="has no gradient in its inputs"):
        invert(Rounded(plain), torch.zeros(2, dtype=torch.int64))


@pytest.mark.parametrize("name", sorted(BY_ANSWERS))
def test_scores_and_labels_need_no_gradient(name, plain, rows):
    assert torch.equal(found(ATTACKS[name], Rounded(plain), rows), found(ATTACKS[name], plain, rows))


@pytest.mark.parametrize("name", BY_GRADIENT)
def test_inference_mode_is_refused_and_its_tensors_are_not(name, plain, rows):
    x, y = rows
    with torch.inference_mode():
        inside = x.clone()
        with pytest.raises(ValueError, match="cannot run inside torch.inference_mode"):
            ATTACKS[name](plain, x, y, generator=seed(0))
    assert torch.equal(found(ATTACKS[name], plain, (inside, y)), found(ATTACKS[name], plain, rows))


@pytest.mark.parametrize("name", ATTACKS)
def test_a_result_carries_no_graph(name, plain, rows):
    x, y = rows
    given = x.clone().requires_grad_()
    result = ATTACKS[name](plain, given, y, generator=seed(2))
    for tensor in (result,) if isinstance(result, torch.Tensor) else (result.x_adv, result.distance):
        assert not tensor.requires_grad
    assert given.grad is None
    assert given.requires_grad


def exported(model):
    rows = {0: torch.export.Dim("rows", min=1)}
    return torch.export.export(model, (torch.rand(2, 1, 8, 8),), dynamic_shapes=(rows,)).module()


def answering(model):
    """In evaluation mode by itself, as a program that was exported in that mode cannot be put there."""
    model.training = False
    return model


PROGRAMS = {
    "exported": exported,
    "a part is exported": lambda model: answering(nn.Sequential(exported(model))),
    "traced": lambda model: torch.jit.trace(model, torch.rand(2, 1, 8, 8)),
    "script": lambda model: nn.Sequential(torch.jit.trace(model, torch.rand(2, 1, 8, 8))).eval(),
    "data parallel": lambda model: nn.DataParallel(model).eval(),
}


@pytest.mark.parametrize("kind", PROGRAMS)
@pytest.mark.parametrize("name", ["PGD", "APGD", "Square", "FMN", "HopSkipJump"])
def test_programs_are_attacked_as_models_are(name, kind, plain, rows):
    model = PROGRAMS[kind](plain)
    torch.testing.assert_close(found(ATTACKS[name], model, rows), found(ATTACKS[name], plain, rows))


def test_a_bare_script_says_how_it_is_attacked(rows):
    script = torch.jit.script(nn.Sequential(nn.Flatten(), nn.Linear(64, 4)).eval())
    for model in (script, torch.jit.freeze(script)):
        with pytest.raises(ValueError, match=r"use nn.Sequential\(model\).eval\(\)"):
            PGD(Linf(0.1))(model, *rows, generator=seed(0))
        assert PGD(Linf(0.1))(nn.Sequential(model).eval(), *rows, generator=seed(0)).shape == rows[0].shape


class Written(nn.Module):
    """A classifier that was written for two rows."""

    def __init__(self):
        super().__init__()
        self.linear, self.training = nn.Linear(64, 4), False

    def forward(self, x):
        return self.linear(x.reshape(2, 64))


def program(model, example, **rows):
    dynamic = {"dynamic_shapes": ({0: torch.export.Dim("rows", **rows)},)} if rows else {}
    return torch.export.export(model, (torch.rand(example, 1, 8, 8),), **dynamic)


BOUND = {
    "of two rows": (lambda plain: program(plain, 2).module(), "takes only 2 rows a call, as it was exported"),
    "of one row": (lambda plain: program(plain, 1).module(), "takes only 1 row a call"),
    "of at most four": (lambda plain: program(plain, 2, min=1, max=4).module(), "takes no more than 4 rows a call"),
    "without guards": (lambda plain: program(plain, 2).module(check_guards=False), "takes only 2 rows a call"),
    "a part": (lambda plain: answering(nn.Sequential(program(plain, 2).module())), "takes only 2 rows a call"),
    "in modules": (
        lambda plain: answering(nn.Sequential(torch.export.unflatten(program(plain, 2))).eval()),
        "takes only 2 rows a call",
    ),
    "traced": (
        lambda plain: nn.Sequential(torch.jit.trace(Written(), torch.rand(2, 1, 8, 8))).eval(),
        r"a TorchScript part .* \(shape '\[2, 64\]' is invalid for input of size \d+\): .* the model with len\(x\)",
    ),
}
ASKS = {name: ATTACKS[name].__call__ for name in ("FGSM", "PGD", "AutoAttack", "FMN", "HopSkipJump", "SpatialGrid")}
ASKS |= {
    "logits_of": lambda model, x, y, *, generator: logits_of(model, x),
    "published": lambda model, x, y, *, generator: published_probabilities(Oracle(model), x),
    "a suspect": lambda model, x, y, *, generator: logits_of(Suspect(model, 4), x),
    "a diagnosis": lambda model, x, y, *, generator: diagnose(
        model, x, y, white_box=[PGD(Linf(0.1))], black_box=Square(Linf(0.1), queries=2), surrogates=[model], seed=0
    ),
}


@pytest.mark.parametrize("kind", BOUND)
@pytest.mark.parametrize("name", ASKS)
def test_a_program_of_so_many_rows_says_so(name, kind, plain, rows):
    """In a line with the number, what was asked and the mend, where torch would speak of a guard, or in many lines."""
    make, message = BOUND[kind]
    with pytest.raises(ValueError, match=message) as raised:
        ASKS[name](make(plain), *rows, generator=seed(0))
    assert "\n" not in str(raised.value)
    if kind != "traced":
        assert re.search(r"is asked about \d+: export it with a dynamic batch .* torch.export.Dim", str(raised.value))


def test_a_program_of_so_many_rows_is_asked_about_these(plain, rows):
    """As many as it takes, which may be fewer than it takes at most; a program left behind keeps no hook."""
    x, y = rows[0][:2], rows[1][:2]
    model = program(plain, 2).module()
    hooks = len(model._forward_pre_hooks)
    torch.testing.assert_close(logits_of(model, x), plain(x).detach())
    seen, expected = (found(ATTACKS["FGSM"], each, (x, y)) for each in (model, plain))
    torch.testing.assert_close(seen, expected)
    assert len(model._forward_pre_hooks) == hooks
    bounded = program(plain, 2, min=1, max=4).module()
    for few in (1, 3, 4):
        torch.testing.assert_close(logits_of(bounded, rows[0][:few]), plain(rows[0][:few]).detach())
    torch.testing.assert_close(logits_of(bounded, rows[0], batch_size=3), plain(rows[0]).detach())


def test_a_suspect_that_takes_other_images_is_refused_in_one_line(plain):
    """A program says so by an assertion."""
    with pytest.raises(ValueError, match=r"cannot take the claim's rows, of shape \(1, 8, 7\) each \(Guard failed"):
        logits_of(Suspect(exported(plain), 4), torch.rand(2, 1, 8, 7))


MAKES = [APGD, AutoAttack, Boundary, DeepFool, FAB, FGSM, FMN, HopSkipJump, MIFGSM, NES, PGD, Sponge, Square,
         TargetedAPGD, TargetedFAB, Universal, partial(Adaptive, attack=PGD, view=BPDA()),
         partial(LowPrecision, attack=PGD), partial(FixedEpsilon, attack=FMN())]  # fmt: skip


@pytest.mark.parametrize("make", MAKES, ids=lambda make: getattr(make, "__name__", None) or make.func.__name__)
@pytest.mark.parametrize("ball", [0.1, "Linf", None, Linf], ids=repr)
def test_a_number_is_no_ball(make, ball):
    with pytest.raises(ValueError, match=r"knows the balls? L.*, not .*: a ball is made as Linf\(8 / 255\)"):
        make(ball=ball)


@pytest.mark.parametrize("eps", [8, 1.5, 1e9])
def test_pixels_of_bytes_are_noticed(eps):
    """A ball wider than the box; other norms may be larger than one coordinate's range."""
    with pytest.warns(UserWarning, match=r"for 8 of 0..255 write Linf\(8 / 255\)") as seen:
        Linf(eps)
    assert {warning.filename for warning in seen} == {__file__}
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert (Linf(1.0).eps, L2(eps).eps, L1(eps).eps) == (1.0, eps, eps)


SHORT = [
    lambda: PGD(Linf(8 / 255), steps=20, step_size=2 / 255),
    lambda: PGD(Linf(0.1), steps=9, random_start=False),
    lambda: MIFGSM(Linf(0.1), steps=5),
    lambda: Sponge(Linf(0.1), steps=5),
]
LONG = [
    lambda: PGD(Linf(0.1)),
    lambda: PGD(Linf(0.1), steps=1, early_stop=False),  # for training
    lambda: PGD(Linf(0.1), steps=10, random_start=False),
    lambda: MIFGSM(Linf(0.1)),
    lambda: Sponge(Linf(0.1)),
]


def test_steps_that_lead_nowhere_are_warned_of(plain, dataset):
    """With both conventions in the text; at the place where the attack is made."""
    for make in SHORT:
        with pytest.warns(UserWarning, match=r"step_size is in units of eps here.* 8 / 255, is step_size=0.25") as seen:
            make()
        assert {warning.filename for warning in seen} == {__file__}
    with pytest.warns(UserWarning, match="Universal: 1 steps of 0.1 eps"):
        Universal(Linf(0.1), epochs=1)(dataset, model=plain, generator=seed(0))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for make in LONG:
            make()


@pytest.mark.parametrize(
    "attack",
    [
        PGD(Linf(0.1), goal=Targeted()),
        Adaptive(Linf(0.1), partial(PGD, goal=Targeted()), BPDA()),
        LowPrecision(Linf(0.1), partial(PGD, goal=Targeted())),
        FixedEpsilon(Linf(0.1), FMN(goal=Targeted())),
    ],
    ids=lambda attack: type(attack).__name__,
)
def test_true_classes_are_no_targets(attack, plain, dataset):
    for use in (run_attack, partial(security_curve, levels=[0.1])):
        with pytest.raises(ValueError, match="with the goal Targeted takes the classes"):
            use(attack, plain, dataset, seed=0)
    with pytest.raises(ValueError, match="with the goal Targeted takes the classes"):
        run_minimum_norm(FMN(goal=Targeted()), plain, dataset, seed=0)


@pytest.mark.parametrize("make", [partial(Universal, Linf(0.1)), partial(AdversarialPatch, 0.5)])
def test_a_print_needs_the_class_that_it_is_for(make, plain, dataset):
    with pytest.raises(ValueError, match="name the class instead, target=3"):
        make(goal=Targeted())
    with pytest.raises(ValueError, match=r"0\.\.3, the model's, got 7"):
        make(target=7)(dataset, model=plain, generator=seed(0))
    aimed = make(target=2, epochs=40)(dataset, model=plain, generator=seed(0))
    chosen = plain(aimed(plain, dataset.x, dataset.y, generator=seed(1))).softmax(1)[:, 2]
    assert chosen.mean() > plain(dataset.x).softmax(1)[:, 2].mean()


def test_a_curve_of_smallest_perturbations_is_another_function(plain, dataset):
    with pytest.raises(ValueError, match=r"DeepFool looks for the smallest .* or FixedEpsilon\(ball, attack\)"):
        security_curve(DeepFool(), plain, dataset, [0.1], seed=0)
    with pytest.raises(ValueError, match="PGD looks for a perturbation of a given size, .*: use `run_attack`"):
        run_minimum_norm(PGD(Linf(0.1)), plain, dataset, seed=0)
    curve, _ = security_curve(FixedEpsilon(L2(0.1), DeepFool()), plain, dataset, [0.1], seed=0)
    assert len(curve) == len(dataset)


@pytest.mark.parametrize("name", ["PGD", "Square", "FMN"])
def test_batches_change_nothing(name, plain, rows):
    """Whatever their size; equal rows of two batches draw the same noise, as in one."""
    attack = ATTACKS[name]
    whole, parts = (each(plain, *rows, generator=seed(0)) for each in (attack, InBatches(attack, 4)))
    torch.testing.assert_close(getattr(parts, "x_adv", parts), getattr(whole, "x_adv", whole))
    if name == "FMN":
        torch.testing.assert_close(parts.distance, whole.distance)
    with pytest.raises(ValueError, match="batch_size must be positive"):
        InBatches(attack, 0)


def test_what_is_no_image_is_not_called_one():
    x, y = torch.full((2, 3), 1.5), torch.zeros(2, dtype=torch.int64)
    with pytest.raises(ValueError, match="^inputs must lie in"):
        PGD(Linf(0.1))(nn.Linear(3, 2).eval(), x, y, generator=seed(0))
