"""Defenses, marks, inference and extraction on models as people have them.

Each gives what it gives on a plain model of the same function, or says in one line why it cannot; nothing of the caller
changes.
"""

import copy
from collections.abc import Callable
from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor, nn

from aisec_lab import defenses
from aisec_lab.attacks import FineTuningAttack, Knockoff, LabelOnly, MIFace, Oracle
from aisec_lab.data import Dataset, Splits
from aisec_lab.defenses import Key, Standard
from aisec_lab.models import CNN, MLP, Fit, logits_of, onnx_bytes
from tests.odd_models import KINDS, NO_ANSWER, OLD, Answer, Written, seed

FIT = Fit(epochs=1, batch_size=16)
SMALL = MLP((8,))


class Unused(nn.Module):
    """A model with a layer that it never calls."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.auxiliary, self.model, self.training = nn.Linear(3, 2), model, False

    def forward(self, x: Tensor) -> Tensor:
        return self.model(x)


def frozen_part(model: nn.Sequential) -> nn.Sequential:
    for part in list(model)[:-1]:
        part.requires_grad_(False)
    return model


KINDS = {**KINDS, "a layer that is never called": Unused, "a frozen part": frozen_part}


@pytest.fixture(scope="module")
def rows() -> Dataset:
    x = torch.rand(120, 1, 8, 8, generator=seed(0))
    return Dataset(x, torch.arange(120) % 4, ("a", "b", "c", "d"), "made")


@pytest.fixture(scope="module")
def plain(rows: Dataset) -> nn.Module:
    model = CNN(width=4, hidden=8)((1, 8, 8), 4, generator=seed(0))
    Fit(epochs=3, batch_size=16)(model, rows, Standard(), generator=seed(0))
    return model.eval()


class Use(NamedTuple):
    """What a method makes of a model.

    Args:
        run: of model and rows, tensors or numbers.
        inside: it looks at the model's layers, and so cannot be compared with a function that hides them.
    """

    run: Callable[[Any, Dataset], Any]
    inside: bool = False


def scored(detector: Any) -> Callable[[Any, Dataset], Any]:
    return lambda model, rows: detector.fit(rows.x, rows.y, model=model).score(rows.x[:9])


def suspected(sanitizer: Any) -> Callable[[Any, Dataset], Any]:
    return lambda model, rows: sanitizer(rows, model=model, generator=seed(1)).score


def answers(model: nn.Module, rows: Dataset) -> Tensor:
    return logits_of(model, rows.x[:9])


def around(defense: Any) -> Callable[[Any, Dataset], Any]:
    return lambda model, rows: answers(defense(model, data=Splits({"train": rows, "clean": rows}, {"name": "m"})), rows)


def changed(change: Any) -> Callable[[Any, Dataset], Any]:
    return lambda model, rows: answers(change(model, data=rows, generator=seed(1)), rows)


def repaired(repair: Any) -> Callable[[Any, Dataset], Any]:
    return lambda model, rows: answers(repair(model, rows, generator=seed(1)), rows)


def marked(mark: Any) -> Callable[[Any, Dataset], Any]:
    """Embed, and look for it in what came of it."""

    def run(model: nn.Module, rows: Dataset) -> float:
        embedded = mark.embed(model, rows, Key(bytes(32), simulated=True), generator=seed(1))
        return float(mark.verify(embedded.model, embedded))

    return run


def recognised(mark: Any) -> Callable[[Any, Dataset], Any]:
    """A model that has nothing to do with the mark, as suspect."""

    def run(model: nn.Module, rows: Dataset) -> float:
        owner = CNN(width=4, hidden=8)((1, 8, 8), 4, generator=seed(5)).eval()
        embedded = mark.embed(owner, rows, Key(bytes(32), simulated=True), generator=seed(1))
        return float(mark.verify(model, embedded))

    return run


def stolen(model: nn.Module, rows: Dataset) -> Tensor:
    return answers(Knockoff(SMALL, budget=30, fit=FIT)(Oracle(model), rows, generator=seed(1)).model, rows)


USES = {
    "Energy": Use(scored(defenses.Energy())),
    "FeatureSqueezing": Use(scored(defenses.FeatureSqueezing())),
    "STRIP": Use(scored(defenses.STRIP(overlays=4))),
    "LID": Use(scored(defenses.LID(k=5)), inside=True),
    "Mahalanobis": Use(scored(defenses.Mahalanobis()), inside=True),
    "NearestNeighbours": Use(scored(defenses.NearestNeighbours(k=3)), inside=True),
    "RejectOption": Use(around(defenses.RejectOption(defenses.Energy()))),
    "BitDepth": Use(around(defenses.BitDepth(3))),
    "TopK": Use(around(defenses.TopK(2))),
    "ReverseSigmoid": Use(around(defenses.ReverseSigmoid())),
    "ActivationClustering": Use(suspected(defenses.ActivationClustering(dims=2)), inside=True),
    "SpectralSignatures": Use(suspected(defenses.SpectralSignatures()), inside=True),
    "MagnitudePruning": Use(changed(defenses.MagnitudePruning(0.5, rounds=1, fit=FIT)), inside=True),
    "StructuredPruning": Use(changed(defenses.StructuredPruning(0.5, fit=FIT)), inside=True),
    "WeightOnly": Use(changed(defenses.WeightOnly(8)), inside=True),
    "DynamicInt8": Use(changed(defenses.DynamicInt8()), inside=True),
    "StaticInt8": Use(changed(defenses.StaticInt8()), inside=True),
    "Student": Use(changed(defenses.KnowledgeDistillation(SMALL, fit=FIT))),
    "NeuralCleanse": Use(lambda model, rows: defenses.NeuralCleanse(rounds=1)(model, rows, generator=seed(1)).norms),
    "FinePruning": Use(repaired(defenses.FinePruning(fit=FIT)), inside=True),
    "IBAU": Use(repaired(defenses.IBAU(rounds=2)), inside=True),
    "FineTuningAttack": Use(repaired(FineTuningAttack(FIT)), inside=True),
    "TriggerSet": Use(marked(defenses.TriggerSet(fit=FIT)), inside=True),
    "Uchida": Use(marked(defenses.Uchida(fit=FIT)), inside=True),
    "DeepSigns": Use(marked(defenses.DeepSigns(fit=FIT)), inside=True),
    "a suspect of TriggerSet": Use(recognised(defenses.TriggerSet(fit=FIT))),
    "a suspect of Uchida": Use(recognised(defenses.Uchida(fit=FIT)), inside=True),
    "a suspect of DeepSigns": Use(recognised(defenses.DeepSigns(fit=FIT)), inside=True),
    "certify": Use(
        lambda model, rows: (
            defenses.certify(model, rows.x[:3], sigma=0.1, n0=4, n=20, alpha=0.05, generator=seed(1)).radius
        )
    ),
    "LabelOnly": Use(lambda model, rows: LabelOnly()(model, rows.x[:5], rows.y[:5], generator=seed(1))),
    "MIFace": Use(lambda model, rows: MIFace(steps=3)(model, rows.y[:4], start=rows.x[:4])),
    "Knockoff": Use(stolen),
    "onnx": Use(lambda model, rows: len(onnx_bytes(model, rows.shape)), inside=True),
}


NEVER_ASK = {"a suspect of Uchida", "onnx"}  # they look at weights alone
TAKE_NUMBERS = {"BitDepth", "ActivationClustering", "SpectralSignatures", "WeightOnly", "DynamicInt8", "StaticInt8"}


class Before:
    """What a caller had, to be compared with what it has."""

    def __init__(self, model: nn.Module, rows: Dataset) -> None:
        self.model, self.rows = model, rows
        self.state = {name: value.clone() for name, value in model.state_dict().items()}
        self.modes = [module.training for module in model.modules()]
        self.learning = [parameter.requires_grad for parameter in model.parameters()]
        self.x, self.y = rows.x.clone(), rows.y.clone()

    def check(self) -> None:
        state = self.model.state_dict()
        assert state.keys() == self.state.keys()
        assert all(torch.equal(value, self.state[name]) for name, value in state.items())
        assert [module.training for module in self.model.modules()] == self.modes
        assert [parameter.requires_grad for parameter in self.model.parameters()] == self.learning
        assert torch.equal(self.rows.x, self.x)
        assert torch.equal(self.rows.y, self.y)


def one_line(said: str) -> str:
    """A refusal, if it is one line with a reason and a mend."""
    assert "\n" not in said
    assert len(said) > 30
    return said


def outcome(use: Use, model: nn.Module, rows: Dataset) -> Any:
    """What it gives, or the line that it says; every other exception is a fault."""
    before = Before(model, rows)
    try:
        found = use.run(model, rows)
    except (ValueError, FloatingPointError) as error:
        found = one_line(str(error))
    before.check()
    return found


@OLD
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", USES)
def test_a_kind_of_model_is_used_as_what_it_is_or_refused(
    name: str, kind: str, plain: nn.Module, rows: Dataset
) -> None:
    model = KINDS[kind](copy.deepcopy(plain)).eval()
    answers(model, rows)  # spectral norm by a hook sets its weight at the first call
    found = outcome(USES[name], model, rows)
    if USES[name].inside or isinstance(found, str):
        return
    expected = outcome(USES[name], Written(model), rows)
    torch.testing.assert_close(found, expected)


@pytest.mark.parametrize("name", USES)
def test_the_plain_model_is_refused_by_none(name: str, plain: nn.Module, rows: Dataset) -> None:
    """Else the test above would show nothing."""
    assert not isinstance(outcome(USES[name], plain, rows), str)


@pytest.mark.parametrize("kind", sorted(NO_ANSWER.keys() - {"infinity", "two infinities"}))
@pytest.mark.parametrize("name", USES)
def test_what_is_no_answer_is_refused(name: str, kind: str, plain: nn.Module, rows: Dataset) -> None:
    """By whoever asks; one number for each row is an answer to those who do not read classes in it."""
    found = outcome(USES[name], Answer(copy.deepcopy(plain), NO_ANSWER[kind][0]), rows)
    taken = name in NEVER_ASK or (kind == "one logit" and name in TAKE_NUMBERS)
    assert taken or isinstance(found, str), f"{name} took {kind} for an answer and gave {found}"
