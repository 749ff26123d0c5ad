"""Attacks on models that end in a softmax: who needs more than the class reads them as declared, or says why not."""

import pytest
import torch
from torch import nn

from aisec_lab.attacks import (
    APGD,
    EOT,
    FMN,
    MIFGSM,
    PGD,
    Adaptive,
    AdversarialPatch,
    DetectorAwareMargin,
    EvadeDetector,
    FunctionClassifier,
    GreedyWordReplacement,
    Homoglyphs,
    HotFlip,
    Linf,
    LowPrecision,
    Oracle,
    RegressionTolerance,
    Square,
    Universal,
)
from aisec_lab.attacks.evasion.search.losses import AbsoluteError
from aisec_lab.attacks.extraction.result import published_probabilities
from aisec_lab.data import Dataset
from aisec_lab.defenses import Energy
from aisec_lab.defenses.detection.rejection import RejectingModel
from aisec_lab.defenses.ownership.ipguard import IPGuard
from aisec_lab.defenses.ownership.margins import MinGD
from aisec_lab.defenses.ownership.suspect import Suspect
from aisec_lab.evaluation.diagnostics import diagnose
from aisec_lab.models import BagOfEmbeddings, LogProbabilities, TextClassifier, TwoLogits, Vocabulary
from tests.attacks.every_attack import ATTACKS, found
from tests.odd_models import Answer, seed

BY_CLASS = {"Boundary", "HopSkipJump", "SignOPT", "GeoDA", "SpatialGrid", "WorstOfK"}
BY_SCORES = sorted(ATTACKS.keys() - BY_CLASS)
MEND = r"no logits, .*: give the module before the softmax, or aisec_lab.models.LogProbabilities\(model\)"


def softmaxed(model):
    return Answer(model, lambda logits: logits.softmax(1))


def declaring(model, kind):
    model.publishes = kind
    return model


class Passes(nn.Module):
    """Counts the calls of a model."""

    def __init__(self, model):
        super().__init__()
        self.model, self.training, self.calls = model, False, 0

    def forward(self, x):
        self.calls += 1
        return self.model(x)


@pytest.mark.parametrize("few", [1, 6])
@pytest.mark.parametrize("name", BY_SCORES)
def test_whoever_needs_more_than_the_class_refuses_a_softmax(name, few, plain, rows):
    """In one line, at the first answer, however few rows there are; nothing is asked beyond it."""
    model = Passes(softmaxed(plain))
    with pytest.raises(ValueError, match=MEND) as raised:
        ATTACKS[name](model, rows[0][:few], rows[1][:few], generator=seed(0))
    assert "\n" not in str(raised.value)
    assert model.calls == (2 if name == "AutoAttack" else 1), "a suite looks at the clean rows before its first stage"


@pytest.mark.parametrize("name", sorted(BY_CLASS))
def test_whoever_looks_at_the_class_goes_on(name, plain, rows):
    """The softmax has the same winner, so that decisions are the same; margins that order poses are others."""
    if name in ("SpatialGrid", "WorstOfK"):
        assert found(ATTACKS[name], softmaxed(plain), rows).shape == rows[0].shape
    else:
        torch.testing.assert_close(found(ATTACKS[name], softmaxed(plain), rows), found(ATTACKS[name], plain, rows))


READ = {
    "logarithms": lambda plain: LogProbabilities(softmaxed(plain)).eval(),
    "declared": lambda plain: declaring(softmaxed(plain), "probabilities"),
    "declared within": lambda plain: nn.Sequential(declaring(softmaxed(plain), "probabilities")).eval(),
}


@pytest.mark.parametrize("kind", READ)
@pytest.mark.parametrize("name", ["FGSM", "PGD", "APGD", "Square", "NES", "SimBA", "SpatialPGD"])
def test_a_softmax_that_is_declared_is_attacked_as_its_logits_are(name, kind, plain, rows):
    """What these ascend does not change with a constant that is added to a row's logits: the same points, nearly."""
    seen, expected = (found(ATTACKS[name], model, rows) for model in (READ[kind](plain), plain))
    assert (seen - expected).abs().flatten(1).amax(1).median() < 1e-3


def test_a_sure_softmax_hides_what_its_logarithms_show(plain, rows):
    """The harm itself: at these logits a search for the nearest point is led astray; the logarithms lead it right."""
    sure = Answer(plain, lambda z: (200 * z).softmax(1))
    read = FMN(steps=50)(LogProbabilities(sure).eval(), *rows, generator=seed(0))
    logits = FMN(steps=50)(Answer(plain, lambda z: 200 * z), *rows, generator=seed(0))
    called_logits = FMN(steps=50)(declaring(sure, "logits"), *rows, generator=seed(0))
    torch.testing.assert_close(read.distance, logits.distance, rtol=0.05, atol=1e-3)
    assert (called_logits.distance > 5 * read.distance)[read.distance.isfinite()].all()


OTHERS = {
    "MIFGSM": lambda model, x, y: MIFGSM(Linf(0.1))(model, x, y, generator=seed(0)),
    "training": lambda model, x, y: PGD(Linf(0.1), early_stop=False)(model, x, y, generator=seed(0)),
    "half": lambda model, x, y: LowPrecision(Linf(0.1), PGD)(model, x, y, generator=seed(0)),
    "a view": lambda model, x, y: Adaptive(Linf(0.1), PGD, EOT(2))(model, x, y, generator=seed(0)),
    "universal": lambda model, x, y: Universal(Linf(0.1))(dataset(x, y), model=model, generator=seed(0)),
    "patch": lambda model, x, y: AdversarialPatch(0.5, epochs=1)(dataset(x, y), model=model, generator=seed(0)),
    "IPGuard": lambda model, x, y: IPGuard(n=4, steps=2).make(model, dataset(x, y), [], generator=seed(0)),
    "MinGD": lambda model, x, y: MinGD(steps=2)(model, x, y, generator=seed(0)),
    "MinGD on a suspect": lambda model, x, y: MinGD(steps=2)(Suspect(model, 4), x, y, generator=seed(0)),
}


def dataset(x, y):
    return Dataset(x, y, ("a", "b", "c", "d"), "rows")


@pytest.mark.parametrize("name", OTHERS)
def test_others_that_climb_refuse_it_too(name, plain, rows):
    with pytest.raises(ValueError, match=MEND):
        OTHERS[name](softmaxed(plain), *rows)


TEXT_ATTACKS = [HotFlip(), GreedyWordReplacement(Homoglyphs())]


@pytest.mark.parametrize("attack", TEXT_ATTACKS, ids=lambda attack: type(attack).__name__)
def test_attacks_on_texts_refuse_it_too(attack):
    texts = ("a good film", "a bad film", "the film is good")
    vocabulary = Vocabulary.of(texts, 1)
    network = BagOfEmbeddings(4)(len(vocabulary), 2, generator=seed(0)).eval()
    model = TextClassifier(vocabulary, network).eval()
    y = model(texts).argmax(1)
    attack(model, texts, y, generator=seed(0))
    with pytest.raises(ValueError, match=MEND):
        attack(nn.Sequential(model, nn.Softmax(1)).eval(), texts, y, generator=seed(0))


class Constant(nn.Module):
    """The same scores for every row, and a gradient that is zero."""

    def __init__(self, scores):
        super().__init__()
        self.scores, self.training = torch.tensor(scores), False

    def forward(self, x):
        return self.scores + 0 * x.flatten(1)[:, : len(self.scores)]


NO_PROBABILITIES = {
    "non-negative logits": Constant([0.5, 0.2, 0.1, 0.1]),
    "logits that nearly sum to one": Constant([0.5, 0.3, 0.1, 0.101]),
    "one logit and a zero": TwoLogits(Constant([0.97])).eval(),
    "a sum of one with a negative": Constant([1.2, -0.2]),
    "a reject option over logits": RejectingModel(Energy().fit(None, None, model=Constant([0.4, 0.5])), 0.1),
}


@pytest.mark.parametrize("few", [1, 6, 60])
@pytest.mark.parametrize("kind", NO_PROBABILITIES)
def test_logits_that_look_alike_are_not_refused(kind, few, rows):
    """However many rows, of a model that answers them all alike: their sums miss one by more than rounding does."""
    x = rows[0][:1].repeat(few, 1, 1, 1)
    y = torch.zeros(few, dtype=torch.int64)
    for attack in (PGD(Linf(0.1), steps=20), Square(Linf(0.1), queries=3)):
        assert attack(NO_PROBABILITIES[kind], x, y, generator=seed(0)).shape == x.shape


@pytest.mark.parametrize(
    "wrap",
    [
        lambda plain: RejectingModel(Energy().fit(None, None, model=softmaxed(plain)), 0.0),
        lambda plain: softmaxed(RejectingModel(Energy().fit(None, None, model=plain), 0.0)),
    ],
    ids=["over a softmax", "under a softmax"],
)
def test_a_reject_option_hides_no_softmax(wrap, plain, rows):
    attack = PGD(Linf(0.1), loss=DetectorAwareMargin(), goal=EvadeDetector())
    with pytest.raises(ValueError, match=MEND):
        attack(wrap(plain), *rows, generator=seed(0))
    honest = RejectingModel(Energy().fit(None, None, model=plain), 0.0)
    assert attack(honest, *rows, generator=seed(0)).shape == rows[0].shape


def test_a_regression_near_one_is_no_probability():
    """One column sums to one wherever the number is one."""
    x = torch.rand(20, 3, generator=seed(0))
    attack = PGD(Linf(0.1), loss=AbsoluteError(), goal=RegressionTolerance(0.5))
    assert attack(Constant([1.0]), x, torch.ones(20), generator=seed(0)).shape == x.shape


@pytest.mark.parametrize("name", ["Square", "NES", "SimBA"])
def test_what_a_victim_has_declared_is_believed(name, plain, rows):
    """Labels, which a search by scores may be tried on; probabilities, which an oracle hands on as logarithms."""
    attack = ATTACKS[name]
    for labels in (Oracle(plain, labels_only=True), nn.Sequential(Oracle(plain, labels_only=True)).eval()):
        assert found(attack, labels, rows).shape == rows[0].shape
    expected = found(attack, plain, rows)
    for victim in (
        Oracle(softmaxed(plain), publishes="probabilities"),
        Oracle(declaring(softmaxed(plain), "probabilities")),
        FunctionClassifier(lambda x: softmaxed(plain)(torch.tensor(x)).detach(), publishes="probabilities"),
    ):
        assert (found(attack, victim, rows) - expected).abs().flatten(1).amax(1).median() < 1e-3


def test_a_module_that_has_declared_raw_probabilities_publishes_these(plain, rows):
    truth = plain(rows[0]).softmax(1)
    raw = declaring(softmaxed(plain), "probabilities")
    for victim in (raw, Oracle(raw), LogProbabilities(softmaxed(plain)).eval()):
        torch.testing.assert_close(published_probabilities(victim, rows[0]), truth.detach())


def test_a_diagnosis_of_a_softmax_says_so_and_stops(plain, rows):
    """Undeclared, no attack would run on it: the finding is all there is to say."""
    found = diagnose(
        softmaxed(plain), *rows, white_box=[APGD(Linf(0.1), steps=5)], black_box=Square(Linf(0.1), queries=5), seed=0
    )
    assert "probabilities" in found.raised
    assert [finding.name for finding in found.findings] == ["gradients", "probabilities"]


@pytest.mark.parametrize("kind", [torch.float16, torch.bfloat16])
def test_half_precision_is_found_out_where_it_is_no_chance(kind, plain, rows):
    """A softmax misses one by more there, in whatever type it is handed on; a row or two of logits may do so too."""
    for change in (lambda p: p, lambda p: p.float()):
        coarse = Answer(plain, lambda z, change=change: change(z.to(kind).softmax(1)))
        with pytest.raises(ValueError, match=MEND):
            PGD(Linf(0.1))(coarse, *rows, generator=seed(0))
    logits = Answer(Constant([0.75, 0.2539]), lambda z: z.to(kind).float())
    x, y = rows[0][:2], torch.zeros(2, dtype=torch.int64)
    assert PGD(Linf(0.1))(logits, x, y, generator=seed(0)).shape == x.shape
