"""What a client may send instead of what it has learned: poison for a federation."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist
from typing import Protocol

import torch
from torch import Tensor

from aisec_lab.attacks.poisoning.poisoned import Poisoning
from aisec_lab.data import Dataset


class ClientAttack(Protocol):
    """A frozen dataclass of settings that is called."""

    def __call__(self, updates: Tensor, malicious: Tensor, *, generator: torch.Generator) -> Tensor:
        """Replace the updates of malicious clients.

        Args:
            updates: what all clients have learned (n, P), the malicious ones too.
            malicious: which clients those are, (n,), bool; one at least.
            generator: source of all randomness.

        Returns:
            Updates (n, P); those of honest clients are as they were.

        Raises:
            ValueError: no malicious client, or no honest one where the attack goes by theirs.
        """
        ...


@dataclass(frozen=True)
class MaliciousClients:
    """Which clients of a federation are an attacker's, and what they do.

    Args:
        clients: their numbers.
        rows: how they poison their own rows before they learn, such as `LabelFlips`; None: they do not.
        updates: what they send instead of what they have learned; None: what they have learned.

    Raises:
        ValueError: nobody, a negative or repeated number, or nothing that they do.
    """

    clients: Sequence[int] = (0,)
    rows: Poisoning | None = None
    updates: ClientAttack | None = None

    def __post_init__(self) -> None:
        if not self.clients or min(self.clients) < 0 or len(set(self.clients)) < len(self.clients):
            raise ValueError(f"malicious clients are different numbers from 0 up, got {list(self.clients)}")
        if self.rows is None and self.updates is None:
            raise ValueError("malicious clients do nothing: give rows or updates")

    def select(self, clients: int) -> Tensor:
        """Which of so many clients they are, (clients,), bool; ValueError where there are not so many."""
        if max(self.clients) >= clients:
            raise ValueError(f"there are clients 0..{clients - 1}, got malicious ones {list(self.clients)}")
        where = torch.zeros(clients, dtype=torch.bool)
        where[list(self.clients)] = True
        return where

    def poisoned(self, clients: Sequence[Dataset], *, generator: torch.Generator) -> list[Dataset]:
        """The rows of all clients as they learn from them."""
        where = self.select(len(clients)).tolist()
        if self.rows is None:
            return list(clients)
        return [
            self.rows(rows, generator=generator).dataset if wrong else rows
            for rows, wrong in zip(clients, where, strict=True)
        ]


@dataclass(frozen=True)
class SignFlip:
    """The opposite of what was learned, larger (as in Li et al., 2019, arXiv:1811.03761); see `ClientAttack`.

    Args:
        factor: by how much larger; of several malicious clients, each turns its own update.
    """

    factor: float = 4.0

    def __post_init__(self) -> None:
        if not 0 < self.factor < math.inf:
            raise ValueError(f"factor must be positive and finite, got {self.factor}")

    def __call__(self, updates: Tensor, malicious: Tensor, *, generator: torch.Generator) -> Tensor:
        _check(updates, malicious)
        return torch.where(malicious[:, None], -self.factor * updates, updates)


@dataclass(frozen=True)
class ModelReplacement:
    """An update so large that the mean becomes the attacker's own (Bagdasaryan et al., 2020, arXiv:1807.00459, eq. 3).

    What its clients have learned, from poisoned rows for instance, times `factor`. See `ClientAttack`.

    Args:
        factor: the number of clients over that of malicious ones replaces the whole mean.
    """

    factor: float = 5.0

    def __post_init__(self) -> None:
        if not 0 < self.factor < math.inf:
            raise ValueError(f"factor must be positive and finite, got {self.factor}")

    def __call__(self, updates: Tensor, malicious: Tensor, *, generator: torch.Generator) -> Tensor:
        _check(updates, malicious)
        return torch.where(malicious[:, None], self.factor * updates, updates)


@dataclass(frozen=True)
class ALittleIsEnough:
    """A shift so small that it hides among honest clients (Baruch et al., 2019, arXiv:1902.06156, section 3).

    All malicious clients send the honest ones' mean minus z standard deviations, coordinate by coordinate. The paper
    estimates both from the malicious clients' own updates; here the attacker knows the honest ones, which is worse for
    the defense and possible with a single malicious client. See `ClientAttack`.

    Args:
        z: in standard deviations. None: the largest that the paper allows, by which enough honest clients lie further
            out (`largest_shift`).
    """

    z: float | None = None

    def __call__(self, updates: Tensor, malicious: Tensor, *, generator: torch.Generator) -> Tensor:
        _check(updates, malicious)
        honest = updates[~malicious]
        if not len(honest):
            raise ValueError("A little is enough hides among honest clients: leave some")
        z = largest_shift(len(updates), int(malicious.sum())) if self.z is None else self.z
        shifted = honest.mean(0) - z * honest.std(0, correction=0)
        return torch.where(malicious[:, None], shifted, updates)


def largest_shift(clients: int, malicious: int) -> float:
    """The paper's z_max: s = floor(n / 2 + 1) - m honest clients lie further out than it, if they are normal.

    It is the quantile (n - m - s) / (n - m) of the normal distribution, and 0 where that is at most a half.

    Raises:
        ValueError: malicious clients that are no minority, whom nothing has to hide.
    """
    supporters = clients // 2 + 1 - malicious
    if malicious < 1 or supporters < 1:
        raise ValueError(f"{malicious} of {clients} clients are no minority, which has nothing to hide: give z")
    return NormalDist().inv_cdf(max(0.5, (clients - malicious - supporters) / (clients - malicious)))


def _check(updates: Tensor, malicious: Tensor) -> None:
    if malicious.shape != updates.shape[:1] or malicious.dtype != torch.bool or not malicious.any():
        raise ValueError(
            f"malicious must be bool ({len(updates)},) and name a client at least, got {malicious.dtype} "
            f"{tuple(malicious.shape)} with {int(malicious.sum())}"
        )
