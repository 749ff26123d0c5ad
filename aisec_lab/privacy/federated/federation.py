"""Rounds: clients learn on their own rows, a server combines what they send."""

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
from aisec_lab.privacy.federated.local import Local
from aisec_lab.privacy.federated.rules import AggregationRule, FedAvg, shares
from aisec_lab.privacy.federated.secure import SecureAggregation


@dataclass(frozen=True, eq=False)
class FederatedResult:
    """What a federation has come to.

    Args:
        weights: of the server's model before the first round and after each, (rounds + 1, P).
        ledger: for each client, what each round was to an accountant of its rows: `ledger[client][round]`; without
            noise where nothing is promised, without steps where the client stayed away.
        clients: the same for whole clients, one mechanism a round; empty where nothing is promised to them.
        left_out: how many updates of each round were not finite, and left out; it has no noise, and is not private.
    """

    weights: Tensor
    ledger: tuple[tuple[SampledGaussian, ...], ...]
    clients: tuple[SampledGaussian, ...] = ()
    left_out: tuple[int, ...] = ()


@dataclass(frozen=True)
class Federation:
    """Federated learning, round by round (McMahan et al., 2017, arXiv:1602.05629, algorithm 1).

    An update with NaN or infinity is left out of its round, as if the client had no rows, and counted: with a mean it
    would be the model's end. Against the rules that withstand attackers it counts as an update of zero, so that it uses
    up one of the attackers that they withstand.

    All in one process and in order, each client in each round with a generator of its own, so that it is the same to
    the bit, and what one client draws, or an attacker, changes nothing for another.

    Args:
        rounds: how many.
        local: what a client does in a round.
        rule: how the server combines updates.
        secure: hides the updates from the server, so that it sees their sum. None: it sees each.
        client_level: a promise to whole clients. None: all join each round, nothing is promised to them as a whole.

    Args of the call:
        model: classifier; trained in place, left in evaluation mode.
        clients: their rows.
        malicious: which clients are an attacker's, and what they do; None: all are honest.
        generator: source of all that clients, server and attacker draw.

    Returns:
        The server's weights after each round, and what each client has spent.

    Raises:
        ValueError: a rule that must see each update beside secure aggregation; any rule but `FedAvg` beside a promise
            to clients; no client; malicious clients that there are not; a model that mixes rows (BatchNorm); what
            `Local` and the rule refuse.
        FloatingPointError: no update of a round is finite, or the model is not after it.
    """

    rounds: int = 15
    local: Local = Local()
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
        if not clients:
            raise ValueError("a federation has at least one client, got none")
        self.local.check_model(model, clients[0])  # a running mean, too, is no weight: it would stay with the client
        attacker = torch.Generator().manual_seed(int(torch.randint(2**62, (), generator=generator)))
        wrong, attack = torch.zeros(len(clients), dtype=torch.bool), None
        if malicious is not None:
            wrong, attack = malicious.select(len(clients)), malicious.updates
            clients = malicious.poisoned(clients, generator=attacker)
        sizes = torch.tensor([len(rows) for rows in clients])
        own = [self.local.mechanism(int(size), self.rounds) for size in sizes]
        ledger: list[list[SampledGaussian]] = [[] for _ in clients]
        left_out: list[int] = []
        history = [parameters_to_vector(model.parameters()).detach().clone()]

        for _ in tqdm(range(self.rounds), mininterval=0.5, unit="round", desc="federation"):
            seeds = torch.randint(2**62, (len(clients) + 1,), generator=generator).tolist()
            server = torch.Generator().manual_seed(seeds.pop())
            joined = self._joining(len(clients), server)
            updates = history[0].new_zeros(len(clients), len(history[0]))  # of whoever stays away: nothing
            for client in joined.nonzero().flatten().tolist():
                chance = torch.Generator().manual_seed(seeds[client])
                updates[client] = self.local.update(model, clients[client], rounds=self.rounds, generator=chance)
            for client, spent in enumerate(ledger):
                spent.append(own[client] if joined[client] else replace(own[client], steps=0))
            if attack is not None and (wrong & joined).any():
                updates[joined] = attack(updates[joined], wrong[joined], generator=attacker)
            finite = updates.isfinite().all(1)
            left_out.append(int((~finite).sum()))
            if self.client_level is None and not finite.any():
                raise FloatingPointError(f"no update of round {len(left_out)} is finite: lower local.learning_rate")
            updates = torch.where(finite[:, None], updates, 0)
            history.append(history[-1] + self._combined(updates, sizes * finite, server))
            if not history[-1].isfinite().all():
                raise FloatingPointError(
                    f"the model is not finite after round {len(left_out)}: lower local.learning_rate"
                )
            vector_to_parameters(history[-1].clone(), model.parameters())
        model.eval()
        private = () if self.client_level is None else (self.client_level.mechanism(1),) * self.rounds
        return FederatedResult(torch.stack(history), tuple(map(tuple, ledger)), private, tuple(left_out))

    def _joining(self, clients: int, generator: torch.Generator) -> Tensor:
        if self.client_level is None:
            return torch.ones(clients, dtype=torch.bool)
        return self.client_level.sample_clients(clients, generator)

    def _combined(self, updates: Tensor, sizes: Tensor, generator: torch.Generator) -> Tensor:
        """The server's update (P,) from those of all clients (n, P)."""
        private = self.client_level
        if private is None and self.secure is None:
            return self.rule(updates, sizes)
        parts = shares(sizes, updates)[:, None] * updates if private is None else private.clip(updates)
        total = parts.sum(0) if self.secure is None else self.secure(parts, generator=generator)
        return total if private is None else private.noisy_mean(total, len(updates), generator)
