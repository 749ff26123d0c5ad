"""Client-level differential privacy."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from aisec_lab.privacy.accounting import SampledGaussian, check_target, epsilon
from aisec_lab.privacy.sampling import normals, uniforms

TINY = 1e-12  # keeps an update of zero from dividing by zero


@dataclass(frozen=True)
class ClientLevel:
    """Clip each client's update and add noise to their sum (McMahan et al., 2018, arXiv:1710.06963, algorithm 1).

    Each client joins a round with probability q, independently. All have the same weight, and the sum is divided by the
    expected number of clients (the paper's estimator f_f). The server adds the noise, so it is trusted with the clipped
    updates or, under secure aggregation, with their sum.

    Args:
        q: sampling rate of clients, in (0, 1].
        max_update_norm: clipping norm S of updates, positive and finite.
        noise_multiplier: z, standard deviation of the noise over S, at least 0.

    Raises:
        ValueError: a setting out of its range.
    """

    q: float = 0.1
    max_update_norm: float = 1.0
    noise_multiplier: float = 1.0

    def __post_init__(self) -> None:
        if not (0 < self.q <= 1 and 0 < self.max_update_norm < math.inf and 0 <= self.noise_multiplier < math.inf):
            raise ValueError(
                f"q must lie in (0, 1], max_update_norm be positive and noise_multiplier not negative: {self}"
            )

    def mechanism(self, rounds: int) -> SampledGaussian:
        """The mechanism that an accountant has to account for; neighbouring federations differ by one client."""
        return SampledGaussian(self.q, self.noise_multiplier, rounds)

    def sample_clients(self, clients: int, generator: torch.Generator) -> Tensor:
        """Sample the clients that join a round: mask (clients,), bool."""
        return uniforms(clients, generator) < self.q

    def clip(self, updates: Tensor) -> Tensor:
        """Clip updates (n, P) to `max_update_norm`; an update that is not finite becomes zero."""
        updates = torch.where(updates.isfinite().all(1, keepdim=True), updates, 0)
        norms = updates.norm(dim=1, keepdim=True).clamp(min=TINY)
        return updates * (self.max_update_norm / norms).clamp(max=1)

    def noisy_mean(self, total: Tensor, clients: int, generator: torch.Generator) -> Tensor:
        """The server's update (P,): the sum (P,) of clipped updates plus noise, over the expected number of clients.

        Args:
            total: sum of the clipped updates of the clients that joined (P,).
            clients: number of all clients.
            generator: source of the noise.
        """
        noise = normals(total.shape, generator).to(total)
        return (total + self.noise_multiplier * self.max_update_norm * noise) / (self.q * clients)

    def guarantee(self, clients: int, rounds: int, delta: float) -> dict[str, float]:
        """The guarantee for each client, and the noise that it costs.

        Args:
            clients: number of clients.
            rounds: number of rounds.
            delta: in (0, 1 / clients).

        Returns:
            `epsilon`, and `noise`: the standard deviation of the noise on each weight of a round's update, in units of
            S: z / (q clients). With few clients, either epsilon or the noise is too large to be useful.

        Raises:
            ValueError: delta out of its range.
        """
        check_target(1.0, delta, clients)
        return {
            "epsilon": epsilon([self.mechanism(rounds)], delta),
            "noise": self.noise_multiplier / (self.q * clients),
        }
