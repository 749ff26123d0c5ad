"""The verdict where its limits were not fixed: what was planted on digits, planted on Fashion-MNIST."""

import os

import pytest

from aisec_lab.attacks import APGD, Square, TargetedAPGD
from aisec_lab.evaluation.diagnostics import diagnose
from benchmarks.honest_models import HONEST
from benchmarks.planted_defenses import PLANTED, scene

pytestmark = [
    pytest.mark.mirror,
    pytest.mark.skipif("AISEC_MIRROR" not in os.environ, reason="AISEC_MIRROR names no folder with public datasets"),
]
PLAIN = [honest for honest in HONEST["fashion_mnist"] if honest.objective == "standard" and honest.defense is None]


@pytest.fixture(scope="module")
def fashion(tmp_path_factory):
    return scene("fashion_mnist", tmp_path_factory.mktemp("data"))


def verdict(scene, model, attacks, goal):
    """On attacks like those that the limits were fixed with."""
    x, y = (part[:80] for part in (scene.splits.test.x, scene.splits.test.y))
    white = (APGD(scene.ball, steps=30), TargetedAPGD(scene.ball, steps=30, targets=3))
    free = Square(scene.ball, queries=200, goal=goal)
    others = [] if model is scene.plain else [scene.plain]
    return diagnose(model, x, y, white_box=attacks(white), black_box=free, surrogates=others, goal=goal, seed=0)


@pytest.mark.parametrize("case", PLANTED.values(), ids=PLANTED)
def test_a_misleading_defense_is_found_out(case, fashion):
    """Not to be trusted, and the finding names what was planted."""
    found = verdict(fashion, case.make(fashion), lambda white: white[: case.attacks], case.goal)
    assert not found.trusted
    assert case.finding in found.raised


def test_honest_models_are_trusted(fashion):
    """Undefended ones of every architecture; `benchmarks/verdict.json` holds many more."""
    found = {honest.name: verdict(fashion, honest.make(fashion), honest.white, honest.goal) for honest in PLAIN}
    assert len(found) == 5
    assert {name: diagnosis.raised for name, diagnosis in found.items() if not diagnosis.trusted} == {}
