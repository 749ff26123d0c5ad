"""The catalog: complete cards, and, where there is a mirror, the sets themselves."""

import os
import re
from pathlib import Path
from typing import NamedTuple

import pytest

from aisec_lab.data import CATALOG, Prepared, prepare
from aisec_lab.data.sources import MIRROR


@pytest.mark.parametrize("name", CATALOG)
def test_an_entry_is_complete(name: str) -> None:
    """Said of each: what, whence, under which licence, by whom; and of each file a checksum and a place."""
    entry = CATALOG[name]
    assert all((entry.title, entry.source, entry.licence, entry.citation, entry.routes))
    for files in entry.routes:
        for file in files:
            assert re.fullmatch(r"[0-9a-f]{64}", file.sha256)
            assert file.path.startswith(f"{name}/")
            assert file.url is None or re.match("https?://", file.url)


class Published(NamedTuple):
    """What the publishers say of a set: counts of each class and split, in order or sorted, and an input's shape."""

    shape: tuple[int, ...]
    counts: dict[str, list[int]]


PUBLISHED = {
    "mnist": Published(
        (1, 28, 28),
        {
            "train": [5923, 6742, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949],
            "test": [980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009],
        },
    ),
    "fashion_mnist": Published((1, 28, 28), {"train": [6000] * 10, "test": [1000] * 10}),
    "cifar10": Published((3, 32, 32), {"test": [1000] * 10}),
    "adult": Published((108,), {"train": [24720, 7841], "test": [12435, 3846]}),
    "heart_cleveland": Published((30,), {"train": [108, 92], "test": [56, 47]}),  # 164 and 139 in all
}
needs_mirror = pytest.mark.skipif(MIRROR not in os.environ, reason=f"{MIRROR} names no mirror of the public sets")


@pytest.mark.mirror
@needs_mirror
@pytest.mark.parametrize("name", PUBLISHED)
def test_a_public_set_has_its_published_sizes(name: str, tmp_path: Path) -> None:
    """From the mirror, checksum and all: every class of every split."""
    prepare(name, tmp_path)
    splits = Prepared(name)(tmp_path)
    assert splits.card["class_counts"] == PUBLISHED[name].counts
    assert {split: data.y.bincount().tolist() for split, data in splits.splits.items()} == PUBLISHED[name].counts
    assert {data.shape for data in splits.splits.values()} == {PUBLISHED[name].shape}
    assert all(data.x.max() == 1 for data in splits.splits.values())


@pytest.mark.mirror
@needs_mirror
def test_traffic_signs_have_their_published_sizes(tmp_path: Path) -> None:
    """All 12,630 test images, four frames of each track for training; 43 classes, the stop sign is number 14."""
    prepare("gtsrb", tmp_path)
    splits = Prepared("gtsrb")(tmp_path)
    assert splits.card["sizes"] == {"train": 5227, "test": 12630}
    assert splits.train.shape == splits.test.shape == (3, 32, 32)
    assert splits.train.classes[14] == "stop"
    assert [(data.y == 14).sum() for data in (splits.train, splits.test)] == [104, 270]
    assert [len(data.y.unique()) for data in (splits.train, splits.test)] == [43, 43]


@pytest.mark.mirror
@needs_mirror
def test_location_has_its_published_sizes(tmp_path: Path) -> None:
    """5,010 users, 446 zeros and ones each, 30 clusters of very different sizes; a fifth of each held for the test."""
    prepare("location30", tmp_path)
    splits = Prepared("location30")(tmp_path)
    assert splits.card["sizes"] == {"train": 4010, "test": 1000}
    assert splits.train.shape == splits.test.shape == (446,)
    assert set(splits.train.x.unique().tolist()) == {0, 1}
    counts = splits.train.y.bincount() + splits.test.y.bincount()
    assert counts.tolist()[:8] == [169, 178, 147, 155, 97, 182, 120, 308]
    assert len(counts) == 30
