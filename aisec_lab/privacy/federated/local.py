"""What a client does with the weights that it is sent."""

import math
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from functools import lru_cache

import torch
from torch import Tensor, nn
from torch.nn.utils import parameters_to_vector

from aisec_lab.data import Dataset
from aisec_lab.defenses import Standard
from aisec_lab.models import Fit, copied, in_training
from aisec_lab.models.training.fit import Losses, Step, plain_step, shuffled
from aisec_lab.privacy.accounting import SampledGaussian
from aisec_lab.privacy.dp_sgd import DPSGD
from aisec_lab.privacy.dummy_rows import dummy_inputs
from aisec_lab.privacy.per_sample_check import check_per_sample
from aisec_lab.privacy.sampling import poisson_batches


@dataclass(frozen=True)
class Local:
    """Some epochs of SGD on a client's own rows (McMahan et al., 2017, arXiv:1602.05629, ClientUpdate).

    Args:
        epochs: over the client's rows, in each round.
        batch_size: rows of a batch; a client that has fewer takes all of them, unless it trains privately.
        learning_rate: of SGD without momentum.
        proximal: mu of FedProx, the pull back to the weights that were sent (Li et al., 2020, arXiv:1812.06127, eq. 2);
            0 is FedAvg. It knows no rows, so that it costs no privacy.
        privacy: what each row of a client is promised against whoever sees all its updates. With an epsilon, that is
            for all rounds together. None promises nothing.

    Args of the call:
        model: with the weights that were sent; it stays as it is.
        dataset: the client's rows.
        rounds: how many there are in all, over which the promise is spread.
        generator: source of batches and noise.

    Returns:
        The update: the weights after minus those before, (P,), in the order of `model.parameters()`.

    Raises:
        ValueError: a setting out of its range; what `DPSGD` refuses, such as fewer rows than a batch; release mode.
        FloatingPointError: the loss is not finite any more.
    """

    epochs: int = 1
    batch_size: int = 16
    learning_rate: float = 0.5
    proximal: float = 0.0
    privacy: DPSGD | None = None

    def __post_init__(self) -> None:
        positive = self.epochs >= 1 and self.batch_size >= 1 and 0 < self.learning_rate < math.inf
        if not (positive and self.proximal >= 0):
            raise ValueError(f"epochs, batch_size, learning_rate must be positive, proximal not negative: {self}")
        if self.privacy is not None and self.privacy.stop is not None:
            raise ValueError("a client trains its epochs in each round and is not asked to stop: set rounds, stop=None")
        if self.privacy is not None and self.privacy.release:
            raise ValueError("a federation is a simulation, with every client's generator in one place: release=False")

    def __call__(self, model: nn.Module, dataset: Dataset, *, rounds: int, generator: torch.Generator) -> Tensor:
        self.check_model(model, dataset)
        return self.update(model, dataset, rounds=rounds, generator=generator)

    def check_model(self, model: nn.Module, dataset: Dataset) -> None:
        """Refuse a model that mixes rows or keeps them, as `check_per_sample` does, or that `privacy` cannot train."""
        if self.privacy is not None:
            self.privacy.check_model(model, dataset, self.batch_size)
        else:
            check_per_sample(model, dummy_inputs(dataset.x, 2), self.batch_size)

    def update(self, model: nn.Module, dataset: Dataset, *, rounds: int, generator: torch.Generator) -> Tensor:
        """What a call returns, for a model that has been checked."""
        model = in_training(copied(model))
        sent = [weight.detach().clone() for weight in model.parameters()]
        optimizer = torch.optim.SGD(model.parameters(), lr=self.learning_rate)
        draw, objective = (shuffled, Standard()) if self.privacy is None else (poisson_batches, self.privacy.objective)
        with self._stepping(model, self.mechanism(len(dataset), rounds), generator) as step:
            for _ in range(self.epochs):
                for rows in draw(len(dataset), self.batch_size, generator):
                    apart = [weight.detach() - was for weight, was in zip(model.parameters(), sent, strict=True)]
                    losses = Losses(objective, model, dataset.x[rows], dataset.y[rows], generator)
                    if not torch.isfinite(step(model, optimizer, losses)).all():
                        raise FloatingPointError(
                            f"a client's loss is not finite: lower learning_rate (now {self.learning_rate})"
                        )
                    with torch.no_grad():  # the pull is the same for all rows, so that it need not be clipped
                        for weight, far in zip(model.parameters(), apart, strict=True):
                            weight.sub_(self.learning_rate * self.proximal * far)
        return parameters_to_vector([new - old for new, old in zip(model.parameters(), sent, strict=True)]).detach()

    def mechanism(self, rows: int, rounds: int) -> SampledGaussian:
        """What one round of a client with so many rows is to an accountant; without `privacy`, all rows without noise.

        Args:
            rows: of the client; their number is taken to be public.
            rounds: over which an epsilon is spread.
        """
        if self.privacy is None:
            return SampledGaussian(1.0, 0.0, self.epochs * -(-rows // self.batch_size))
        promise = replace(self.privacy, objective=Standard())  # which costs nothing, and need not be hashable
        whole = _mechanism(promise, Fit(epochs=rounds * self.epochs, batch_size=self.batch_size), rows)
        return SampledGaussian(whole.q, whole.sigma, whole.steps // rounds)

    def _stepping(
        self, model: nn.Module, mechanism: SampledGaussian, generator: torch.Generator
    ) -> AbstractContextManager[Step]:
        if self.privacy is None:
            return nullcontext(plain_step)
        return self.privacy.private_step(model, mechanism.sigma, self.batch_size, generator)


@lru_cache(maxsize=1024)
def _mechanism(privacy: DPSGD, fit: Fit, rows: int) -> SampledGaussian:
    """`DPSGD.mechanism`, whose search for the noise takes a second, once for all rounds."""
    return privacy.mechanism(fit, rows)
