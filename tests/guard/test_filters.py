"""Filters: which rows pass, which are changed, which are rejected, and why."""

import math
import random
from typing import NamedTuple

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from aisec_lab.attacks import Deletions, Homoglyphs, InvisibleCharacters, Reorderings
from aisec_lab.defenses import PRADA, Blacklight, scores_of
from aisec_lab.guard import DuplicateFilter, FilterDecision, SchemaFilter, SimilarityFilter, TextFilter

PASS, SANITISE, REJECT = FilterDecision.PASS, FilterDecision.SANITISE, FilterDecision.REJECT


def seed(number):
    return torch.Generator().manual_seed(number)


class Number(NamedTuple):
    value: float
    decision: FilterDecision
    score: float


@pytest.mark.parametrize(
    "case",
    [
        Number(0.5, PASS, 0),
        Number(1.0, PASS, 0),
        Number(1 + 1e-7, SANITISE, 1.19e-7),
        Number(-1e-7, SANITISE, 1e-7),
        Number(1.01, REJECT, 0.01),
        Number(-2.0, REJECT, 2),
        Number(math.nan, REJECT, math.inf),
        Number(math.inf, REJECT, math.inf),
        Number(-math.inf, REJECT, math.inf),
    ],
    ids=repr,
)
def test_one_number_out_of_range_decides_on_its_row_alone(case):
    rows = torch.full((3, 2, 4), 0.5)
    rows[1, 1, 2] = case.value
    before = rows.clone()
    result = SchemaFilter((2, 4)).check(rows, client="a")
    assert result.decisions.tolist() == [PASS, case.decision, PASS]
    assert result.scores[1].item() == pytest.approx(case.score, rel=0.01)
    assert [bool(reason) for reason in result.reasons] == [False, case.decision != PASS, False]
    assert torch.equal(rows.nan_to_num(), before.nan_to_num())
    if case.decision != REJECT:
        assert result.rows.min() >= 0
        assert result.rows.max() <= 1


def test_rows_of_another_shape_are_rejected_with_both_shapes():
    result = SchemaFilter((1, 8, 8)).check(torch.rand(2, 8, 8), client="a")
    assert result.rejected.all()
    assert result.reasons == ("schema: shape (8, 8) is not (1, 8, 8)",) * 2


@given(st.lists(st.tuples(st.sampled_from("ab"), st.integers(0, 3)), max_size=40), st.integers(0, 2))
@settings(max_examples=50, deadline=None)
def test_a_row_may_be_repeated_as_often_as_allowed_by_each_client(requests, copies):
    """Against a count by hand."""
    tested, sent = DuplicateFilter(copies), {}
    for client, number in requests:
        result = tested.check(torch.full((1, 3), float(number)), client=client)
        earlier = sent.get((client, number), 0)
        sent[client, number] = earlier + 1
        assert result.scores.item() == earlier
        assert result.rejected.item() == (earlier > copies)


def test_the_memory_of_duplicates_forgets_the_row_that_was_away_longest():
    tested = DuplicateFilter(0, remembered=2)
    sent = [tested.check(torch.tensor([[float(number)]]), client="a").rejected.item() for number in (0, 1, 0, 2, 0, 1)]
    assert sent == [False, False, True, False, True, False]  # 2 pushed 1 out


def test_near_duplicates_are_rejected_row_by_row_and_nobody_is_locked_out(splits):
    tested = SimilarityFilter(Blacklight(b"key", shared=True))
    x = splits.test.x[:5]
    nearly = (x + 0.001).clamp(0, 1)
    assert not tested.check(x, client="a").rejected.any()
    again = tested.check(torch.cat([nearly, splits.test.x[5:10]]), client="b")
    assert again.rejected.tolist() == [True] * 5 + [False] * 5
    assert again.reasons[0].startswith("similarity: score 1 is above 0.5")


def test_a_detector_filter_rejects_at_its_rate_what_the_detector_scores_above_the_threshold(filters, splits):
    """The scores are the detector's own; all four filters and the logits cost one pass of the model."""
    x = splits.test.x
    reader = filters[0].reader
    passes = reader.passes
    for tested in filters:
        result = tested.check(x, client="a")
        expected = scores_of(tested.fitted, x)
        assert torch.equal(result.scores.float(), expected)
        assert torch.equal(result.rejected, expected > tested.threshold)
        assert result.rejected.double().mean() < 0.1
    assert reader.passes == passes + 1
    assert torch.equal(reader.read(x).logits.argmax(1), reader.model(x).argmax(1))


class Text(NamedTuple):
    text: str
    decision: FilterDecision
    becomes: str


@pytest.mark.parametrize(
    "case",
    [
        Text("a plain text", PASS, "a plain text"),
        Text("", PASS, ""),
        Text("two  spaces\tand\na line", PASS, "two  spaces\tand\na line"),
        Text("one h\u0430t  among five words", SANITISE, "one hat  among five words"),
        Text("z\u200bero width in five words", SANITISE, "zero width in five words"),
        Text("h\u0430t h\u0430t hat", REJECT, "h\u0430t h\u0430t hat"),
        Text("x" * 101, REJECT, "x" * 101),
    ],
    ids=lambda case: repr(case.text[:20]),
)
def test_texts_that_hide_characters_are_rewritten_or_rejected(case):
    result = TextFilter(longest=100).check((case.text, "another"), client="a")
    assert result.decisions.tolist() == [case.decision, PASS]
    assert result.rows == (case.becomes, "another")
    assert bool(result.reasons[0]) == (case.decision != PASS)


@pytest.mark.parametrize("source", [Homoglyphs(), InvisibleCharacters(), Reorderings(), Deletions()], ids=repr)
def test_every_edit_of_a_word_by_the_lab_s_attacks_is_undone(source):
    words = ["the", "film", "was", "slow", "and", "we", "liked", "it", "more", "than", "the", "book"]
    edits = [(place, edit) for place, word in enumerate(words) for edit in source.options(word, random.Random(0))]
    texts = tuple(" ".join([*words[:place], edited, *words[place + 1 :]]) for place, edited in edits)
    result = TextFilter().check(texts, client="a")
    assert len(texts) > 9
    assert result.decisions.tolist() == [SANITISE] * len(texts)
    assert result.rows == (" ".join(words),) * len(texts)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: SchemaFilter((1,), low=1, high=0), "low must be below high"),
        (lambda: SchemaFilter((1,), slack=-1), "slack not negative"),
        (lambda: DuplicateFilter(-1), "copies must not be negative"),
        (lambda: SimilarityFilter(PRADA()), "PRADA reads answers"),
        (lambda: TextFilter(longest=0), "longest must be positive"),
        (lambda: TextFilter(most=1.5), r"most lie in \[0, 1\]"),
    ],
)
def test_settings_out_of_range_are_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()
