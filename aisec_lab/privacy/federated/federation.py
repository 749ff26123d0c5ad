"""Federated learning in one process: clients train on their own rows, a server aggregates their updates."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn
from torch.nn.utils import parameters_to_vector, vector_to_parameters
from tqdm import tqdm

from aisec_lab.attacks.poisoning.federated import MaliciousClients
from aisec_lab.data import Dataset
from aisec_lab.privacy.accounting import SampledGaussian
from aisec_lab.privacy.federated.client_level import ClientLevel
from aisec_lab.privacy.federated.client_update import ClientUpdate
from aisec_lab.privacy.federated.rules import AggregationRule, FedAvg, shares
from aisec_lab.privacy.federated.secure import SecureAggregation


@dataclass(frozen=True, eq=False)
class FederatedResult:
    """The result of a federation.

    Args:
        weights: the server's weights before the first round and after each, (rounds + 1, P).
        ledger: `ledger[client][round]`, the mechanism on the client's rows. It has no noise where `ClientUpdate` has no
            `privacy`, and no steps where the client did not join.
        clients: the mechanism on whole clients, one per round; empty without `client_level`.
        left_out: number of updates of each round that were not finite; it has no noise and is not private.
    """

    weights: Tensor
    ledger: tuple[tuple[SampledGaussian, ...], ...]
    clients: tuple[SampledGaussian, ...] = ()
    left_out: tuple[int, ...] = ()


@dataclass(frozen=True)
class Federation:
    """Federated learning, round by round (McMahan et al., 2017, arXiv:1602.05629, algorithm 1).

    An update with NaN or infinity is left out of its round, as if the client had no rows. A robust rule gets an update
    of zero in its place, which uses up one of the attackers that it tolerates. All clients run in one process, in
    order. Each has a generator of its own in each round, so results are bit-identical, and the draws of one client or
    of an attacker do not change another client.

    Args:
        rounds: at least 1.
        client_update: training of a client in a round.
        rule: aggregation of the updates.
        secure: secure aggregation, by which the server sees only the sum of the updates; None: it sees each.
        client_level: differential privacy for whole clients; None: all clients join each round.

    Raises:
        ValueError: a field out of its range; secure aggregation with a rule that needs each update; `client_level` with
            another rule than `FedAvg`.
    """

    rounds: int = 15
    client_update: ClientUpdate = ClientUpdate()
    rule: AggregationRule = FedAvg()
    secure: SecureAggregation | None = None
    client_level: ClientLevel | None = None

    def __post_init__(self) -> None:
        name = type(self.rule).__name__
        if self.rounds < 1:
            raise ValueError(f"rounds must be positive, got {self.rounds}")
        if self.secure is not None and not self.rule.additive:
            raise ValueError(f"{name} cannot see the updates that secure aggregation hides: use FedAvg, or secure=None")
        if self.client_level is not None and not isinstance(self.rule, FedAvg):
            raise ValueError(f"the noise for whole clients covers a sum of clipped updates, not {name}: use FedAvg")

    def __call__(
        self,
        model: nn.Module,
        clients: Sequence[Dataset],
        *,
        malicious: MaliciousClients | None = None,
        generator: torch.Generator,
    ) -> FederatedResult:
        """Run all rounds.

        Args:
            model: classifier; trained in place, left in evaluation mode.
            clients: the rows of each client; at least one client.
            malicious: which clients are malicious, and what they do; None: all are honest.
            generator: source of all randomness of clients, server and attacker.

        Returns:
            The server's weights after each round, and the privacy that each client spent.

        Raises:
            ValueError: no client; more malicious clients than there are; a model that mixes rows (BatchNorm); what
                `ClientUpdate` and the rule refuse.
            FloatingPointError: no update of a round is finite, or the aggregated model is not.
        """
        if not clients:
            raise ValueError("a federation has at least one client, got none")
        self.client_update.check_model(model, clients[0])  # buffers, such as running means, are not sent
        attacker = torch.Generator().manual_seed(int(torch.randint(2**62, (), generator=generator)))
        is_malicious, attack = torch.zeros(len(clients), dtype=torch.bool), None
        if malicious is not None:
            is_malicious, attack = malicious.select(len(clients)), malicious.updates
            clients = malicious.poisoned(clients, generator=attacker)
        sizes = torch.tensor([len(rows) for rows in clients])
        own = [self.client_update.mechanism(int(size), self.rounds) for size in sizes]
        ledger: list[list[SampledGaussian]] = [[] for _ in clients]
        left_out: list[int] = []
        history = [parameters_to_vector(model.parameters()).detach().clone()]

        for _ in tqdm(range(self.rounds), mininterval=0.5, unit="round", desc="federation"):
            seeds = torch.randint(2**62, (len(clients) + 1,), generator=generator).tolist()
            server = torch.Generator().manual_seed(seeds.pop())
            joined = self._sample_clients(len(clients), server)
            updates = history[0].new_zeros(len(clients), len(history[0]))  # zero for a client that does not join
            for client in joined.nonzero().flatten().tolist():
                chance = torch.Generator().manual_seed(seeds[client])
                updates[client] = self.client_update.update(
                    model, clients[client], rounds=self.rounds, generator=chance
                )
            for client, spent in enumerate(ledger):
                spent.append(own[client] if joined[client] else replace(own[client], steps=0))
            if attack is not None and (is_malicious & joined).any():
                updates[joined] = attack(updates[joined], is_malicious[joined], generator=attacker)
            finite = updates.isfinite().all(1)
            left_out.append(int((~finite).sum()))
            if self.client_level is None and not finite.any():
                raise FloatingPointError(
                    f"no update of round {len(left_out)} is finite: lower client_update.learning_rate"
                )
            updates = torch.where(finite[:, None], updates, 0)
            history.append(history[-1] + self._aggregate(updates, sizes * finite, server))
            if not history[-1].isfinite().all():
                raise FloatingPointError(
                    f"the model is not finite after round {len(left_out)}: lower client_update.learning_rate"
                )
            vector_to_parameters(history[-1].clone(), model.parameters())
        model.eval()
        private = () if self.client_level is None else (self.client_level.mechanism(1),) * self.rounds
        return FederatedResult(torch.stack(history), tuple(map(tuple, ledger)), private, tuple(left_out))

    def _sample_clients(self, clients: int, generator: torch.Generator) -> Tensor:
        if self.client_level is None:
            return torch.ones(clients, dtype=torch.bool)
        return self.client_level.sample_clients(clients, generator)

    def _aggregate(self, updates: Tensor, sizes: Tensor, generator: torch.Generator) -> Tensor:
        """The server's update (P,) from the updates (n, P) of all clients."""
        private = self.client_level
        if private is None and self.secure is None:
            return self.rule(updates, sizes)
        parts = shares(sizes, updates)[:, None] * updates if private is None else private.clip(updates)
        total = parts.sum(0) if self.secure is None else self.secure(parts, generator=generator)
        return total if private is None else private.noisy_mean(total, len(updates), generator)
