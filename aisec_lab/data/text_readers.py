"""Readers of text files, in the formats of their publishers, into arrays of strings."""

from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np

from aisec_lab.data.dataset import stratified_split
from aisec_lab.data.readers import SPLIT_SEED, Arrays, Raw

SENTIMENT = ("negative", "positive")


def reviews(files: Sequence[Path]) -> Raw:
    """The made-up customer reviews that ship with this package: 100 of 500 for the test."""
    lines = Path(__file__).with_name("reviews.txt").read_text(encoding="utf-8").splitlines()
    return _split(_pairs(lines, "\t", SENTIMENT), 100, SENTIMENT)


def sst2(files: Sequence[Path]) -> Raw:
    """SST-2 as "label text" lines: training, then test sentences."""
    train, test = (_pairs(_lines(file, "utf-8"), " ", ("0", "1")) for file in files)
    return Raw({"train": train, "test": test}, SENTIMENT)


def rt_polarity(files: Sequence[Path]) -> Raw:
    """Movie snippets, a file of negative and one of positive ones, in Latin-1: 1,066 of 10,662 for the test."""
    parts = [_lines(file, "latin-1") for file in files]
    texts = np.array([_one_line(text) for part in parts for text in part])
    y = np.repeat(np.arange(len(parts), dtype=np.int64), [len(part) for part in parts])
    return _split((texts, y), 1066, SENTIMENT)


def sms_spam(files: Sequence[Path]) -> Raw:
    """Text messages, "label<tab>text" lines: 1,114 of 5,574 for the test."""
    classes = ("ham", "spam")
    return _split(_pairs(_lines(files[0], "utf-8"), "\t", classes), 1114, classes)


def _lines(file: Path, encoding: str) -> list[str]:
    """Lines that end with LF. `splitlines` would also break at NEL, which occurs in Latin-1 texts."""
    return [line for line in file.read_bytes().decode(encoding).split("\n") if line.strip()]


def _one_line(text: str) -> str:
    return " ".join(text.split())


def _pairs(lines: Iterable[str], separator: str, labels: tuple[str, ...]) -> Arrays:
    pairs = [line.split(separator, 1) for line in lines]
    return np.array([_one_line(text) for _, text in pairs]), np.array([labels.index(label) for label, _ in pairs])


def _split(whole: Arrays, test_size: int, classes: tuple[str, ...]) -> Raw:
    texts, y = whole
    train, test = stratified_split(y, test_size, SPLIT_SEED)
    return Raw({"train": (texts[train], y[train]), "test": (texts[test], y[test])}, classes)
