"""Rows with targets that are no class: numbers of a regression, yes or no for several labels."""

from dataclasses import dataclass, replace

import numpy as np
import torch

from aisec_lab.data.dataset import Dataset, check_inputs

NUMBERS = (torch.float32, torch.float64, torch.int64)


@dataclass(frozen=True)
class TargetDataset(Dataset):
    """Rows and a target for each, on which `Fit` and `DPSGD` train with an objective of one's own.

    Args:
        x: inputs (N, *shape), float32 in [0, 1].
        y: targets (N, *target), float32, float64 or int64, finite: (N, 1) for a number, (N, L) for L labels.
        name: of the rows.
        features: the names of a table's columns.

    Raises:
        ValueError: any other input; the message says how to fix it.
    """

    classes: tuple[str, ...] = ()
    name: str = "targets"

    def __post_init__(self) -> None:
        check_inputs(self)
        y = self.y
        if y.dtype not in NUMBERS or not y.ndim or len(y) != len(self.x):
            raise ValueError(
                f"{self.name}: y must be float32, float64 or int64 ({len(self.x)}, *target), got {y.dtype} "
                f"{tuple(y.shape)}: use .float()"
            )
        if not y.isfinite().all():
            raise ValueError(f"{self.name}: y must be finite, got NaN or infinity: drop these rows")
        if self.classes:
            raise ValueError(f"{self.name}: targets have no class names, got {self.classes}: use Dataset for classes")

    def sample(self, n: int | None, seed: int) -> "TargetDataset":
        """A random sample of n rows, in their order here; all of them where n is None.

        Raises:
            ValueError: fewer than one row, or more than there are.
        """
        if n is None or n == len(self):
            return self
        if not 1 <= n < len(self):
            raise ValueError(f"{self.name} has {len(self)} rows, cannot take {n}: ask for 1 to {len(self)}, or None")
        rows = np.sort(np.random.default_rng(seed).choice(len(self), n, replace=False))
        return replace(self, x=self.x[rows], y=self.y[rows])
