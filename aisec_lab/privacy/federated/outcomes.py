"""Results of a federation: accuracy and epsilon by round, and what a server can observe."""

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
from aisec_lab.privacy.federated.client_update import ClientUpdate
from aisec_lab.privacy.federated.federation import FederatedResult, Federation
from aisec_lab.privacy.mechanisms import merged


@dataclass(frozen=True, eq=False)
class FederatedHistory:
    """A completed federation.

    Args:
        model: the server's model, in evaluation mode.
        federated: its weights by round, and the privacy that each client spent.
        correct: number of test rows classified correctly before the first round and after each, rounds + 1.
    """

    model: nn.Module
    federated: FederatedResult
    correct: list[int]


def run_federation(
    federation: Federation,
    architecture: Architecture,
    clients: Sequence[Dataset],
    test: Dataset,
    *,
    malicious: MaliciousClients | None = None,
    seed: int,
) -> FederatedHistory:
    """Run a federation with a new model.

    Args:
        federation: the federation.
        architecture: of the model; its initial weights depend on the seed alone.
        clients: the rows of each client.
        test: rows that no client has.
        malicious: which clients are malicious, and what they do; None: all are honest.
        seed: of all randomness.

    Returns:
        The model, the federation's result, and the accuracy by round.

    Raises:
        ValueError, FloatingPointError: what the federation raises.
    """
    first = torch.Generator().manual_seed(seed)
    model = architecture(test.shape, len(test.classes), generator=first)
    federated = federation(model, clients, malicious=malicious, generator=torch.Generator().manual_seed(seed))
    return FederatedHistory(model, federated, correct_by_round(model, federated, test))


def correct_by_round(model: nn.Module, federated: FederatedResult, test: Dataset) -> list[int]:
    """The number of test rows that the server's model classifies correctly before the first round and after each.

    Args:
        model: of the federation's architecture; it is left with the last weights.
        federated: the result of the federation.
        test: test rows with classes.

    Returns:
        rounds + 1 numbers.
    """
    correct = []
    for weights in federated.weights:
        vector_to_parameters(weights.clone(), model.parameters())
        correct.append(int((logits_of(model, test.x).argmax(1) == test.y).sum()))
    return correct


def epsilon_by_round(spent: Sequence[SampledGaussian], delta: float) -> list[float]:
    """The epsilon after each round, for all rounds so far (by "pld" on a grid of 1e-3).

    Args:
        spent: the mechanism of each round: `ledger[client]` or `clients` of a `FederatedResult`.
        delta: in (0, 1).

    Returns:
        Upper bounds on epsilon, one per round, never decreasing; infinite where there is no noise.
    """
    epsilons = []
    for rounds in range(1, len(spent) + 1):
        gaussians, statements = merged(spent[:rounds])
        noisy = all(each.noisy for each in gaussians)
        epsilons.append(float(pld_epsilon(gaussians, statements, delta, COARSE)) if noisy else float("inf"))
    return epsilons


def observed_gradient(
    client_update: ClientUpdate, model: nn.Module, rows: Dataset, *, generator: torch.Generator
) -> list[Tensor]:
    """The gradient that a server can compute from a client's update of one step, for `GradientInversion`.

    Args:
        client_update: the client's training; with `privacy` the gradient is clipped and noisy.
        model: with the server's weights; it is not changed.
        rows: the client's rows, at most one batch.
        generator: source of the client's randomness.

    Returns:
        One tensor for each of `model.parameters()`, in their order.

    Raises:
        ValueError: an update of several steps, of which the server sees only the sum.
    """
    steps = client_update.epochs * -(-len(rows) // client_update.batch_size)
    if steps != 1:
        raise ValueError(f"the update is one by {steps} steps: raise batch_size to {len(rows)}, with one epoch")
    update = client_update(model, rows, rounds=1, generator=generator)
    sizes = [weight.numel() for weight in model.parameters()]
    parts = (-update / client_update.learning_rate).split(sizes)
    return [part.view_as(weight) for part, weight in zip(parts, model.parameters(), strict=True)]
