"""Texts: their readers, the set that the project ships, and what is refused."""

import os
import re
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch

from aisec_lab.data import CATALOG, Prepared, PreparedTexts, Texts, prepare, reviews, text_readers
from aisec_lab.data.sources import MIRROR


def test_reviews_are_what_their_generator_prints() -> None:
    """The committed file is the generator's output to the byte; no sentence twice, as many of each class."""
    pairs = reviews.sentences()
    printed = "".join(f"{label}\t{text}\n" for label, text in pairs)
    assert Path(reviews.__file__).with_name("reviews.txt").read_bytes() == printed.encode()
    assert Counter(label for label, _ in pairs) == {"negative": reviews.EACH, "positive": reviews.EACH}
    assert len({text for _, text in pairs}) == len(pairs)


def test_reviews_say_what_their_label_says() -> None:
    """A word of the other side stands only where it is said of what was expected, of a trifle, or by friends."""
    sides = {"positive": (reviews.GOOD, reviews.BAD), "negative": (reviews.BAD, reviews.GOOD)}
    for label, text in reviews.sentences():
        own, other = sides[label]
        opposite = re.findall(rf"\b(?:{'|'.join(other)})\b", text)
        assert re.search(rf"\b(?:{'|'.join(own)})\b", text)
        assert len(opposite) == bool(re.search(r"I expected|was a little|Friends told us", text))
        assert not any(verdict in text for verdict in (reviews.BLAME if label == "positive" else reviews.PRAISE))


def test_twice_prepared_gives_the_same_bytes(tmp_path: Path) -> None:
    """And the rows come back with their classes; the card says that nobody wrote them."""
    folders = [prepare("reviews", tmp_path / place) for place in ("one", "two")]
    first, second = ({path.name: path.read_bytes() for path in folder.iterdir()} for folder in folders)
    assert first == second
    splits = PreparedTexts("reviews", train_size=40)(tmp_path / "one")
    assert len(splits.train) == 40
    assert splits.train.y.bincount().tolist() == [20, 20]
    assert (len(splits.test), splits.card["sizes"]) == (100, {"train": 400, "test": 100})
    assert "made up" in splits.card["title"]
    labels = {text: label for label, text in reviews.sentences()}
    for part in (splits.train, splits.test):
        assert [part.classes[y] for y in part.y] == [labels[text] for text in part.texts]


def test_texts_and_arrays_are_not_confused(tmp_path: Path) -> None:
    """Each loader names the other."""
    prepare("reviews", tmp_path)
    prepare("digits", tmp_path)
    with pytest.raises(ValueError, match=r"reviews holds texts: configure aisec_lab\.data\.PreparedTexts"):
        Prepared("reviews")(tmp_path)
    with pytest.raises(ValueError, match=r"digits holds no texts: configure aisec_lab\.data\.Prepared"):
        PreparedTexts("digits")(tmp_path)


def test_snippets_end_at_line_feeds_only(tmp_path: Path) -> None:
    """A Latin-1 text may hold NEL (0x85), at which `splitlines` breaks; whitespace becomes single blanks."""
    files = [tmp_path / "neg", tmp_path / "pos"]
    files[0].write_bytes(b"dull \x85 and long . \n" * 1000)
    files[1].write_bytes("caf\u00e9  scenes\n".encode("latin-1") * 1000)
    raw = text_readers.rt_polarity(files)
    assert {split: len(y) for split, (_, y) in raw.splits.items()} == {"train": 934, "test": 1066}
    for x, y in raw.splits.values():
        assert set(zip(x.tolist(), y.tolist(), strict=True)) == {("dull and long .", 0), ("caf\u00e9 scenes", 1)}


def test_labels_stand_before_the_text(tmp_path: Path) -> None:
    """Only the first separator counts."""
    for name, content in {"train": "1 1 star\n0 no\n", "test": "0 0 stars\n"}.items():
        (tmp_path / name).write_text(content)
    raw = text_readers.sst2([tmp_path / "train", tmp_path / "test"])
    assert {split: (x.tolist(), y.tolist()) for split, (x, y) in raw.splits.items()} == {
        "train": (["1 star", "no"], [1, 0]),
        "test": (["0 stars"], [0]),
    }


@pytest.mark.parametrize(
    ("texts", "y", "why"),
    [
        ((), [], "at least one text"),
        (("good", " \n"), [0, 1], "text 1 has none"),
        (("good",), [0, 1], "y must be int64"),
        ("ab", [0, 1], "toy: texts are a sequence of strings, got one str: put it into a list"),
        (None, [0, 1], "toy: texts are a sequence of strings, got a NoneType"),
        ({"a": 0, "b": 1}, [0, 1], "got a dict: pass a list"),
        (("good", None), [0, 1], "text 1 is a NoneType: leave it out"),
        (("good", float("nan")), [0, 1], "text 1 is a float"),
        ((b"good", b"bad"), [0, 1], "text 0 is a bytes: decode it"),
        (("good", "bad"), [0, 2], r"0\.\.1, got 0\.\.2"),
    ],
)
def test_what_are_no_texts_is_refused(texts: tuple[str, ...], y: list[int], why: str) -> None:
    """With the mend."""
    with pytest.raises(ValueError, match=why):
        Texts(texts, torch.tensor(y, dtype=torch.int64), ("negative", "positive"), "toy")


def test_texts_of_any_collection_become_a_tuple() -> None:
    """A generator too, which could be read once only."""
    y = torch.tensor([0, 1])
    for texts in (["a", "b"], (text for text in "ab"), np.array(["a", "b"])):
        data = Texts(texts, y, ("x", "y"), "toy")  # type: ignore[arg-type]
        assert data.texts == ("a", "b")
        assert len(data) == 2
    with pytest.raises(ValueError, match=r"toy: y must be a tensor, got a list: use torch\.tensor"):
        Texts(("a", "b"), [0, 1], ("x", "y"), "toy")  # type: ignore[arg-type]


def test_sizes_are_refused_at_the_door() -> None:
    """Before anything is read; and a sample of more texts than there are."""
    with pytest.raises(ValueError, match="must be positive, or null for all rows, got 0"):
        PreparedTexts("reviews", test_size=0)
    with pytest.raises(ValueError, match="has 2 texts, cannot take 3"):
        Texts(("a", "b"), torch.tensor([0, 1]), ("x", "y"), "toy").sample(3, 0)


PUBLISHED = {
    "sst2": {"train": [3310, 3610], "test": [912, 909]},
    "rt_polarity": {"train": [4798, 4798], "test": [533, 533]},
    "sms_spam": {"train": [3862, 598], "test": [965, 149]},
}


@pytest.mark.mirror
@pytest.mark.skipif(MIRROR not in os.environ, reason=f"{MIRROR} names no mirror of the public sets")
@pytest.mark.parametrize("name", PUBLISHED)
def test_a_public_set_has_its_published_sizes(name: str, tmp_path: Path) -> None:
    """From the mirror, checksum and all; 5,331 + 5,331 snippets and 4,827 + 747 messages in all."""
    prepare(name, tmp_path)
    splits = PreparedTexts(name)(tmp_path)
    assert splits.card["class_counts"] == PUBLISHED[name]
    assert splits.train.y.bincount().tolist() == PUBLISHED[name]["train"]
    assert all(text == " ".join(text.split()) for text in splits.train.texts + splits.test.texts)
    assert name in CATALOG
