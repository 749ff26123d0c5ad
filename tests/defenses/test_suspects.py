"""One rule for all marks and fingerprints: whom they can ask, and that they do not look into who only answers."""

import copy
from dataclasses import replace
from functools import partial

import pytest
import torch
from sklearn.linear_model import LogisticRegression
from torch import nn

from aisec_lab.attacks import BPDA, FunctionClassifier, Oracle, SklearnClassifier, activation_density
from aisec_lab.attacks.oracle import OutOfQueriesError
from aisec_lab.attacks.ownership.removal import FineTuningAttack, OverwritingAttack
from aisec_lab.defenses.backdoors.pruning import FinePruning
from aisec_lab.defenses.backdoors.strip import STRIP
from aisec_lab.defenses.compression.magnitude import MagnitudePruning
from aisec_lab.defenses.detection.detectors import features
from aisec_lab.defenses.outputs.coarse import RoundedProbabilities, TopK
from aisec_lab.defenses.outputs.mad import MAD
from aisec_lab.defenses.outputs.misinformation import AdaptiveMisinformation
from aisec_lab.defenses.outputs.perturbed import OutputNoise, ReverseSigmoid, TemperatureScaling
from aisec_lab.defenses.ownership.boundary import BoundaryFingerprint
from aisec_lab.defenses.ownership.dataset_inference import DatasetInference
from aisec_lab.defenses.ownership.dawn import DAWN
from aisec_lab.defenses.ownership.deepsigns import DeepSigns
from aisec_lab.defenses.ownership.entangled import EntangledWatermark
from aisec_lab.defenses.ownership.key import Key
from aisec_lab.defenses.ownership.margins import BlindWalk, MinGD
from aisec_lab.defenses.ownership.trigger_set import TriggerSet
from aisec_lab.defenses.ownership.uchida import Uchida
from aisec_lab.defenses.ownership.watermark import WatermarkedModel
from aisec_lab.defenses.ownership.weight_fingerprint import WeightFingerprint
from aisec_lab.defenses.training.ensembles import AveragedModel
from aisec_lab.models import CNN, MLP, Fit, TwoLogits, logits_of
from tests.odd_models import Answer

SHORT, NETWORK = Fit(epochs=1), MLP((16,))


def seed(number):
    return torch.Generator().manual_seed(number)


def network(shape, classes=10, number=0):
    return CNN(width=4, hidden=16)(shape, classes, generator=seed(number)).eval()


@pytest.fixture(scope="module")
def victim():
    return network((1, 8, 8))


@pytest.fixture(scope="module")
def claims(victim, splits):
    """What verifies a suspect, by the name of the mark or fingerprint; those that only ask, and those that look."""
    rows, key = splits.test.sample(100, 0), Key.drawn(seed(1))
    served = DAWN(rate=0.2)
    against = served.with_queries(served.embed(victim, rows, key, generator=seed(0)), rows.x)
    private, public = rows.subset(torch.arange(20)), rows.subset(torch.arange(20, 40))
    others = [network((1, 8, 8), number=n) for n in (2, 3)]
    walk, descent = (
        DatasetInference(margins, fit=SHORT).make(victim, private, public, generator=seed(0))
        for margins in (BlindWalk(directions=1, steps=3), MinGD(steps=2))
    )
    boundary = BoundaryFingerprint(n=20).make(victim, rows, others, generator=seed(0))
    plain = NETWORK((1, 8, 8), 10, generator=seed(4)).eval()
    chain = WeightFingerprint().make(plain, rows, [NETWORK((1, 8, 8), 10, generator=seed(5))], generator=seed(0))
    marks = {
        "trigger set": TriggerSet(n=30),
        "entangled": EntangledWatermark(triggers=8, rows=3),
        "weights": Uchida(bits=16, layer=1),
        "activations": DeepSigns(rows=3),
    }
    verify = {name: partial(mark.verify, marked=WatermarkedModel(victim, key, rows)) for name, mark in marks.items()}
    verify |= {"served": partial(served.verify, marked=against), "boundary": boundary.verify, "walk": walk.verify}
    return verify | {"descent": descent.verify, "weight fingerprint": chain.verify}


ASK = ["trigger set", "entangled", "served", "boundary", "walk"]
LOOK = ["weights", "activations", "descent", "weight fingerprint"]
FEED = [*ASK, "activations", "descent"]  # whoever shows the suspect rows

SUSPECTS = {
    "three channels": (
        lambda victim: CNN(width=4, hidden=16)((3, 8, 8), 10, generator=seed(0)),
        "cannot take the claim's",
    ),
    "larger images": (
        lambda victim: CNN(width=4, hidden=16)((1, 16, 16), 10, generator=seed(0)),
        r"of shape \(1, 8, 8\)",
    ),
    "fewer classes": (lambda victim: Answer(victim, lambda z: z[:, :5]), "answers with 5 classes, the claim has 10"),
    "more classes": (lambda victim: Answer(victim, lambda z: torch.cat([z, z], 1)), "answers with 20 classes"),
    "two classes": (lambda victim: TwoLogits(Answer(victim, lambda z: z[:, :1])), "answers with 2 classes"),
    "a tuple": (lambda victim: Answer(victim, lambda z: (z, z)), "got a tuple"),
    "labels": (lambda victim: Answer(victim, lambda z: z.argmax(1)), "got torch.int64"),
    "NaN": (lambda victim: Answer(victim, lambda z: z * torch.nan), "NaN or infinite"),
}


@pytest.mark.parametrize("suspect", SUSPECTS)
@pytest.mark.parametrize("claim", FEED)
def test_a_suspect_that_cannot_be_asked_is_refused_by_every_mark(claim, suspect, claims, victim):
    """In one line that says what does not fit; no mark crashes, and none calls it innocent."""
    make, message = SUSPECTS[suspect]
    if (claim, suspect) == ("activations", "larger images"):
        assert claims[claim](make(victim)) == 1  # no layer of the marked one's shape: nothing is asked
        return
    with pytest.raises(ValueError, match=message) as raised:
        claims[claim](make(victim).eval())
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("claim", ["weights", "weight fingerprint"])
def test_marks_that_ask_nothing_compare_layers_by_their_shape(claim, claims, victim):
    """A new head of fewer classes hides no weights from a mark in an earlier layer; p is 1 where none has its shape."""
    small = CNN(width=8, hidden=16)((3, 8, 8), 5, generator=seed(0)).eval()
    assert claims[claim](small) == 1
    headless = copy.deepcopy(victim)
    headless[-1] = nn.Linear(16, 5)
    if claim == "weights":
        assert claims[claim](headless) == claims[claim](victim)


OPAQUE = {
    "an oracle": lambda victim, splits: Oracle(victim),
    "labels only": lambda victim, splits: Oracle(victim, labels_only=True),
    "an oracle within": lambda victim, splits: nn.Sequential(Oracle(victim), nn.Identity()).eval(),
    "a function": lambda victim, splits: FunctionClassifier(
        lambda x: logits_of(victim, torch.from_numpy(x)), publishes="logits"
    ),
    "scikit-learn": lambda victim, splits: SklearnClassifier(
        LogisticRegression(max_iter=20).fit(splits.train.x.flatten(1), splits.train.y)
    ),
}


@pytest.mark.filterwarnings("ignore:lbfgs failed to converge")
@pytest.mark.parametrize("kind", OPAQUE)
def test_who_only_answers_is_asked_and_not_looked_into(kind, claims, victim, splits):
    """The asking marks say what they say of the model behind; the others refuse, in one line."""
    suspect = OPAQUE[kind](victim, splits)
    for claim in ASK:
        p = claims[claim](suspect)
        assert 0 < p <= 1
        if kind in ("an oracle", "an oracle within", "a function"):
            assert p == pytest.approx(claims[claim](victim), rel=1e-6)
    for claim in LOOK:
        with pytest.raises(ValueError, match="shows answers and nothing of its inside") as raised:
            claims[claim](suspect)
        assert "\n" not in str(raised.value)


def test_nobody_else_looks_into_an_oracle(victim, splits):
    """Training, pruning, fine-pruning, overwriting, features, activations, straight-through gradients."""
    oracle, rows = Oracle(victim), splits.train.sample(50, 0)
    for look in (
        lambda: FineTuningAttack(SHORT)(oracle, rows, generator=seed(0)),
        lambda: OverwritingAttack(TriggerSet(n=5, fit=SHORT), Key.drawn)(oracle, rows, generator=seed(0)),
        lambda: MagnitudePruning(0.5)(oracle, data=rows, generator=seed(0)),
        lambda: FinePruning()(oracle, rows, generator=seed(0)),
        lambda: features(oracle, rows.x),
        lambda: activation_density(oracle, rows.x),
        lambda: BPDA()(oracle),
        lambda: Uchida(bits=4).embed(oracle, rows, Key.drawn(seed(0)), generator=seed(0)),
    ):
        with pytest.raises(ValueError, match="shows answers and nothing of its inside"):
            look()
    assert oracle.queries == 0


def test_an_oracle_s_budget_is_no_fault_of_the_suspect(claims, victim):
    with pytest.raises(OutOfQueriesError, match="0 of 0 are left"):
        claims["trigger set"](Oracle(victim, budget=0))


def test_probabilities_are_declared_to_marks_that_read_them(claims, victim):
    """The mark that ranks probabilities says of them what it says of the logits; undeclared, it refuses."""
    softmaxed = Answer(victim, lambda z: z.softmax(1))
    assert claims["entangled"](Oracle(softmaxed, publishes="probabilities")) == pytest.approx(
        claims["entangled"](victim)
    )
    with pytest.raises(ValueError, match="no logits"):
        claims["entangled"](softmaxed)
    assert claims["trigger set"](softmaxed) == claims["trigger set"](victim)  # looks at winning classes alone


OUTPUTS = {
    "Softened": TemperatureScaling(),
    "ReverseSigmoid": ReverseSigmoid(),
    "OutputNoise": OutputNoise(),
    "TopK": TopK(),
    "Rounded": RoundedProbabilities(),
    "AdaptiveMisinformation": AdaptiveMisinformation(NETWORK, SHORT),
    "MAD": MAD(NETWORK),
}


@pytest.mark.parametrize("name", OUTPUTS)
def test_output_defenses_refuse_models_that_answer_with_probabilities(name, victim, splits):
    """They change the probabilities of logits, and would change those of probabilities."""
    small = replace(splits, splits={"train": splits.train.sample(50, 0), "test": splits.test})
    model = Answer(victim, lambda z: z.softmax(1))
    with pytest.raises(ValueError, match="no logits"):
        OUTPUTS[name](model, data=small)(splits.test.x[:9])
    assert OUTPUTS[name](victim, data=small)(splits.test.x[:9]).shape == (9, 10)


def test_so_do_detectors_and_ensembles(victim, splits):
    model = Answer(victim, lambda z: z.softmax(1))
    with pytest.raises(ValueError, match="no logits"):
        AveragedModel([victim, model])(splits.test.x[:9])
    with pytest.raises(ValueError, match="no logits"):
        STRIP().fit(splits.train.x[:200], splits.train.y[:200], model=model).score(splits.test.x[:9])
