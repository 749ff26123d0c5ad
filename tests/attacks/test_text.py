"""Attacks on texts: their constraints, and closed forms on models whose every answer can be listed."""

import itertools
import os
import random
import re
import unicodedata
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from hydra import compose, initialize_config_dir
from hydra.utils import instantiate
from torch import nn

from aisec_lab.attacks import (
    CharacterEdits,
    Deletions,
    GreedyWordReplacement,
    Homoglyphs,
    HotFlip,
    InvisibleCharacters,
    Reorderings,
    Synonyms,
    SynonymTable,
)
from aisec_lab.attacks.evasion.search.goals import logit_margin
from aisec_lab.attacks.text.attack import max_changes
from aisec_lab.attacks.text.cooccurrence import class_evidence
from aisec_lab.attacks.text.edits import replace_word
from aisec_lab.attacks.text.invisible import ZERO_WIDTH
from aisec_lab.attacks.text.neighbours import nearest_neighbours, recurring_neighbours
from aisec_lab.attacks.text.synonyms import is_content
from aisec_lab.core.binomial import tail
from aisec_lab.data import PreparedTexts, prepare
from aisec_lab.data.reviews import BAD, GOOD
from aisec_lab.data.sources import MIRROR
from aisec_lab.defenses import Standard
from aisec_lab.models import BagOfEmbeddings, TextClassifier, Vocabulary, text_logits, tokenise
from aisec_lab.models.words import MASK
from tests.clone import ROOT
from tests.reviews import TRAINING, classifier, seed, splits

ATTACKS = {
    "hotflip": HotFlip(0.3),
    "hotflip_synonyms": HotFlip(0.3, allowed=Synonyms(0.3, drift=1.0)),
    "textfooler": GreedyWordReplacement(Synonyms(0.3, drift=1.0), 0.3),
    "deepwordbug": GreedyWordReplacement(CharacterEdits(), 0.3),
    "homoglyphs": GreedyWordReplacement(Homoglyphs(), 0.3),
    "invisible_characters": GreedyWordReplacement(InvisibleCharacters(), 0.3),
    "reorderings": GreedyWordReplacement(Reorderings(), 0.3),
    "deletions": GreedyWordReplacement(Deletions(), 0.3),
}


def distance(first, second):
    """The number of edits between two words, swaps of neighbours included, by the textbook's table."""
    table = {(i, -1): i + 1 for i in range(-1, len(first))} | {(-1, j): j + 1 for j in range(-1, len(second))}
    for i, j in itertools.product(range(len(first)), range(len(second))):
        cost = first[i] != second[j]
        table[i, j] = min(table[i - 1, j] + 1, table[i, j - 1] + 1, table[i - 1, j - 1] + cost)
        if i and j and first[i] == second[j - 1] and first[i - 1] == second[j]:
            table[i, j] = min(table[i, j], table[i - 2, j - 2] + 1)
    return table[len(first) - 1, len(second) - 1]


def changes(before, after):
    """The tokens that differ, as (old, new)."""
    return [pair for pair in zip(tokenise(before), tokenise(after), strict=True) if pair[0] != pair[1]]


@pytest.fixture(scope="module", params=ATTACKS)
def outcome(request):
    """An attack, what it learned with, and what it made of the test reviews."""
    attack = ATTACKS[request.param].learn(splits().train)
    test = splits().test
    return request.param, attack, attack(classifier(), test.texts, test.y, generator=seed(0))


def test_no_constraint_is_violated(outcome):
    """The share of words; the words themselves; and what the result says of itself is so."""
    _, attack, found = outcome
    test, model = splits().test, classifier()
    right = text_logits(model, test.texts).argmax(1) == test.y
    wrong = text_logits(model, found.texts).argmax(1) != test.y
    for row, (before, after) in enumerate(zip(test.texts, found.texts, strict=True)):
        words = len(before.split())
        changed = sum(old != new for old, new in zip(before.split(), after.split(), strict=True))
        assert changed == found.changed[row]
        assert changed <= max(1, attack.share * words + 1e-9)
        assert found.distance[row] == (changed / words if wrong[row] else torch.inf)
        assert changed == 0 or (right[row] and wrong[row])
    assert (found.queries >= 1).all()
    assert (found.queries[~right] == 1).all()


def test_replacements_are_what_the_attack_says(outcome):
    """Words of the vocabulary that speak for the same classes; one edit; one letter's twin; what is not seen."""
    name, _, found = outcome
    train = splits().train
    vocabulary = Vocabulary.of(train.texts)
    evidence = class_evidence(train, vocabulary)
    place = {word: number for number, word in enumerate(vocabulary.words)}
    pairs = [pair for texts in zip(splits().test.texts, found.texts, strict=True) for pair in changes(*texts)]
    assert pairs
    for old, new in pairs:
        if name == "deepwordbug":
            assert distance(old, new) == 1
        elif name == "homoglyphs":
            assert len(old) == len(new)
            assert sum(a != b for a, b in zip(old, new, strict=True)) == 1
            assert not new.isascii()
        elif name == "invisible_characters":
            assert len(new) == len(old) + 1
            assert new.translate(dict.fromkeys(map(ord, ZERO_WIDTH))) == old
        elif name == "reorderings":
            letters = [character for character in new if unicodedata.category(character) != "Cf"]
            assert sorted(letters) == sorted(old)
            assert distance(old, "".join(letters)) == 1
        elif name == "deletions":
            assert len(new) == len(old) + 2
            assert re.sub("[a-z]\x08", "", new) == old
        else:
            assert new in place
        if name in ("textfooler", "hotflip_synonyms"):
            assert is_content(old)
            assert is_content(new)
            assert abs(evidence[place[old]] - evidence[place[new]]).max() <= 1.0 + 1e-9


def test_attacks_break_a_model_that_is_right(outcome):
    """Each takes at least a tenth of the right answers away; any words at all take everything."""
    name, _, found = outcome
    clean = (text_logits(classifier(), splits().test.texts).argmax(1) == splits().test.y).double().mean()
    robust = found.distance.isinf().double().mean()
    assert robust < clean - 0.1
    assert name != "hotflip" or robust == 0


def test_one_run_gives_the_whole_curve(outcome):
    """With a smaller share the attack makes what it made on its way with the larger one."""
    _, attack, found = outcome
    test = splits().test
    for share in (0.0, 0.1, 0.2):
        less = replace(attack, share=share)(classifier(), test.texts, test.y, generator=seed(0))
        broken = ~less.distance.isinf()
        words = torch.tensor([len(text.split()) for text in test.texts])
        assert words.min() * 0.1 >= 1  # else a first word would be more than its share
        assert torch.equal(broken, found.distance <= share)
        assert [path[-1] for path in less.paths] == list(found.within(share))


def test_neither_order_nor_company_changes_a_text(outcome):
    """Draws belong to the text."""
    _, attack, found = outcome
    test = splits().test
    some = torch.tensor([40, 3, 77])
    part = attack(classifier(), [test.texts[row] for row in some], test.y[some], generator=seed(0))
    assert part.texts == tuple(found.texts[row] for row in some)
    assert torch.equal(part.queries, found.queries[some])


def linear(number, words=8, dimensions=3):
    """A bag of embeddings with random weights over `words` words, float64."""
    network = BagOfEmbeddings(dimensions)(words + 3, 2, generator=seed(number)).double()
    with torch.no_grad():
        network.embedding.weight[1:] += torch.randn(words + 2, dimensions, generator=seed(number), dtype=torch.float64)
    return TextClassifier(Vocabulary(tuple("abcdefgh"[:words])), network).eval()


@pytest.mark.parametrize("number", range(5))
def test_hotflip_is_exhaustive_search_on_a_linear_model(number):
    """On a bag of words of fixed length the first order is exact: one flip is the best of all, so are two in turn."""
    model = linear(number)
    rng = random.Random(number)
    texts = [" ".join(rng.choices("abcdefgh", k=6)) for _ in range(20)]
    y = model(texts).argmax(1)
    for flips in (1, 2):
        found = HotFlip(share=flips / 6, tries=1, early_stop=False)(model, texts, y, generator=seed(0))
        for row, text in enumerate(texts):
            versions = [text]
            for places in itertools.combinations(range(6), flips):
                for words in itertools.product("abcdefgh", repeat=flips):
                    version = text
                    for place, word in zip(places, words, strict=True):
                        version = replace_word(version, place, word)
                    versions.append(version)
            lowest = logit_margin(model(versions), y[row].expand(len(versions))).min()
            got = logit_margin(model([found.paths[row][-1]]), y[row : row + 1])[0]
            assert got.item() == pytest.approx(lowest.item(), abs=1e-12)


def test_greedy_goes_by_importance():
    """The word on which the true class leans most goes first, for the most harmful of what is offered."""
    model = linear(0)
    with torch.no_grad():
        model.network.embedding.weight.zero_()
        model.network.embedding.weight[3:, 0] = torch.tensor([1.0, 5.0, -1.0, -9.0, -2.0, 0.0, 0.0, 0.0])
        model.network.linear.weight.copy_(torch.tensor([[1.0, 0.0, 0.0], [-1.0, 0.0, 0.0]]))
        model.network.linear.bias.zero_()
    table = SynonymTable({"a": ("d",), "b": ("c", "e")})
    found = GreedyWordReplacement(table, share=1.0)(model, ["a b f", "a f f"], torch.tensor([0, 0]), generator=seed(0))
    assert found.texts == ("a e f", "d f f")
    assert found.queries.tolist() == [1 + 3 + 2, 1 + 3 + 1]
    assert found.distance.tolist() == [1 / 3, 1 / 3]


class Twice(nn.Module):
    """Shows its victim each text, and the text without its first word."""

    def __init__(self, model):
        super().__init__()
        self.model = model

    def forward(self, texts):
        versions = [version for text in texts for version in (text, f"{MASK} {text.split(maxsplit=1)[1]}")]
        return self.model(versions).unflatten(0, (len(texts), 2)).mean(1)


@pytest.mark.parametrize("number", range(5))
def test_gradients_pass_through_what_stands_before_the_victim(number):
    """The first order of a mean over versions is the mean of theirs; what a version hides gains nothing in it."""
    wrapped = Twice(linear(number)).eval()
    rng = random.Random(number)
    for text in (" ".join(rng.choices("abcdefgh", k=4)) for _ in range(20)):
        y = wrapped([text]).argmax(1)
        found = HotFlip(share=0.25, tries=1, early_stop=False)(wrapped, [text], y, generator=seed(0))
        versions = [text, *(replace_word(text, place, word) for place in range(4) for word in "abcdefgh")]
        lowest = logit_margin(wrapped(versions), y.expand(len(versions))).min()
        assert logit_margin(wrapped([found.paths[0][-1]]), y)[0].item() == pytest.approx(lowest.item(), abs=1e-12)


@pytest.mark.parametrize(
    ("words", "share", "count"),
    [(10, 0.3, 3), (5, 0.2, 1), (7, 0.1, 1), (3, 1.0, 3), (30, 0.1, 3), (3, 0.3, 1), (1, 1e-9, 1), (1, 0.0, 0)],
)
def test_an_allowance_is_the_share_but_a_word_at_least(words, share, count):
    """One word more would exceed the share; nothing may change at a share of 0."""
    assert max_changes(words, share) == count
    assert count / words <= share or count == 1
    assert count == words or (count + 1) / words > share


@pytest.mark.parametrize("text", ["awful", "truly awful", "it was awful"])
@pytest.mark.parametrize("name", ["hotflip", "deepwordbug", "homoglyphs"])
def test_the_shortest_texts_are_attacked_at_the_default_share(name, text):
    """One word of one, two or three is more than 0.3 of them; untouched they would all pass for robust."""
    attack = type(ATTACKS[name])() if name == "hotflip" else GreedyWordReplacement(ATTACKS[name].replacements)
    found = attack(classifier(), [text], torch.tensor([0]), generator=seed(0))
    assert attack.share == 0.3
    assert found.changed.tolist() == [1]
    assert found.distance.item() == 1 / len(text.split())
    assert text_logits(classifier(), found.texts).argmax(1).item() == 1
    assert found.within(0.0) == (text,)
    assert found.within(0.01) == found.texts


def test_a_new_word_takes_over_capital_and_punctuation():
    """The rest of the text stays."""
    assert replace_word('The "Waiter," was  rude.', 1, "server") == 'The "Server," was rude.'
    assert replace_word("rude.", 0, "kind") == "kind."


def test_antonyms_are_no_synonyms():
    """Good and bad words keep the same company; what they speak for keeps them apart."""
    train = splits().train
    table = Synonyms(chance=0.3, drift=0.5).learn(train).table
    loose = Synonyms(chance=0.3, drift=10.0).learn(train).table
    assert [word for word in GOOD if set(loose.get(word, ())) & set(BAD)]
    sure = {word for word in GOOD + BAD if word in table}
    assert sure
    assert not [word for word in sure & set(GOOD) if set(table[word]) & set(BAD)]


def test_what_a_text_turns_on_is_no_content():
    """Negations, pronouns, contractions of either spelling; a noun's genitive is content."""
    for word in ("not", "doesn't", "doesn\u2019t", "n't", "it's", "who", "until", "i'd", "..."):
        assert not is_content(word)
    assert is_content("movie's")
    assert is_content("worth")


def test_pairs_that_chance_makes_are_no_synonyms():
    """The same words shuffled over all texts keep their frequencies and no company: no pair is found.

    A word that hardly occurs has no company either: "eager" is like "muddled" because both stand before "to" once.
    """
    train = splits().train
    words = [word for text in train.texts for word in text.split()]
    random.Random(0).shuffle(words)
    rest = iter(words)
    shuffled = tuple(" ".join(itertools.islice(rest, len(text.split()))) for text in train.texts)
    with pytest.raises(ValueError, match=r"in 400 texts no two are alike in both halves .* take more training texts"):
        Synonyms(chance=0.2).learn(replace(train, texts=shuffled))
    counts = Counter(word for text in train.texts for word in tokenise(text))
    table = Synonyms(least=20).learn(train).table
    assert min(counts[word] for row in table.items() for word in (row[0], *row[1])) >= 20


@pytest.mark.parametrize("number", range(3))
def test_recurring_pairs_are_those_of_the_definition(number):
    """Against ranks counted one by one; planted kin among noise are found."""
    rng = np.random.default_rng(number)
    kin = np.repeat(rng.standard_normal((20, 50)), 2, 0)
    sides = [kin + 0.8 * rng.standard_normal(kin.shape) for _ in range(2)]
    sides = [side / np.linalg.norm(side, axis=1, keepdims=True) for side in sides]
    found = recurring_neighbours(*map(nearest_neighbours, sides), 0.1)
    n = len(kin)
    worse = {
        (i, j): max(1 + sum(side[i] @ side[k] > side[i] @ side[j] for k in range(n) if k != i) for side in sides)
        for i, j in itertools.permutations(range(n), 2)
    }
    limits = [
        rank
        for rank in range(1, n)
        if len(worse) * (rank / (n - 1)) ** 2 <= 0.1 * sum(place <= rank for place in worse.values())
    ]
    assert limits
    assert {(i, j) for i, row in found.items() for j in row} == {
        pair for pair, place in worse.items() if place <= max(limits)
    }
    assert sum(i ^ 1 in row for i, row in found.items()) > 30
    assert all([worse[i, j] for j in row] == sorted(worse[i, j] for j in row) for i, row in found.items())


def test_chance_gives_as_few_pairs_as_it_says():
    """On noise any pair is a false discovery: no more than one time in five is there one, at a chance of 0.2."""
    rng, runs = np.random.default_rng(0), 300
    lucky = 0
    for _ in range(runs):
        sides = (rng.standard_normal((30, 40)) for _ in range(2))
        lucky += bool(
            recurring_neighbours(
                *(nearest_neighbours(side / np.linalg.norm(side, axis=1, keepdims=True)) for side in sides), 0.2
            )
        )
    assert tail(lucky, runs, 0.2) > 1e-4


@pytest.mark.mirror
@pytest.mark.skipif(MIRROR not in os.environ, reason=f"{MIRROR} names no mirror of the public sets")
def test_synonyms_of_real_texts_mean_the_same(tmp_path: Path):
    """In film reviews: kinds of films, praise for praise; a word of six occurrences has none."""
    prepare("rt_polarity", tmp_path)
    table = Synonyms().learn(PreparedTexts("rt_polarity")(tmp_path).train).table
    assert table["film"][0] == "movie"
    assert {"solid", "fine"} <= set(table["great"])
    assert "eager" not in table
    assert not {"bad", "dull", "boring"} & set(table["good"])


@pytest.mark.parametrize(
    ("run", "why"),
    [
        (lambda: HotFlip(share=1.5), r"share.*\[0, 1\], got 1.5"),
        (lambda: HotFlip(tries=0), "tries"),
        (lambda: CharacterEdits(tries=0), "tries"),
        (lambda: Synonyms(chance=0), r"chance must lie in \(0, 1\)"),
        (lambda: Synonyms(chance=1.0), r"chance must lie in \(0, 1\)"),
        (lambda: Synonyms(least=0), "least and most be at least 1"),
        (lambda: Synonyms(drift=float("nan")), "drift at least 0"),
        (lambda: Synonyms(least=10**6).learn(splits().train), "of 0 words that occur 1000000 times"),
        (lambda: attack_with(GreedyWordReplacement(Synonyms(), 1.0)), r"attack\.learn\(train\)"),
        (
            lambda: GreedyWordReplacement(Homoglyphs())(classifier(), "good", torch.tensor([0]), generator=seed(0)),
            "put it into a list",
        ),
        (lambda: attack_with(GreedyWordReplacement(Homoglyphs()), texts=["good", " "]), "text 1 has none"),
        (lambda: attack_with(GreedyWordReplacement(Homoglyphs()), texts=[], y=[]), "at least one text, got none"),
        (
            lambda: attack_with(GreedyWordReplacement(Homoglyphs()), texts=["good", None]),
            "text 1 is a NoneType: leave it out",
        ),
        (lambda: attack_with(HotFlip(), texts=["good", b"bad"]), "text 1 is a bytes: decode it"),
        (lambda: attack_with(GreedyWordReplacement(Homoglyphs()), y=[0, 7]), r"0\.\.1"),
        (lambda: attack_with(GreedyWordReplacement(Homoglyphs()), y=[0]), "one class for each row"),
        (lambda: attack_with(GreedyWordReplacement(Homoglyphs()), model=linear(0).train()), "training mode"),
        (lambda: attack_with(HotFlip(), model=Constant().eval()), "one TextClassifier, the model has 0"),
    ],
)
def test_what_would_be_silently_wrong_is_refused(run, why):
    """With the mend."""
    with pytest.raises(ValueError, match=why):
        run()


@pytest.mark.parametrize("attack", [GreedyWordReplacement(Homoglyphs()), HotFlip()], ids=["greedy", "hotflip"])
def test_texts_may_come_in_any_collection(attack):
    """A tuple, a generator, an array, a column of a table: as the list of the same texts."""
    texts, y = list(splits().test.texts[:3]), splits().test.y[:3]
    expected = attack(classifier(), texts, y, generator=seed(0))
    for kind in (
        tuple,
        iter,
        lambda texts: (text for text in texts),
        np.array,
        lambda texts: pd.Series(texts, [7, 8, 9]),
    ):
        found = attack(classifier(), kind(texts), y, generator=seed(0))
        assert found.texts == expected.texts
        assert torch.equal(found.queries, expected.queries)


class Constant(nn.Module):
    """Always the same answer, without a victim inside."""

    def forward(self, texts):
        return torch.tensor([[1.0, 0.0]]).expand(len(texts), -1)


def attack_with(attack, *, model=None, texts=("the room was awful", "it was lovely"), y=(0, 1)):
    """Run an attack on two texts."""
    return attack(model or classifier(), list(texts), torch.tensor(y, dtype=torch.int64), generator=seed(0))


@pytest.mark.parametrize("name", [path.stem for path in sorted((ROOT / "configs/text_attack").glob("*.yaml"))])
def test_configurations_make_what_they_say(name):
    """Each over the study's share of words."""
    with initialize_config_dir(str(ROOT / "configs"), version_base=None):
        cfg = compose(overrides=["+evasion@text=text", f"+text_attack@attack={name}", "text.share=0.25"])
    attack = instantiate(cfg.attack)
    kind = HotFlip if name.startswith("hotflip") else GreedyWordReplacement
    assert isinstance(attack, kind)
    assert attack.share == 0.25


@pytest.mark.mirror
@pytest.mark.skipif(MIRROR not in os.environ, reason=f"{MIRROR} names no mirror of the public sets")
def test_a_gateway_for_spam(tmp_path: Path):
    """Misspellings let through some of the messages that the filter holds for spam."""
    prepare("sms_spam", tmp_path)
    data = PreparedTexts("sms_spam", train_size=2000)(tmp_path)
    filter_ = TRAINING(data.train, Standard(), generator=seed(0))
    spam = data.test.subset((data.test.y == 1).nonzero().squeeze(1)[:40])
    caught = text_logits(filter_, spam.texts).argmax(1) == 1
    found = GreedyWordReplacement(CharacterEdits(), 0.3)(filter_, spam.texts, spam.y, generator=seed(0))
    assert caught.double().mean() > 0.7
    assert found.distance.isinf().double().mean() < caught.double().mean() - 0.1
