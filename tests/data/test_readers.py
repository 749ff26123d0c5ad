"""Readers, on tiny files in their publishers' formats, written here byte by byte."""

import gzip
import io
import tarfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from aisec_lab.data import readers
from aisec_lab.data.readers import Raw


def pixels(*shape: int, seed: int = 0) -> np.ndarray:
    """Random bytes."""
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


def test_idx_is_big_endian_with_its_shape_in_front(tmp_path: Path) -> None:
    """Magic 0, 0, type 8 (unsigned byte), number of dimensions; then each dimension in four bytes."""
    images, labels = {"train": pixels(3, 4, 5), "test": pixels(2, 4, 5, seed=1)}, {"train": [7, 0, 9], "test": [1, 2]}
    files = []
    for split in ("train", "test"):
        for kind, values in (("x", images[split]), ("y", np.array(labels[split], np.uint8))):
            header = bytes([0, 0, 8, values.ndim]) + b"".join(size.to_bytes(4, "big") for size in values.shape)
            files.append(tmp_path / f"{split}-{kind}.gz")
            files[-1].write_bytes(gzip.compress(header + values.tobytes()))
    raw = readers.idx_images(files, tuple("0123456789"))
    for split in ("train", "test"):
        x, y = raw.splits[split]
        assert x.shape == (len(labels[split]), 1, 4, 5)
        assert x.dtype == np.uint8
        assert (x[:, 0] == images[split]).all()
        assert y.dtype == np.int64
        assert y.tolist() == labels[split]


@pytest.mark.parametrize("channels", [(), (3,)], ids=["grey", "colour"])
def test_npz_members_may_lie_in_several_files_and_a_split_may_be_missing(
    tmp_path: Path, channels: tuple[int, ...]
) -> None:
    """Channels come first; members that are no split are left alone."""
    x = {"train": pixels(3, 4, 5, *channels), "test": pixels(2, 4, 5, *channels, seed=1)}
    np.savez(tmp_path / "a.npz", x_train=x["train"], y_train=np.array([1, 0, 1], np.uint8), track=np.arange(3))
    np.savez(tmp_path / "b.npz", x_test=x["test"], y_test=np.array([0, 1], np.uint8))
    both = readers.npz_images([tmp_path / "a.npz", tmp_path / "b.npz"], ("no", "yes"))
    one = readers.npz_images([tmp_path / "b.npz"], ("no", "yes"))
    assert list(both.splits) == ["train", "test"]
    assert list(one.splits) == ["test"]
    found, y = both.splits["train"]
    assert found.shape == (3, *(channels or (1,)), 4, 5)
    assert found.flags.c_contiguous
    assert all(found[n, c, i, j] == x["train"][n, i, j].flat[c] for n, c, i, j in np.ndindex(found.shape))
    assert y.dtype == np.int64
    assert y.tolist() == [1, 0, 1]


def test_cifar_records_are_a_label_and_three_planes(tmp_path: Path) -> None:
    """Batches of the training split are joined; members that are no batch are left alone."""
    x, y = pixels(5, 3, 32, 32), [3, 1, 4, 1, 5]
    records = [bytes([label]) + image.tobytes() for image, label in zip(x, y, strict=True)]
    members = {"data_batch_2": records[2:4], "data_batch_1": records[:2], "test_batch": records[4:]}
    with tarfile.open(tmp_path / "cifar.tar.gz", "w:gz") as archive:
        contents = {f"cifar/{name}.bin": b"".join(parts) for name, parts in members.items()}
        for name, content in (contents | {"cifar/batches.meta.txt": b"airplane\n"}).items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    raw = readers.cifar_binary([tmp_path / "cifar.tar.gz"], tuple("0123456789"))
    found, labels = raw.splits["train"]
    assert found.shape == (4, 3, 32, 32)
    label_of = {image.tobytes(): label for image, label in zip(x, y, strict=True)}
    assert [label_of[image.tobytes()] for image in found] == labels.tolist()
    assert sorted(labels) == [1, 1, 3, 4]
    assert (raw.splits["test"][0] == x[4:]).all()
    assert raw.splits["test"][1].tolist() == [5]


@given(st.permutations(range(6)))
def test_by_content_forgets_the_order_of_the_source(order: list[int]) -> None:
    """Also where the same image stands twice, under two classes."""
    x, y = pixels(3, 1, 2, 2)[[0, 1, 2, 0, 1, 1]], np.array([5, 4, 3, 2, 1, 1])
    expected = readers.by_content(Raw({"test": (x, y)}, tuple("012345"))).splits["test"]
    found = readers.by_content(Raw({"test": (x[order], y[order])}, tuple("012345"))).splits["test"]
    assert (found[0] == expected[0]).all()
    assert (found[1] == expected[1]).all()


LINE = "{age}, {work}, 100, HS-grad, {years}, Never-married, Sales, Unmarried, White, Male, 0, 0, 40, Cuba, {income}\n"


def test_adult_scales_numbers_by_the_training_range_and_splits_words_into_columns(tmp_path: Path) -> None:
    """A test value outside that range is clipped, a word unknown to the training rows has no column; "?" has one."""
    train = [
        LINE.format(age=20, work="Private", years=9, income="<=50K"),
        LINE.format(age=60, work="?", years=9, income=">50K"),
        LINE.format(age=30, work="Private", years=9, income="<=50K"),
    ]
    test = [
        "|1x3 Cross validator\n",
        LINE.format(age=40, work="?", years=9, income=">50K."),
        LINE.format(age=90, work="Never-worked", years=16, income="<=50K."),
        "\n",
    ]
    (tmp_path / "adult.data").write_text("".join(train))
    (tmp_path / "adult.test").write_text("".join(test))
    raw = readers.adult([tmp_path / "adult.data", tmp_path / "adult.test"])
    (x, y), (x_test, y_test) = raw.splits["train"], raw.splits["test"]
    assert x.dtype == np.float32
    assert x.shape[1] == x_test.shape[1] == len(raw.features) == 6 + 9  # numbers, then words of eight columns
    column = dict(zip(raw.features, x.T, strict=True))
    column_test = dict(zip(raw.features, x_test.T, strict=True))
    assert column["age"].tolist() == [0, 1, 0.25]
    assert column_test["age"].tolist() == [0.5, 1]
    assert column["education-num"].tolist() == [0, 0, 0]  # one value only: no range to divide by
    assert column_test["education-num"].tolist() == [0, 1]
    assert column["workclass=?"].tolist() == [0, 1, 0]
    assert column["workclass=Private"].tolist() == [1, 0, 1]
    assert column_test["workclass=?"].tolist() == [1, 0]
    assert column_test["workclass=Private"].tolist() == [0, 0]
    assert "workclass=Never-worked" not in raw.features
    assert y.tolist() == [0, 1, 0]
    assert y_test.tolist() == [1, 0]


@pytest.mark.parametrize(
    ("reader", "sizes", "shape"), [(readers.digits, (1297, 500), (1, 8, 8)), (readers.breast_cancer, (400, 169), (30,))]
)
def test_embedded_sets_span_the_unit_interval(
    reader: Callable[[list[Path]], Raw], sizes: tuple[int, int], shape: tuple[int, ...]
) -> None:
    """float32, training values from 0 to 1, stratified."""
    raw = reader([])
    (x, y), (x_test, y_test) = raw.splits["train"], raw.splits["test"]
    assert (len(x), len(x_test)) == sizes
    assert x.shape[1:] == shape
    assert x.dtype == x_test.dtype == np.float32
    assert (x.min(), x.max()) == (0, 1)
    assert x_test.min() >= 0
    assert x_test.max() <= 1
    counts, counts_test = np.bincount(y), np.bincount(y_test)
    assert (abs(counts_test - (counts + counts_test) * sizes[1] / sum(sizes)) < 1).all()


def test_heart_numbers_are_scaled_and_codes_are_words(tmp_path: Path) -> None:
    """Any `num` above 0 is diseased; a "?" is a word; whole numbers lie on the grid of their range."""
    rng = np.random.default_rng(0)
    rows = [
        f"{rng.integers(29, 78)}.0,1.0,{rng.integers(1, 5)}.0,130.0,250.0,0.0,1.0,150.0,0.0,2.3,2.0,"
        f"{rng.choice(['0.0', '3.0', '?'])},7.0,{num}".split(",")
        for num in rng.integers(0, 5, 303)
    ]
    path = tmp_path / "heart.csv"
    path.write_text("".join(",".join(row) + "\n" for row in rows))
    raw = readers.heart([path])
    x, y = (np.concatenate([raw.splits[split][i] for split in ("train", "test")]) for i in (0, 1))
    assert raw.classes == ("healthy", "diseased")
    assert len(raw.splits["test"][1]) == 103
    assert y.sum() == sum(row[-1] != "0" for row in rows)
    group = [place for place, name in enumerate(raw.features) if name.startswith("ca=")]
    assert [raw.features[place] for place in group] == ["ca=0.0", "ca=3.0", "ca=?"]
    assert (x[:, group].sum(1) == 1).all()
    assert (x[:, group].sum(0) == [sum(row[11] == word for row in rows) for word in ("0.0", "3.0", "?")]).all()
    ages = np.array([float(row[0]) for row in rows])
    span = round(1 / np.diff(np.unique(x[:, 0])).min())
    assert span <= ages.max() - ages.min()
    assert np.allclose(x[:, 0] * span, np.round(x[:, 0] * span), atol=1e-4)


def test_location_counts_clusters_from_one_and_holds_a_fifth_for_the_test(tmp_path: Path) -> None:
    """A quoted cluster, then zeros and ones; stratified, every line once."""
    rng = np.random.default_rng(0)
    bits, cluster = rng.integers(0, 2, (1500, 6)), rng.integers(1, 4, 1500)
    lines = [f'"{number}",' + ",".join(map(str, row)) for number, row in zip(cluster, bits, strict=True)]
    content = "\n".join(lines).encode() + b"\n"
    with tarfile.open(tmp_path / "location.tgz", "w:gz") as archive:
        member = tarfile.TarInfo("bangkok")
        member.size = len(content)
        archive.addfile(member, io.BytesIO(content))
    raw = readers.location([tmp_path / "location.tgz"])
    assert raw.classes == ("cluster 1", "cluster 2", "cluster 3")
    assert len(raw.features) == 6
    assert len(raw.splits["test"][1]) == 1000
    x, y = (np.concatenate([raw.splits[split][i] for split in ("train", "test")]) for i in (0, 1))
    assert x.dtype == np.float32
    found = sorted(map(tuple, np.column_stack([y + 1, x]).astype(int).tolist()))
    assert found == sorted(map(tuple, np.column_stack([cluster, bits]).tolist()))
