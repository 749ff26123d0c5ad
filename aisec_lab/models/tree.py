"""Decision trees that scikit-learn fits, as torch classifiers."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from aisec_lab.data import Dataset
from aisec_lab.models.layers import logarithms


class Tree(nn.Module):
    """A decision tree built from its arrays; node 0 is the root.

    It is piecewise constant and has no gradient: use attacks that need none.

    Args:
        column: column on which each node splits (M,), int64; -1 at a leaf.
        threshold: threshold of each node (M,), float64; rows with at most this value go left, the others right.
        left, right: indices of the children (M,), int64, each greater than its parent's; ignored at a leaf.
        probabilities: class probabilities of each leaf (M, K); ignored at other nodes.

    Raises:
        ValueError: arrays whose lengths differ, or a child whose index is not between its parent's and M.
    """

    column: Tensor
    threshold: Tensor
    branches: Tensor
    log_probabilities: Tensor

    def __init__(self, column: Tensor, threshold: Tensor, left: Tensor, right: Tensor, probabilities: Tensor) -> None:
        super().__init__()
        nodes = torch.arange(len(probabilities))
        if {len(column), len(threshold), len(left), len(right)} != {len(nodes)} or not len(nodes):
            raise ValueError(
                f"each node has a column, a threshold, two children and probabilities, got {len(column)}, "
                f"{len(threshold)}, {len(left)} and {len(right)}, {len(nodes)}: give each array one entry a node"
            )
        leaf = column < 0
        children = torch.stack([left, right], dim=1)
        if not (leaf[:, None] | ((children > nodes[:, None]) & (children < len(nodes)))).all():
            raise ValueError(f"a child's number lies above its parent's and below {len(nodes)}: number the root 0")
        self.register_buffer("column", column.clamp(min=0))
        self.register_buffer("threshold", threshold.double())
        self.register_buffer("branches", torch.where(leaf[:, None], nodes[:, None], children))  # a leaf leads to itself
        self.register_buffer("log_probabilities", logarithms(probabilities))
        self.leaves = nodes[leaf]
        depth = torch.zeros(len(nodes), dtype=torch.int64)
        for node in nodes[~leaf].tolist():  # parents before their children
            depth[self.branches[node]] = depth[node] + 1
        self.depth = int(depth.max())

    def forward(self, x: Tensor) -> Tensor:
        """Log-probabilities (N, K) of inputs (N, *input) in [0, 1], in their dtype."""
        leaf = self.leaf(x)
        return self.log_probabilities[leaf].to(x.dtype)

    def leaf(self, x: Tensor) -> Tensor:
        """Indices (N,) of the leaves that inputs (N, *input) reach."""
        rows = x.flatten(1)
        node = torch.zeros(len(x), dtype=torch.int64, device=x.device)
        for _ in range(self.depth):
            value = rows.gather(1, self.column[node, None])[:, 0]
            node = self.branches[node, (value > self.threshold[node]).long()]
        return node


@dataclass(frozen=True)
class DecisionTree:
    """A tree grown by the Gini index (Breiman et al., 1984; scikit-learn's CART).

    Args:
        depth: maximum depth, at least 1; None for no limit.
        leaf_rows: least number of training rows in a leaf, at least 1.

    Raises:
        ValueError: a depth or a number of rows below 1.
    """

    depth: int | None = None
    leaf_rows: int = 1

    def __post_init__(self) -> None:
        if (self.depth is not None and self.depth < 1) or self.leaf_rows < 1:
            raise ValueError(f"depth must be at least 1, or None for no limit, and leaf_rows at least 1: {self}")

    def __call__(self, dataset: Dataset, *, generator: torch.Generator) -> Tree:
        """Fit a tree.

        Args:
            dataset: training rows.
            generator: breaks ties between equally good columns.

        Returns:
            A classifier in evaluation mode, with the class frequencies of each leaf's training rows.
        """
        from sklearn.tree import DecisionTreeClassifier  # the import takes two seconds

        ties = int(torch.randint(2**31, (), generator=generator))
        grower = DecisionTreeClassifier(max_depth=self.depth, min_samples_leaf=self.leaf_rows, random_state=ties)
        grown = grower.fit(dataset.x.flatten(1).cpu().numpy(), dataset.y.cpu().numpy())
        arrays = grown.tree_
        column, threshold, left, right, value = (
            torch.from_numpy(array.copy())
            for array in (
                arrays.feature,
                arrays.threshold,
                arrays.children_left,
                arrays.children_right,
                arrays.value[:, 0],
            )
        )
        probabilities = value.new_zeros(len(value), len(dataset.classes))
        probabilities[:, torch.from_numpy(grown.classes_)] = value / value.sum(1, keepdim=True)
        return Tree(column, threshold, left, right, probabilities).eval()
