"""Datasets: what they refuse, and how they are sampled."""

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from aisec_lab.data import Dataset, Splits, stratified_sample, stratified_split

GOOD: dict[str, Any] = {
    "x": torch.tensor([[0.0, 1.0], [0.5, 0.25], [1.0, 0.0]]),
    "y": torch.tensor([0, 1, 1]),
    "classes": ("no", "yes"),
    "name": "toy",
    "features": ("a", "b"),
}
REFUSED = {
    "float64": ({"x": GOOD["x"].double()}, r"float32 \(N, \*shape\), got torch.float64 \(3, 2\): use .float\(\)"),
    "no input shape": ({"x": torch.zeros(3)}, r"got torch.float32 \(3,\)"),
    "int32 classes": ({"y": GOOD["y"].int()}, r"y must be int64 \(3,\), got torch.int32 \(3,\): use .long\(\)"),
    "a class too few": ({"y": torch.tensor([0, 1])}, r"int64 \(3,\), got torch.int64 \(2,\)"),
    "no rows": ({"x": torch.zeros(0, 2), "y": torch.zeros(0, dtype=torch.int64)}, "at least one row"),
    "bytes as floats": ({"x": 255 * GOOD["x"]}, r"x must lie in \[0, 1\], got \[0, 255\]: scale it"),
    "just below": ({"x": GOOD["x"] - 2e-6}, "must lie in"),
    "NaN": ({"x": torch.full((3, 2), torch.nan)}, "fill in NaN"),
    "one NaN": ({"x": torch.where(GOOD["x"] == 0.25, torch.nan, GOOD["x"])}, "fill in NaN"),
    "infinity": ({"x": GOOD["x"] / 0}, "must lie in"),
    "classes from 1": ({"y": GOOD["y"] + 1}, r"0\.\.1 \(there are 2 class names\), got 1\.\.2: number .* from 0"),
    "a negative class": ({"y": GOOD["y"] - 1}, r"got -1\.\.0"),
    "a column without a name": ({"features": ("a",)}, "1 feature names for 2 columns"),
}


@pytest.mark.parametrize(("change", "message"), REFUSED.values(), ids=REFUSED)
def test_a_dataset_refuses_what_would_be_silently_wrong(change: dict[str, Any], message: str) -> None:
    """One line: the dataset's name, what was given, what is accepted."""
    Dataset(**GOOD)
    with pytest.raises(ValueError, match=f"^toy: .*{message}") as caught:
        Dataset(**GOOD | change)
    assert "\n" not in str(caught.value)


classes_and_size = st.lists(st.integers(0, 4), min_size=1, max_size=60).flatmap(
    lambda y: st.tuples(st.just(np.array(y)), st.integers(1, len(y)), st.integers(0, 3))
)


@given(classes_and_size)
def test_a_sample_gives_each_class_its_share(case: tuple[np.ndarray, int, int]) -> None:
    """Exactly n rows, none twice, sorted, each class within one row of n times its frequency; fixed by the seed."""
    y, n, seed = case
    chosen = stratified_sample(y, n, seed)
    assert len(chosen) == n
    assert (np.diff(chosen) > 0).all()
    for label in range(5):
        assert abs((y[chosen] == label).sum() - n * (y == label).mean()) < 1
    assert (stratified_sample(y, n, seed) == chosen).all()


@given(classes_and_size)
def test_a_split_parts_the_rows(case: tuple[np.ndarray, int, int]) -> None:
    """Every row is in one part, and the test part is the stratified sample; so the training part has its shares too."""
    y, n, seed = case
    train, test = stratified_split(y, n, seed)
    assert sorted([*train, *test]) == list(range(len(y)))
    assert len(test) == n
    for label in range(5):
        assert abs((y[train] == label).sum() - (len(y) - n) * (y == label).mean()) < 1


def test_another_seed_is_another_sample() -> None:
    """Else the seed would be decoration."""
    y = np.repeat([0, 1], 50)
    assert (stratified_sample(y, 20, 0) != stratified_sample(y, 20, 1)).any()


def test_dataset_sample_keeps_rows_with_their_classes() -> None:
    """In their order; all rows where no number is given."""
    x = torch.arange(40, dtype=torch.float32).view(40, 1) / 40
    data = Dataset(x, (x.squeeze(1) >= 0.5).long(), ("low", "high"), "toy")
    part = data.sample(10, seed=0)
    assert torch.equal(part.y, (part.x.squeeze(1) >= 0.5).long())
    assert part.y.tolist() == [0] * 5 + [1] * 5
    assert (part.x.diff(dim=0) > 0).all()
    assert data.sample(None, seed=0) is data
    assert part.shape == (1,)
    assert data.subset(torch.tensor([3, 1])).x.flatten().tolist() == [x[3].item(), x[1].item()]


def test_a_dataset_is_parted_without_loss() -> None:
    """Every row is in one part, with its class; no part may be empty."""
    y = torch.arange(3).repeat(20)
    whole = Dataset(torch.arange(60.0)[:, None] / 60, y, ("a", "b", "c"), "rows")
    part, rest = whole.split(0.3, seed=1)
    assert (len(part), len(rest)) == (18, 42)
    assert torch.equal(torch.cat([part.x, rest.x]).flatten().sort().values, whole.x.flatten())
    assert part.y.bincount().tolist() == [6, 6, 6]
    assert torch.equal((part.x.flatten() * 60).round().long() % 3, part.y)
    with pytest.raises(ValueError, match="a share of 1.0 leaves a part of rows's 60 rows empty"):
        whole.split(1.0, seed=1)


@pytest.mark.parametrize("n", [0, -1, 4])
def test_a_sample_of_a_size_that_cannot_be_is_refused(n: int) -> None:
    """With the sizes that can be."""
    with pytest.raises(ValueError, match=f"toy has 3 rows, cannot take {n}: ask for 1 to 3, or null for all"):
        Dataset(**GOOD).sample(n, seed=0)


def test_a_split_that_is_not_there_is_named() -> None:
    """A mirror may hold the test split alone."""
    splits = Splits({"test": Dataset(**GOOD)}, {"name": "toy"})
    assert len(splits.test) == 3
    with pytest.raises(ValueError, match=r"toy has no train split here, only \['test'\]"):
        _ = splits.train
