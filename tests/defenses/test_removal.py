"""What thieves do to marks: each removal does what it says, and the grid says what is left."""

import copy
from functools import partial

import matplotlib.pyplot as plt
import pytest
import torch
from torch import nn

from aisec_lab.attacks.extraction.result import ExtractionResult
from aisec_lab.attacks.ownership.removal import (
    CompressionAttack,
    ExtractionAttack,
    FineTuningAttack,
    OverwritingAttack,
)
from aisec_lab.data import Dataset
from aisec_lab.defenses.compression.magnitude import MagnitudePruning, sparsity
from aisec_lab.defenses.ownership.key import Key
from aisec_lab.defenses.ownership.trigger_set import TriggerSet
from aisec_lab.evaluation.ownership import OwnedModel, p_value_grid, removal_rows
from aisec_lab.evaluation.table import tidy
from aisec_lab.models import MLP, Fit, logits_of

FIT = Fit(epochs=6, learning_rate=0.01)
MARK = TriggerSet(n=30, fit=FIT)


def seed(number: int) -> torch.Generator:
    return torch.Generator().manual_seed(number)


@pytest.fixture(scope="module")
def marked(splits):
    """A model with a trigger set."""
    fresh = MLP((64,))(splits.train.shape, 10, generator=seed(0))
    return TriggerSet(n=30, fit=Fit(epochs=15, learning_rate=0.01)).embed(
        fresh, splits.train, Key.drawn(seed(1)), generator=seed(2)
    )


class Watching:
    """An extraction attack that notes what it is told, and hands back the model that it was given."""

    def __init__(self) -> None:
        self.seen: list[torch.Tensor] = []

    def __call__(self, oracle, pool: Dataset, *, generator: torch.Generator) -> ExtractionResult:
        self.seen.append(logits_of(oracle, pool.x))
        return ExtractionResult(oracle.model, oracle.queries)


def test_a_removal_leaves_the_stolen_model_as_it_is_and_can_be_repeated(splits, marked) -> None:
    before = copy.deepcopy(marked.model.state_dict())
    thiefs = splits.splits["clean"]
    for removal in (
        FineTuningAttack(FIT),
        OverwritingAttack(MARK, Key.drawn),
        CompressionAttack(MagnitudePruning(0.8, rounds=1, fit=FIT)),
    ):
        once, again = (removal(marked.model, thiefs, generator=seed(3)) for _ in range(2))
        assert not any(module.training for module in once.modules())
        assert torch.equal(logits_of(once, splits.test.x), logits_of(again, splits.test.x))
        assert not torch.equal(logits_of(once, splits.test.x), logits_of(marked.model, splits.test.x))
    assert all(torch.equal(value, before[name]) for name, value in marked.model.state_dict().items())


def test_tuning_learns_the_thiefs_rows_and_pruning_prunes(splits, marked) -> None:
    heart = Dataset(splits.test.x[:50], splits.test.y[:50].roll(1), splits.test.classes, "the thief's own")
    tuned = FineTuningAttack(Fit(epochs=150, learning_rate=0.01))(marked.model, heart, generator=seed(4))
    assert (logits_of(tuned, heart.x).argmax(1) == heart.y).float().mean() > 0.9
    pruned = CompressionAttack(MagnitudePruning(0.8, rounds=1, fit=FIT))(marked.model, heart, generator=seed(4))
    assert sparsity(pruned) == pytest.approx(0.8, abs=0.01)


def test_overwriting_puts_the_thiefs_mark_in(splits, marked) -> None:
    """Both then hold a claim: only the commitment's date tells whose is older."""
    removal = OverwritingAttack(MARK, Key.drawn)
    taken = removal(marked.model, splits.splits["clean"], generator=seed(5))
    thiefs = MARK.embed(marked.model, splits.splits["clean"], Key.drawn(seed(5)), generator=seed(6))
    assert MARK.verify(taken, thiefs) < 1e-6  # the key that the removal drew from the same seed
    assert thiefs.key.secret != marked.key.secret
    assert MARK.verify(marked.model, thiefs) > 0.01


def test_an_extraction_sees_what_the_oracle_publishes(splits, marked) -> None:
    rows = splits.splits["clean"]
    for labels_only in (False, True):
        attack = Watching()
        taken = ExtractionAttack(attack, labels_only=labels_only)(marked.model, rows, generator=seed(0))
        answers = logits_of(marked.model, rows.x)
        expected = nn.functional.one_hot(answers.argmax(1), 10).float() if labels_only else answers
        assert torch.equal(attack.seen[0], expected)
        assert taken is marked.model


def test_the_grid_holds_every_claim_against_every_removal(splits, marked) -> None:
    """The mark is there as stolen, another key's is not; values are what the parts give when they are called alone."""
    other = MARK.embed(marked.model, splits.train, Key.drawn(seed(9)), generator=seed(9))
    owned = {
        "trigger_set": OwnedModel(marked.model, partial(MARK.verify, marked=marked)),
        "stranger": OwnedModel(marked.model, partial(MARK.verify, marked=other)),
    }
    tuning = FineTuningAttack(FIT)
    rows = removal_rows(owned, {"fine_tuning": tuning}, splits.splits["clean"], splits.test, seed=7, study="extraction")
    table = tidy(rows)
    value = table.set_index(["metric", "attack", "defense"]).value
    assert len(table) == 8
    assert value["p_value", "none", "trigger_set"] < 1e-6 < 0.01 < value["p_value", "none", "stranger"]
    tuned = tuning(marked.model, splits.splits["clean"], generator=seed(7))
    assert value["p_value", "fine_tuning", "trigger_set"] == MARK.verify(tuned, marked)
    right = (logits_of(tuned, splits.test.x).argmax(1) == splits.test.y).double().mean().item()
    assert value["clean_accuracy", "fine_tuning", "stranger"] == right

    figure = p_value_grid(table, ["none", "fine_tuning", "absent"], ["trigger_set", "stranger"], "What is left.")
    texts = [text.get_text() for text in figure.axes[0].texts]
    assert texts[0].startswith("< 1e-")
    assert texts.count("-") == 2  # the removal that nobody tried
    assert f"{right:.0%} right" in texts
    bold = [text.get_text() for text in figure.axes[0].texts if text.get_fontweight() == "bold"]
    assert bold == [text for text in texts if text.startswith("< 1e-") and int(text[5:]) >= 6]
    plt.close(figure)
    with pytest.raises(ValueError, match="'none' is the name"):
        removal_rows(owned, {"none": tuning}, splits.train, splits.test, seed=0)
