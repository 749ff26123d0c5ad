"""What a federation came to, in figures."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.utils import vector_to_parameters

from aisec_lab.attacks.poisoning.federated import MaliciousClients
from aisec_lab.data import Dataset
from aisec_lab.models import logits_of
from aisec_lab.models.layers import Architecture
from aisec_lab.privacy.accountants import pld_epsilon
from aisec_lab.privacy.accounting import SampledGaussian
from aisec_lab.privacy.composition import COARSE
from aisec_lab.privacy.federated.federation import FederatedResult, Federation
from aisec_lab.privacy.federated.local import Local
from aisec_lab.privacy.mechanisms import merged


@dataclass(frozen=True, eq=False)
class FederatedHistory:
    """A federation that has been played to its end.

    Args:
        model: the server's, in evaluation mode.
        federated: its weights, and what each client has spent.
        right: test rows that it got right before the first round and after each, rounds + 1.
    """

    model: nn.Module
    federated: FederatedResult
    right: list[int]


def run_federation(
    federation: Federation,
    architecture: Architecture,
    clients: Sequence[Dataset],
    test: Dataset,
    *,
    malicious: MaliciousClients | None = None,
    seed: int,
) -> FederatedHistory:
    """Play a federation with a new model.

    Args:
        federation: what is played.
        architecture: of the model; its first weights depend on the seed alone.
        clients: their rows.
        test: rows that no client has.
        malicious: which clients are an attacker's; None: none.
        seed: of everything.
    """
    first = torch.Generator().manual_seed(seed)
    model = architecture(test.shape, len(test.classes), generator=first)
    federated = federation(model, clients, malicious=malicious, generator=torch.Generator().manual_seed(seed))
    return FederatedHistory(model, federated, correct_by_round(model, federated, test))


def correct_by_round(model: nn.Module, federated: FederatedResult, test: Dataset) -> list[int]:
    """How many test rows the server's model got right before the first round and after each, rounds + 1 numbers.

    `model` is of the federation's architecture; it keeps the last weights.
    """
    right = []
    for weights in federated.weights:
        vector_to_parameters(weights.clone(), model.parameters())
        right.append(int((logits_of(model, test.x).argmax(1) == test.y).sum()))
    return right


def epsilon_by_round(spent: Sequence[SampledGaussian], delta: float) -> list[float]:
    """What is promised after each round, all rounds so far composed (by "pld" on a grid of 1e-3, an upper bound).

    Args:
        spent: a mechanism for each round: a client's `ledger[client]`, or `clients` of the federation.
        delta: in (0, 1).

    Returns:
        Epsilons, one a round, never falling; infinite where there is no noise.
    """
    found = []
    for rounds in range(1, len(spent) + 1):
        gaussians, statements = merged(spent[:rounds])
        noisy = all(each.noisy for each in gaussians)
        found.append(float(pld_epsilon(gaussians, statements, delta, COARSE)) if noisy else float("inf"))
    return found


def observed_gradient(local: Local, model: nn.Module, rows: Dataset, *, generator: torch.Generator) -> list[Tensor]:
    """The gradient that a server reads off a client's update by one step, for `GradientInversion`.

    Args:
        local: what the client does in a round; with `privacy` the gradient is clipped and noisy.
        model: with the weights that the client was sent.
        rows: of the client; no more than a batch.
        generator: the client's.

    Returns:
        One tensor for each of `model.parameters()`, in their order.

    Raises:
        ValueError: an update by several steps, whose gradients the server sees only added up.
    """
    steps = local.epochs * -(-len(rows) // local.batch_size)
    if steps != 1:
        raise ValueError(f"the update is one by {steps} steps: raise batch_size to {len(rows)}, with one epoch")
    update = local(model, rows, rounds=1, generator=generator)
    sizes = [weight.numel() for weight in model.parameters()]
    parts = (-update / local.learning_rate).split(sizes)
    return [part.view_as(weight) for part, weight in zip(parts, model.parameters(), strict=True)]
