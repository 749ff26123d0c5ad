"""Splits of a dataset between clients."""

from dataclasses import dataclass

import numpy as np
import torch

from aisec_lab.data import Dataset

TRIES = 1000  # splits that are drawn until no client is too small


@dataclass(frozen=True)
class Dirichlet:
    """A non-iid split: each class is divided between clients by a Dirichlet distribution.

    Yurochkin et al. (2019, arXiv:1905.12022).

    Args:
        clients: at least 1.
        alpha: concentration, positive; 100 gives nearly equal mixtures of classes, 0.1 nearly one class per client.
        smallest: least number of rows of a client, at least 1; the split is drawn again until it holds.

    Raises:
        ValueError: a field out of its range.
    """

    clients: int = 5
    alpha: float = 1.0
    smallest: int = 1

    def __post_init__(self) -> None:
        if self.clients < 1 or self.smallest < 1 or not self.alpha > 0:
            raise ValueError(f"clients, smallest and alpha must be positive: {self}")

    def __call__(self, dataset: Dataset, *, generator: torch.Generator) -> list[Dataset]:
        """Split a dataset.

        Args:
            dataset: all rows.
            generator: source of randomness.

        Returns:
            One dataset per client; each row is in exactly one of them.

        Raises:
            ValueError: a thousand draws gave no split with enough rows for each client.
        """
        rng = np.random.default_rng(int(torch.randint(2**62, (), generator=generator)))  # torch's has no public seed
        y = dataset.y.numpy()
        for _ in range(TRIES):
            owner = np.empty(len(y), dtype=np.int64)
            for label in np.unique(y):
                rows = rng.permutation(np.flatnonzero(y == label))
                cuts = np.cumsum(rng.dirichlet(np.full(self.clients, self.alpha)))[:-1] * len(rows)
                for client, part in enumerate(np.split(rows, np.round(cuts).astype(int))):
                    owner[part] = client
            if np.bincount(owner, minlength=self.clients).min() >= self.smallest:
                return [dataset.subset(torch.from_numpy(np.flatnonzero(owner == c))) for c in range(self.clients)]
        raise ValueError(
            f"{len(y)} rows for {self.clients} clients of at least {self.smallest} rows, not found in {TRIES} draws: "
            f"raise alpha (now {self.alpha}) or lower smallest"
        )


def split_evenly(dataset: Dataset, clients: int, *, generator: torch.Generator) -> list[Dataset]:
    """An iid split at random, into parts whose sizes differ by at most one row.

    Args:
        dataset: all rows.
        clients: number of parts, from 1 to the number of rows.
        generator: source of randomness.

    Returns:
        One dataset per client.

    Raises:
        ValueError: fewer rows than clients.
    """
    if not 1 <= clients <= len(dataset):
        raise ValueError(f"{len(dataset)} rows can be shared by 1 to {len(dataset)} clients, got {clients}")
    order = torch.randperm(len(dataset), generator=generator)
    return [dataset.subset(rows.sort().values) for rows in order.tensor_split(clients)]
