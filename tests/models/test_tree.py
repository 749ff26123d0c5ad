"""Decision trees, against scikit-learn's own answers and against a walk by hand."""

import pytest
import torch
from sklearn.datasets import load_iris
from sklearn.tree import DecisionTreeClassifier

from aisec_lab.data import Dataset
from aisec_lab.models.tree import DecisionTree, Tree


def iris():
    """The 150 flowers, scaled to [0, 1], with a fourth class that no row has, before the last one."""
    data = load_iris()
    x = torch.tensor(data.data, dtype=torch.float32)
    x = (x - x.amin(0)) / (x.amax(0) - x.amin(0))
    y = torch.tensor([0, 1, 3])[data.target]
    return Dataset(x, y, ("setosa", "versicolor", "none", "virginica"), "iris")


@pytest.mark.parametrize("case", [DecisionTree(), DecisionTree(depth=3), DecisionTree(leaf_rows=7)], ids=repr)
def test_it_answers_as_scikit_learn_does(case):
    """On its rows, on random ones, and on thresholds exactly, where rows go left; classes without rows get nothing."""
    dataset, generator = iris(), torch.Generator().manual_seed(0)
    tree = case(dataset, generator=torch.Generator().manual_seed(1))
    ties = int(torch.randint(2**31, (), generator=torch.Generator().manual_seed(1)))
    peer = DecisionTreeClassifier(max_depth=case.depth, min_samples_leaf=case.leaf_rows, random_state=ties)
    peer.fit(dataset.x.numpy(), dataset.y.numpy())
    on = torch.rand(300, 4, generator=generator)
    on[torch.arange(300), torch.randint(4, (300,), generator=generator)] = 0.5
    on[:, 3] = tree.threshold[torch.randint(len(tree.threshold), (300,), generator=generator)].float()
    x = torch.cat([dataset.x, on])
    published = tree(x).softmax(1)
    assert not tree.training
    assert published.dtype == torch.float32
    assert torch.allclose(published[:, [0, 1, 3]].double(), torch.from_numpy(peer.predict_proba(x.numpy())), atol=1e-7)
    assert (published[:, 2] < 1e-11).all()
    assert tree(x).isfinite().all()
    assert torch.equal(tree.leaf(x), torch.from_numpy(peer.apply(x.numpy())))
    assert (tree.depth, len(tree.leaves)) == (peer.get_depth(), peer.get_n_leaves())


def test_a_row_on_the_threshold_goes_left_and_images_are_read_flat():
    """The stump x[3] <= 0.25 on images of 2x2; the next float goes right."""
    tree = Tree(
        torch.tensor([3, -1, -1]),
        torch.tensor([0.25, 0, 0]),
        torch.tensor([1, -1, -1]),
        torch.tensor([2, -1, -1]),
        torch.tensor([[0.5, 0.5], [0.9, 0.1], [0.2, 0.8]]),
    )
    x = torch.zeros(3, 1, 2, 2)
    x[1, 0, 1, 1], x[2, 0, 1, 1] = 0.25, torch.nextafter(torch.tensor(0.25), torch.tensor(1.0))
    assert tree.leaf(x).tolist() == [1, 1, 2]
    assert torch.allclose(tree(x).softmax(1)[:, 0], torch.tensor([0.9, 0.9, 0.2]))
    assert tree(x.double()).dtype == torch.float64


@pytest.mark.parametrize(
    ("left", "message"),
    [([0, 0, 0], "above its parent's and below 3"), ([3, 0, 0], "below 3"), ([1, 0], "3, 3, 2 and 3, 3")],
    ids=["a circle", "nowhere", "too few"],
)
def test_arrays_that_are_no_tree_are_refused(left, message):
    """A walk through them might never end."""
    column = torch.tensor([0, -1, -1])
    with pytest.raises(ValueError, match=message):
        Tree(column, torch.zeros(3), torch.tensor(left), torch.tensor([2, 0, 0]), torch.full((3, 2), 0.5))


def test_settings_that_cannot_be_are_refused():
    """No decision and no row make no tree."""
    for settings in ({"depth": 0}, {"leaf_rows": 0}):
        with pytest.raises(ValueError, match="at least 1"):
            DecisionTree(**settings)
