"""Defenses of text classifiers: rewriting undone exactly, and certificates held against every possible change."""

import itertools
import random
import re
from math import comb

import pytest
import torch
from hydra import compose, initialize_config_dir
from hydra.utils import instantiate
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binom
from torch import nn

from aisec_lab.attacks import (
    CharacterEdits,
    Deletions,
    GreedyWordReplacement,
    Homoglyphs,
    InvisibleCharacters,
    Reorderings,
    SynonymTable,
)
from aisec_lab.attacks.text.characters import misspell
from aisec_lab.attacks.text.edits import replace_word
from aisec_lab.attacks.text.homoglyphs import LOOKALIKES
from aisec_lab.defenses import (
    ABSTAIN,
    AdversarialAugmentation,
    MaskedWords,
    Normalisation,
    RandomMasking,
    SpellChecking,
    UndefendedText,
    certify_words,
)
from aisec_lab.defenses.text.displayed import displayed
from aisec_lab.defenses.text.masking import MaskedModel, kept_words, masked_copies
from aisec_lab.defenses.text.masking_certificate import certified_words, overlap_probability
from aisec_lab.defenses.text.normalisation import normalise_word
from aisec_lab.defenses.text.spelling import SpellChecker, one_edit
from aisec_lab.models import BagOfEmbeddings, TextClassifier, Vocabulary, seeded, text_logits
from aisec_lab.models.words import MASK, MASKED, PAD
from tests.clone import ROOT
from tests.reviews import TRAINING, classifier, seed, splits


def defended(defense):
    """The review classifier behind a defense."""
    return defense(classifier(), data=splits(), training=TRAINING, generator=seed(0))


def test_normalisation_undoes_every_homoglyph():
    """Every twin, small and capital, alone and in all places at once."""
    for letter, twins in LOOKALIKES.items():
        for twin in twins:
            assert normalise_word(f"x{twin}x") == f"x{letter}x"
            assert normalise_word(twin.upper()) == letter.upper()
    test = splits().test.texts
    for text in test:
        for place, word in enumerate(text.lower().split()):
            for option in Homoglyphs().options(word.strip(".,:"), None):
                assert " ".join(map(normalise_word, replace_word(text, place, option).split())) == text


@given(st.text(min_size=1).filter(lambda text: len(text.split()) == 1))
@settings(deadline=None, derandomize=True)
def test_a_normalised_word_is_one_word(text):
    """No word goes and none comes, or places would shift."""
    (word,) = text.split()
    assert len(normalise_word(word).split()) == 1


def test_invisible_characters_and_other_widths_are_folded():
    """A zero-width space inside a word; full-width and mathematical letters."""
    assert normalise_word("aw\u200bful") == "awful"
    assert normalise_word("\uff41\uff57\uff46\uff55\uff4c") == "awful"
    assert normalise_word("\U0001d41a") == "a"
    assert normalise_word("\u200b") == "\u200b"


def test_a_normalised_word_is_the_one_that_is_shown():
    """Backspaces take letters away, a control at a time; overrides and isolates are shown in their order."""
    rlo, lri, rli, pdf, pdi = "\u202e", "\u2066", "\u2067", "\u202c", "\u2069"
    assert normalise_word("aw\bwxy\b\bful") == "awful"
    assert normalise_word("\bawful") == "awful"
    assert normalise_word(f"aw{rlo}luf") == "awful"
    assert normalise_word(f"{rlo}lufwa{pdf}!") == "awful!"
    assert normalise_word(f"{rli}awful{pdi}") == "awful"  # letters keep their order where nothing overrides it
    assert normalise_word(f"{rli}{lri}ful{pdi}{lri}aw{pdi}{pdi}") == "awful"
    assert normalise_word(f"{rlo}{lri}l{pdf}u{pdi}{lri}f{pdi}wa") == "awflu"  # an isolate that PDF does not close
    assert normalise_word(f"aw{pdf}{pdi}ful") == "awful"
    assert normalise_word("\u202baw\u202aful") == "awful"  # two embeddings at one level are one run


def stored(part):
    """A letter, or parts in one direction: an override inside an isolate, so that what is around it does not matter."""
    if isinstance(part, str):
        return part
    backwards, parts = part
    return "\u2066" + ("\u202e" if backwards else "\u202d") + "".join(map(stored, parts)) + "\u202c\u2069"


def seen(part):
    """How that is read: parts from right to left come the other way round."""
    if isinstance(part, str):
        return part
    backwards, parts = part
    return "".join(map(seen, parts[::-1] if backwards else parts))


@given(st.recursive(st.sampled_from("abcd"), lambda part: st.tuples(st.booleans(), st.lists(part, max_size=4))))
@settings(deadline=None, derandomize=True, max_examples=200)
def test_nested_directions_are_shown_inside_out(part):
    """The standard's levels and reversals, against what they are for."""
    assert displayed(stored(part)) == seen(part)


def undone(text):
    """A text without what the three attacks put in, each in the one way in which it does."""
    text = re.sub("[\u200b-\u200d]|[a-z]\x08", "", text)
    return re.sub("\u202d\u2066\u202e\u2066(.)\u2069\u2066(.)\u2069\u202c\u2069\u202c", r"\2\1", text)


@pytest.mark.parametrize("replacements", [InvisibleCharacters(), Reorderings(), Deletions()], ids=repr)
def test_invisible_characters_do_nothing_to_the_normalised_model(replacements):
    """A reader sees the text as it was; the bare model loses what it knew."""
    test, model = splits().test.subset(torch.arange(30)), defended(Normalisation())
    attack = GreedyWordReplacement(replacements)
    bare, behind = (attack(victim, test.texts, test.y, generator=seed(0)) for victim in (classifier(), model))
    right = text_logits(classifier(), test.texts).argmax(1) == test.y
    assert torch.equal(behind.distance.isinf(), right)
    assert bare.distance.isinf().double().mean() < right.double().mean() - 0.3
    for before, after in zip(test.texts, bare.texts, strict=True):
        assert len(after.split()) == len(before.split())
        assert undone(after) == " ".join(before.split())


def test_capitals_are_kept_where_a_word_is_written_in_them():
    """Else what is called invisible would show."""
    for replacements in (InvisibleCharacters(), Reorderings(), Deletions(), Homoglyphs()):
        for word, text in itertools.product(("Room", "ROOM", "room"), ("{}", '"{},"')):
            for option in replacements.options("room", random.Random(0)):
                after = replace_word(text.format(word), 0, option)
                assert normalise_word(after) == text.format(word)


def test_homoglyphs_do_nothing_to_the_normalised_model():
    """And take from the bare one; clean answers are the same."""
    test, model = splits().test, defended(Normalisation())
    assert torch.equal(text_logits(model, test.texts), text_logits(classifier(), test.texts))
    bare, behind = (
        GreedyWordReplacement(Homoglyphs())(victim, test.texts, test.y, generator=seed(0)).distance.isinf()
        for victim in (classifier(), model)
    )
    assert torch.equal(behind, text_logits(classifier(), test.texts).argmax(1) == test.y)
    assert bare.double().mean() < behind.double().mean() - 0.3


@given(st.text("abc", min_size=1, max_size=5), st.text("abc", min_size=1, max_size=5))
@settings(deadline=None, derandomize=True)
def test_one_edit_is_one_of_the_four(first, second):
    """Against a list of all words that one edit makes."""
    cuts = [(first[:place], first[place:]) for place in range(len(first) + 1)]
    made = {a + b[1] + b[0] + b[2:] for a, b in cuts if len(b) > 1} | {a + b[1:] for a, b in cuts if b}
    made |= {a + c + b for a, b in cuts for c in "abc"} | {a + c + b[1:] for a, b in cuts if b for c in "abc"}
    if first != second:
        assert one_edit(first, second) == (second in made)


def test_spell_checking_restores_single_edits():
    """Of each word in many misspellings, unless that is a word, or one edit from a more frequent one."""
    vocabulary = Vocabulary.of(splits().train.texts)
    checker, rng, restored, total = SpellChecker(vocabulary), random.Random(0), 0, 0
    for rank, word in enumerate(vocabulary.words):
        assert checker(word) == word
        if len(word) < 2:
            continue
        for token in {misspell(word, rng) for _ in range(20)} - {word, ""}:
            if token in vocabulary.words or not token.isalpha():
                continue
            rivals = [other for other in vocabulary.words if one_edit(token, other)]
            assert checker(token) == min(rivals, key=vocabulary.words.index)
            total += 1
            restored += checker(token) == word
            assert checker(token) == word or vocabulary.words.index(checker(token)) < rank
    assert restored / total > 0.9


def test_spell_checking_leaves_what_it_does_not_know():
    """Capital and punctuation stay; so does a word far from all, and what has no letter."""
    checker = SpellChecker(Vocabulary(("waiter", "water", "was")))
    assert checker("Waitre,") == "Waiter,"
    assert checker("wxter") == "water"
    assert checker("waer") == "water"
    assert checker("xylophone") == "xylophone"
    assert checker(MASK) == MASK
    assert checker("1") == "1"


def test_spell_checking_answers_misspellings():
    """DeepWordBug takes less from the checked model than from the bare one."""
    test = splits().test
    bare, behind = (
        GreedyWordReplacement(CharacterEdits())(victim, test.texts, test.y, generator=seed(0))
        .distance.isinf()
        .double()
        .mean()
        for victim in (classifier(), defended(SpellChecking()))
    )
    assert behind > bare + 0.3


def test_augmentation_adds_what_the_attack_breaks():
    """The attack's own texts, with their true classes, are learned."""
    attack = GreedyWordReplacement(
        SynonymTable({"excellent": ("qqq",), "awful": ("qqq",), "good": ("zzz",)}), share=0.3
    )
    train = splits().train
    found = attack(classifier(), train.texts, train.y, generator=seed(0))
    seen = []

    class Spy:
        def __call__(self, texts, objective, *, generator):
            seen.append(texts)
            return classifier()

    AdversarialAugmentation(attack)(classifier(), data=splits(), training=Spy(), generator=seed(0))
    broken = (found.changed > 0).nonzero().squeeze(1)
    assert 0 < len(broken) < len(train)
    assert seen[0].texts == train.texts + tuple(found.texts[row] for row in broken)
    assert torch.equal(seen[0].y, torch.cat([train.y, train.y[broken]]))


def test_copies_show_exactly_so_many_words_each_choice_as_often():
    """And belong to the text and the key."""
    text, copies = "a b c d e", masked_copies("a b c d e", 0.4, 4000, "0")
    choices = [tuple(place for place, word in enumerate(copy.split()) if word != MASK) for copy in copies]
    assert {len(choice) for choice in choices} == {2}
    assert all(len(copy.split()) == 5 for copy in copies)
    counts = [choices.count(choice) for choice in itertools.combinations(range(5), 2)]
    assert min(2 * min(binom.cdf(count, 4000, 0.1), binom.sf(count - 1, 4000, 0.1)) for count in counts) > 1e-4
    assert masked_copies(text, 0.4, 5, "0") == copies[:5] != masked_copies(text, 0.4, 5, "1")
    assert [kept_words(words, 0.3) for words in (1, 2, 10)] == [1, 1, 3]


def test_masked_words_hide_as_many_as_the_copies_do():
    """In training the network sees numbers; the words after the end stay what they are."""
    seen = []

    def spy(numbers):
        seen.append(numbers)
        return torch.zeros(len(numbers), 2, requires_grad=True)

    numbers = torch.tensor([[4, 5, 6, 7, 8, 9, 10, 11, 12, 13], [4, 5, 6, 7, PAD, PAD, PAD, PAD, PAD, PAD]])
    MaskedWords(0.5)(spy, numbers, torch.tensor([0, 1]), generator=seed(0))
    assert (seen[0] == MASKED).sum(1).tolist() == [5, 2]
    assert torch.equal(torch.where(seen[0] == MASKED, numbers, seen[0]), numbers)


WORDS, KEPT, ALPHABET = 5, 2, "abcd"


@pytest.fixture(scope="module", params=range(4))
def tiny(request):
    """A random classifier of texts over four words, which hears the order of no words."""
    network = BagOfEmbeddings(3)(len(ALPHABET) + 3, 3, generator=seed(request.param))
    with torch.no_grad():
        network.embedding.weight[MASKED:] += torch.randn(len(ALPHABET) + 1, 3, generator=seed(request.param))
    return TextClassifier(Vocabulary(tuple(ALPHABET)), network).eval()


def shares(model, texts):
    """The exact share of each class among all choices of shown words, (N, K), counted choice by choice."""
    choices = list(itertools.combinations(range(WORDS), KEPT))
    copies = [
        " ".join(word if place in choice else MASK for place, word in enumerate(text.split()))
        for text in texts
        for choice in choices
    ]
    votes = text_logits(model, copies).argmax(1)
    return nn.functional.one_hot(votes, 3).view(len(texts), len(choices), 3).double().mean(1)


def neighbours(text, changed):
    """Every text with at most so many other words."""
    words = text.split()
    return [
        " ".join(dict(zip(places, new, strict=True)).get(place, word) for place, word in enumerate(words))
        for places in itertools.combinations(range(WORDS), changed)
        for new in itertools.product(ALPHABET, repeat=changed)
    ]


def test_no_change_of_so_many_words_beats_the_certificate(tiny):
    """Exhaustively: with the exact shares, and with the bounds that `certify_words` draws."""
    texts = [" ".join(words) for words in itertools.product(ALPHABET, repeat=WORDS)][::23]
    exact = shares(tiny, texts)
    drawn = certify_words(tiny, texts, keep=KEPT / WORDS, n0=50, n=2000, generator=seed(0))
    proved = [certified_words(p, WORDS, KEPT) for p in exact.amax(1).tolist()]
    assert max(proved) >= 1
    assert ((drawn.classes == ABSTAIN) | (drawn.classes == exact.argmax(1))).all()
    assert all(words <= max(most, 0) for words, most in zip(drawn.words.tolist(), proved, strict=True))
    assert (drawn.words >= 1).any()
    for row, (text, most) in enumerate(zip(texts, proved, strict=True)):
        if most >= 1:
            around = shares(tiny, neighbours(text, most))
            assert (around.argmax(1) == exact[row].argmax()).all()
            assert (around.amax(1) > 0.5).all()


def test_the_bound_cannot_be_better():
    """A classifier that says 1 wherever the word "b" is seen: each "b" takes exactly the choices that hold it."""

    class Saw(nn.Module):
        def forward(self, texts):
            return nn.functional.one_hot(torch.tensor(["b" in text.split() for text in texts]).long(), 3).double()

    for changed in range(WORDS + 1):
        text = " ".join("b" if place < changed else "a" for place in range(WORDS))
        assert shares(Saw(), [text])[0, 1].item() == pytest.approx(overlap_probability(WORDS, KEPT, changed))
    assert certified_words(1.0, WORDS, KEPT) == 1
    assert overlap_probability(WORDS, KEPT, 1) < 0.5 < overlap_probability(WORDS, KEPT, 2)
    assert certified_words(0.5 + overlap_probability(WORDS, KEPT, 1), WORDS, KEPT) == 0
    assert certified_words(0.5, WORDS, KEPT) == -1
    assert overlap_probability(14, 3, 2) == pytest.approx(1 - comb(12, 3) / comb(14, 3))


class Half(nn.Module):
    """Says 1 of the copies that show the word "a"."""

    def forward(self, texts):
        return nn.functional.one_hot(torch.tensor(["a" in text.split() for text in texts]).long(), 2).double()


def test_a_class_is_given_wrongly_no_more_often_than_alpha():
    """Where each class has half of all choices of two words of four, none has more: each that is given is wrong."""
    runs, alpha = 2000, 0.1
    given = 0
    for run in range(runs):
        certificate = certify_words(Half().eval(), ["a c d e"], keep=0.5, n0=5, n=40, alpha=alpha, generator=seed(run))
        given += int(certificate.classes[0] != ABSTAIN)
    assert binom.sf(given - 1, runs, alpha) > 1e-4
    assert given > alpha * runs / 4  # a bound that is never wrong gives away words


def test_votes_are_the_shares(tiny):
    """The scores are the logarithms of the exact shares, up to chance; each call draws fresh masks."""
    texts = ["a b c d a", "d d c a b"]
    model = MaskedModel(tiny, KEPT / WORDS, 4000).eval()
    with seeded(model, seed(0)), torch.no_grad():
        first, second = model(texts).exp().double(), model(texts).exp().double()
    assert (first - shares(tiny, texts)).abs().max() < 0.04
    assert not torch.equal(first, second)
    with pytest.raises(ValueError, match="no generator is bound"):
        model(texts)


@pytest.mark.parametrize(
    ("run", "why"),
    [
        (lambda: RandomMasking(keep=0), r"keep.*\(0, 1\], got 0"),
        (lambda: RandomMasking(samples=0), "samples counts masked copies"),
        (lambda: MaskedWords(1.5), "keep"),
        (lambda: certify_words(classifier(), ["a"], keep=0.5, n=0, generator=seed(0)), "n counts masked copies"),
        (lambda: certify_words(classifier(), ["a"], keep=0.5, alpha=1, generator=seed(0)), "alpha"),
        (lambda: certify_words(classifier(), [""], keep=0.5, generator=seed(0)), "text 0 has none"),
    ],
)
def test_settings_that_prove_nothing_are_refused(run, why):
    """With the mend."""
    with pytest.raises(ValueError, match=why):
        run()


KINDS = {
    "none": UndefendedText,
    "normalisation": Normalisation,
    "spell_checking": SpellChecking,
    "augmentation": AdversarialAugmentation,
    "random_masking": RandomMasking,
}


@pytest.mark.parametrize("name", [path.stem for path in sorted((ROOT / "configs/text_defense").glob("*.yaml"))])
def test_configurations_make_what_they_say(name):
    """Each is a defense, whose classifier reads reviews far better than chance."""
    with initialize_config_dir(str(ROOT / "configs"), version_base=None):
        cfg = compose(overrides=["+evasion@text=text", f"+text_defense@defense={name}"])
    defense = instantiate(cfg.defense)
    assert type(defense) is KINDS[name]
    model = defended(defense)
    assert not model.training
    with seeded(model, seed(0)):
        right = text_logits(model, splits().test.texts).argmax(1) == splits().test.y
    assert right.double().mean() > 0.7
