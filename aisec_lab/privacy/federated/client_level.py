"""A promise to whole clients, whatever rows they have."""

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

    Each client joins a round by a coin of its own. All count alike, and the sum is divided by the number that is
    expected, q times the clients, the paper's estimator f_f. The noise is the server's, which is
    trusted with the clipped updates, or, under secure aggregation, with their sum alone.

    Args:
        q: the chance of each client to join a round, in (0, 1].
        max_update_norm: S, the L2 norm to which updates are cut.
        noise_multiplier: z, the noise's standard deviation in units of S.

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
        """What so many rounds are to an accountant; neighbouring federations differ by one client."""
        return SampledGaussian(self.q, self.noise_multiplier, rounds)

    def sample_clients(self, clients: int, generator: torch.Generator) -> Tensor:
        """Who joins a round, (clients,), bool."""
        return uniforms(clients, generator) < self.q

    def clip(self, updates: Tensor) -> Tensor:
        """Updates (n, P), none of them longer than `max_update_norm`; one that is not finite counts as zero."""
        updates = torch.where(updates.isfinite().all(1, keepdim=True), updates, 0)
        lengths = updates.norm(dim=1, keepdim=True).clamp(min=TINY)
        return updates * (self.max_update_norm / lengths).clamp(max=1)

    def noisy_mean(self, total: Tensor, clients: int, generator: torch.Generator) -> Tensor:
        """The server's update (P,) from the sum (P,) of the clipped ones of whoever joined."""
        noise = normals(total.shape, generator).to(total)
        return (total + self.noise_multiplier * self.max_update_norm * noise) / (self.q * clients)

    def guarantee(self, clients: int, rounds: int, delta: float) -> dict[str, float]:
        """What a client is promised, and what that costs the model.

        Args:
            clients: how many there are.
            rounds: of the federation.
            delta: below 1 / clients.

        Returns:
            `epsilon`, and `noise`: the length of the noise on a round's update, for each weight, in units of S. With
            few clients one of them is always useless: the noise is z / (q clients), and z is what epsilon falls with.

        Raises:
            ValueError: delta outside.
        """
        check_target(1.0, delta, clients)
        return {
            "epsilon": epsilon([self.mechanism(rounds)], delta),
            "noise": self.noise_multiplier / (self.q * clients),
        }
