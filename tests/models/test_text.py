"""Text classifiers: words, numbers, and answers that do not depend on the company."""

import os
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from aisec_lab.data import PreparedTexts, prepare
from aisec_lab.data.sources import MIRROR
from aisec_lab.defenses import Standard
from aisec_lab.models import BagOfEmbeddings, Fit, TextCNN, TextTraining, Vocabulary, text_logits, tokenise
from aisec_lab.models.language import CharVocabulary, NeuralNGram, text_bits
from aisec_lab.models.words import MASK, MASKED, PAD, UNKNOWN, Tokens
from tests.reviews import classifier, seed, splits


@given(st.text())
@settings(deadline=None, derandomize=True)
def test_a_word_is_a_token(text: str) -> None:
    """As many tokens as words, none empty, whatever the text."""
    tokens = tokenise(text)
    assert len(tokens) == len(text.split())
    assert all(tokens)


def test_tokens_lose_capitals_and_the_punctuation_at_their_ends() -> None:
    """What is inside a word stays, and so does what is punctuation only."""
    assert tokenise("\"Don't!\"  (GOOD) ... t&c's ,") == ["don't", "good", "...", "t&c's", ","]


def test_a_vocabulary_is_sorted_by_frequency_then_alphabet() -> None:
    """A word that stands once is unknown; the mask has its number whatever the texts were."""
    vocabulary = Vocabulary.of(["b a b", "A b. c", "z z", MASK, MASK])
    assert vocabulary.words == ("b", "a", "z")
    assert vocabulary.encode(["B c a", f"{MASK} z"]).tolist() == [[3, UNKNOWN, 4], [MASKED, 5, PAD]]
    assert len(vocabulary) == 6


@pytest.mark.parametrize("architecture", [BagOfEmbeddings(4), TextCNN(4, 8, 3)], ids=repr)
def test_an_answer_does_not_depend_on_the_batch(architecture: BagOfEmbeddings | TextCNN) -> None:
    """A text alone, which may be shorter than a window, is answered as beside a longer one that needs padding."""
    network = architecture(12, 3, generator=seed(0)).double().eval()
    if isinstance(architecture, TextCNN):
        network.filters.bias.data.fill_(1.0)  # so that a window of nothing answers too
    rows = [[5], [4, 7], [3, 4, 5, 6, 7, 8, 9, 10, 11]]
    together = network(torch.tensor([row + [PAD] * (9 - len(row)) for row in rows]))
    for row, logits in zip(rows, together, strict=True):
        torch.testing.assert_close(network(torch.tensor([row]))[0], logits)


def test_the_order_of_words_matters_to_windows_alone() -> None:
    """A bag is a bag; a convolution is none."""
    forth, back = torch.tensor([[3, 4, 5]]), torch.tensor([[5, 4, 3]])
    bag, windows = (a(6, 2, generator=seed(0)).double() for a in (BagOfEmbeddings(4), TextCNN(4, 8, 2)))
    torch.testing.assert_close(bag(forth), bag(back))
    assert (windows(forth) - windows(back)).abs().max() > 1e-3


def test_training_is_repeatable_and_learns() -> None:
    """The same bits from the same seed; nearly every review that it never saw is read rightly."""
    again = TextTraining(BagOfEmbeddings(), Fit(epochs=20, learning_rate=0.01))
    first, second = classifier(), again(splits().train, Standard(), generator=seed(0))
    assert all(torch.equal(a, b) for a, b in zip(first.parameters(), second.parameters(), strict=True))
    assert (text_logits(first, splits().test.texts).argmax(1) == splits().test.y).double().mean() > 0.95
    assert not first.training


def test_numbers_of_words_are_integers() -> None:
    """Floats would be taken for pixels."""
    with pytest.raises(ValueError, match=r"numbers of words are int64 \(N, L\).*Vocabulary\.tokens"):
        Tokens(torch.zeros(2, 3), torch.zeros(2, dtype=torch.int64), ("a", "b"), "toy")


@pytest.mark.mirror
@pytest.mark.skipif(MIRROR not in os.environ, reason=f"{MIRROR} names no mirror of the public sets")
def test_a_bag_reads_sst2(tmp_path: Path) -> None:
    """Joulin et al. and others report 80 to 83 % for bags of words without other training texts."""
    prepare("sst2", tmp_path)
    data = PreparedTexts("sst2")(tmp_path)
    model = TextTraining(BagOfEmbeddings(), Fit(epochs=5, learning_rate=0.01))(
        data.train, Standard(), generator=seed(0)
    )
    assert (text_logits(model, data.test.texts).argmax(1) == data.test.y).double().mean() > 0.78


@pytest.mark.parametrize(
    ("texts", "why"),
    [
        ("the room was awful", "got one str: put it into a list"),
        (None, "got a NoneType: pass a list"),
        ({"awful": 0}, "got a dict"),
        ([], "at least one text"),
        (["awful", None], "text 1 is a NoneType"),
        (["awful", " "], "text 1 has none"),
        ([["awful"]], "text 0 is a list"),
    ],
)
def test_what_are_no_texts_is_refused_by_every_model(texts: object, why: str) -> None:
    """A string's letters would be answered as texts, with as many rows."""
    for ask in (classifier(), lambda texts: text_logits(classifier(), texts), classifier().vocabulary.encode):
        with pytest.raises(ValueError, match=why):
            ask(texts)


def test_a_language_model_takes_texts_and_no_text() -> None:
    """One string would be as many texts as it has letters; a generator is read once."""
    characters = CharVocabulary.of(word for word in ("ab", "ba"))
    model = NeuralNGram()(characters, generator=seed(0))
    assert torch.equal(
        text_bits(model, characters, (text for text in ["ab", "b"])), text_bits(model, characters, ["ab", "b"])
    )
    for ask in (CharVocabulary.of, characters.windows, lambda texts: text_bits(model, characters, texts)):
        with pytest.raises(ValueError, match="got one str: put it into a list"):
            ask("ab")
        with pytest.raises(ValueError, match="text 1 is a NoneType"):
            ask(["ab", None])
