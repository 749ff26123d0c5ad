"""Decision trees, which scikit-learn grows, as classifiers of the lab."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from aisec_lab.data import Dataset
from aisec_lab.models.layers import logarithms


class Tree(nn.Module):
    """A tree of decisions on one column each, made of its arrays; node 0 is the root.

    It is constant between its thresholds, so that it has no gradient: attacks that need none run on it.

    Args:
        column: (M,), int64: the column that a node looks at, at a leaf -1.
        threshold: (M,), float64: rows whose value there is at most this go left, the others right.
        left, right: (M,), int64: the children's numbers, each greater than its parent's; at a leaf anything.
        probabilities: (M, K): what a leaf publishes; at other nodes anything.

    Raises:
        ValueError: arrays whose lengths do not fit, or a child whose number is not between its parent's and M.
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
        """Log-probabilities (N, K) of inputs (N, *input) in [0, 1], in their precision."""
        leaf = self.leaf(x)
        return self.log_probabilities[leaf].to(x.dtype)

    def leaf(self, x: Tensor) -> Tensor:
        """Numbers (N,) of the leaves that inputs (N, *input) end in."""
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
        depth: decisions on the way to a leaf at most; None for any number.
        leaf_rows: training rows that each leaf keeps at least.

    Args of the call:
        dataset: training rows.
        generator: breaks ties between equally good columns.

    Returns:
        A classifier in evaluation mode that publishes the shares of the classes among a leaf's training rows.

    Raises:
        ValueError: a depth or a number of rows below 1.
    """

    depth: int | None = None
    leaf_rows: int = 1

    def __post_init__(self) -> None:
        if (self.depth is not None and self.depth < 1) or self.leaf_rows < 1:
            raise ValueError(f"depth must be at least 1, or None for no limit, and leaf_rows at least 1: {self}")

    def __call__(self, dataset: Dataset, *, generator: torch.Generator) -> Tree:
        from sklearn.tree import DecisionTreeClassifier  # two seconds that nothing else should pay

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
