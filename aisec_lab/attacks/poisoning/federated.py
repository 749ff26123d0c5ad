"""Attacks on federated learning: malicious clients poison their rows, or send other updates than they learned."""

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
    """An attack on the updates of a federation: a frozen dataclass of settings that is called.

    Call contract: docs/poisoning-attacks.md.
    """

    def __call__(self, updates: Tensor, malicious: Tensor, *, generator: torch.Generator) -> Tensor:
        """Replace the updates of malicious clients.

        Args:
            updates: what all n clients learned in a round, the malicious ones too, (n, P).
            malicious: which clients are malicious, (n,), bool, at least one.
            generator: source of all randomness.

        Returns:
            Updates (n, P); those of honest clients are unchanged.

        Raises:
            ValueError: another shape, no malicious client, or no honest one where the attack uses their updates.
        """
        ...


@dataclass(frozen=True)
class MaliciousClients:
    """Which clients of a federation are malicious, and what they do.

    Args:
        clients: their numbers, from 0 up.
        rows: how they poison their own rows before training, such as `LabelFlips`; None: they do not.
        updates: how they replace what they learned before they send it; None: they do not.

    Raises:
        ValueError: no client, a negative or repeated number, or neither `rows` nor `updates`.
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
        """Mark the malicious clients of a federation.

        Args:
            clients: how many clients the federation has.

        Returns:
            Which of them are malicious, (clients,), bool.

        Raises:
            ValueError: a malicious client's number is `clients` or more.
        """
        if max(self.clients) >= clients:
            raise ValueError(f"there are clients 0..{clients - 1}, got malicious ones {list(self.clients)}")
        mask = torch.zeros(clients, dtype=torch.bool)
        mask[list(self.clients)] = True
        return mask

    def poisoned(self, clients: Sequence[Dataset], *, generator: torch.Generator) -> list[Dataset]:
        """Poison the rows of the malicious clients.

        Args:
            clients: the rows of each client.
            generator: source of all randomness.

        Returns:
            The rows that each client trains on, in the same order; those of honest clients are unchanged.

        Raises:
            ValueError: as `select`, and what the poisoning attack refuses.
        """
        malicious = self.select(len(clients)).tolist()
        if self.rows is None:
            return list(clients)
        return [
            self.rows(rows, generator=generator).dataset if is_malicious else rows
            for rows, is_malicious in zip(clients, malicious, strict=True)
        ]


@dataclass(frozen=True)
class SignFlip:
    """Send the opposite of the own update, scaled up (as in Li et al., 2019, arXiv:1811.03761).

    Each malicious client flips its own update. Call contract: docs/poisoning-attacks.md; nothing is drawn.

    Args:
        factor: of the flipped update, positive and finite.
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
    """Scale the own update so that the mean becomes the attacker's model (Bagdasaryan et al., 2020, arXiv:1807.00459).

    Equation 3: each malicious client sends what it learned, from poisoned rows for instance, times `factor`. Call
    contract: docs/poisoning-attacks.md; nothing is drawn.

    Args:
        factor: positive and finite; the number of clients over that of malicious ones replaces the whole mean.
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
    """Shift the mean by less than honest updates differ from each other (Baruch et al., 2019, arXiv:1902.06156).

    Section 3: all malicious clients send the honest ones' mean minus z standard deviations, in each coordinate. The
    paper estimates both from the malicious clients' own updates. Here the attacker knows the honest updates, which is
    the stronger attack and needs only one malicious client. Call contract: docs/poisoning-attacks.md; nothing is drawn.

    Args:
        z: the shift in standard deviations; None: the largest one that the paper allows (`z_max`).
    """

    z: float | None = None

    def __call__(self, updates: Tensor, malicious: Tensor, *, generator: torch.Generator) -> Tensor:
        _check(updates, malicious)
        honest = updates[~malicious]
        if not len(honest):
            raise ValueError("A little is enough hides among honest clients: leave some")
        z = z_max(len(updates), int(malicious.sum())) if self.z is None else self.z
        shifted = honest.mean(0) - z * honest.std(0, correction=0)
        return torch.where(malicious[:, None], shifted, updates)


def z_max(clients: int, malicious: int) -> float:
    """The largest shift of `ALittleIsEnough`, beyond which enough honest updates are expected if they are normal.

    With n clients, m of them malicious, and s = floor(n / 2 + 1) - m, it is the quantile (n - m - s) / (n - m) of the
    standard normal distribution (Baruch et al., 2019, arXiv:1902.06156).

    Args:
        clients: n.
        malicious: m, a minority, at least 1.

    Returns:
        z_max, in standard deviations; 0 where that share is at most a half.

    Raises:
        ValueError: no malicious client, or as many that they are a majority.
    """
    supporters = clients // 2 + 1 - malicious
    if malicious < 1 or supporters < 1:
        raise ValueError(f"{malicious} of {clients} clients are no minority, for which z_max is defined: give z")
    return NormalDist().inv_cdf(max(0.5, (clients - malicious - supporters) / (clients - malicious)))


def _check(updates: Tensor, malicious: Tensor) -> None:
    if malicious.shape != updates.shape[:1] or malicious.dtype != torch.bool or not malicious.any():
        raise ValueError(
            f"malicious must be bool ({len(updates)},) and name a client at least, got {malicious.dtype} "
            f"{tuple(malicious.shape)} with {int(malicious.sum())}"
        )
