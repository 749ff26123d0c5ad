"""The small language model: its windows, its probabilities, and that it is a classifier like any other."""

import itertools
import math

import pytest
import torch

from aisec_lab.defenses import Standard
from aisec_lab.models import Fit
from aisec_lab.models.language import EDGE, CharVocabulary, NeuralNGram, text_bits


def seed(number):
    return torch.Generator().manual_seed(number)


def test_windows_are_what_stands_before_each_place():
    """By hand; the empty text has an end, too."""
    x, y, rows = CharVocabulary("ab", context=2).windows(["ab", ""])
    assert x.tolist() == [[EDGE, EDGE], [EDGE, 1], [1, 2], [EDGE, EDGE]]
    assert y.tolist() == [1, 2, EDGE, EDGE]
    assert rows.tolist() == [0, 0, 0, 1]


def test_probabilities_of_all_texts_add_up_to_one():
    """All texts of up to five characters, and those that go on after the fifth: nothing is missing or counted twice."""
    characters = CharVocabulary("ab", context=3)
    model = NeuralNGram(4, 8)(characters, generator=seed(0))
    texts = ["".join(letters) for length in range(6) for letters in itertools.product("ab", repeat=length)]
    ended = (2 ** -text_bits(model, characters, texts)).sum().item()
    started = 0.0
    for text in (text for text in texts if len(text) == 5):
        x, y, _ = characters.windows([text])
        chances = model(x).softmax(1).double()
        started += (chances[torch.arange(5), y[:5]].prod() * (1 - chances[5, EDGE])).item()
    assert ended + started == pytest.approx(1, abs=1e-5)
    assert 0.1 < ended < 0.999
    assert text_bits(model, characters, []).tolist() == []


def test_it_learns_what_follows():
    """One text over and over: it needs next to no bits, another needs many; the same seed, the same model."""
    characters = CharVocabulary.of(["to be or not", "xyz"])
    bits = []
    for _ in range(2):
        model = NeuralNGram()(characters, generator=seed(0))
        rows = characters.tokens(["to be or not"] * 20, "one text")
        Fit(epochs=5, learning_rate=0.01)(model, rows, Standard(), generator=seed(1))
        bits.append(text_bits(model, characters, ["to be or not", "to xyz"]))
    assert torch.equal(*bits)
    assert bits[0][0] < 2
    assert bits[0][1] > 5
    assert rows.classes == ("", *characters.characters)
    assert len(rows) == 20 * 13


def test_bits_are_of_a_model_that_knows_nothing():
    """All weights zero: each place costs log2 of how many numbers there are."""
    characters = CharVocabulary("abc")
    model = NeuralNGram()(characters, generator=seed(0))
    for weight in model.parameters():
        torch.nn.init.zeros_(weight)
    assert text_bits(model, characters, ["ab", "abca"]).tolist() == pytest.approx([3 * math.log2(4), 5 * math.log2(4)])


def test_what_it_cannot_read_is_refused():
    """At the door."""
    with pytest.raises(ValueError, match=r"does not know the characters \['z'\]"):
        CharVocabulary("ab").windows(["az"])
    for characters, context in (("aa", 3), ("", 3), ("ab", 0)):
        with pytest.raises(ValueError, match="once each"):
            CharVocabulary(characters, context)
