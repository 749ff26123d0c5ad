"""Training of a client."""

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
class ClientUpdate:
    """Some epochs of SGD on a client's own rows (McMahan et al., 2017, arXiv:1602.05629, ClientUpdate).

    Args:
        epochs: in each round, at least 1.
        batch_size: at least 1; a client with fewer rows uses all of them, unless it trains with `privacy`.
        learning_rate: of SGD without momentum, positive.
        proximal: mu of FedProx, the weight of the pull to the server's weights, at least 0 (Li et al., 2020,
            arXiv:1812.06127, eq. 2); 0 is FedAvg. It does not depend on rows, so it costs no privacy.
        privacy: DP-SGD for each row of a client, against anyone who sees all its updates. An epsilon is for all rounds
            together. None: no guarantee.

    Raises:
        ValueError: a field out of its range; `privacy` with `stop` or `release`.
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
        """Train a copy of the model.

        Args:
            model: with the server's weights; it is not changed.
            dataset: the client's rows.
            rounds: number of all rounds, over which an epsilon is spread.
            generator: source of batches and noise.

        Returns:
            The update (P,): weights after training minus weights before, in the order of `model.parameters()`.

        Raises:
            ValueError: what `check_model` or `DPSGD.mechanism` refuses, such as fewer rows than a batch.
            FloatingPointError: the loss is not finite.
        """
        self.check_model(model, dataset)
        return self.update(model, dataset, rounds=rounds, generator=generator)

    def check_model(self, model: nn.Module, dataset: Dataset) -> None:
        """Refuse a model that mixes or stores rows (`check_per_sample`), or that `privacy` does not support.

        Args:
            model: in any mode; it is not changed.
            dataset: rows of the kind that it is trained on.

        Raises:
            ValueError: such a model.
        """
        if self.privacy is not None:
            self.privacy.check_model(model, dataset, self.batch_size)
        else:
            check_per_sample(model, dummy_inputs(dataset.x, 2), self.batch_size)

    def update(self, model: nn.Module, dataset: Dataset, *, rounds: int, generator: torch.Generator) -> Tensor:
        """What a call does, for a model that passed `check_model`; the same arguments and result."""
        model = in_training(copied(model))
        sent = [weight.detach().clone() for weight in model.parameters()]
        optimizer = torch.optim.SGD(model.parameters(), lr=self.learning_rate)
        draw, objective = (shuffled, Standard()) if self.privacy is None else (poisson_batches, self.privacy.objective)
        with self._step(model, self.mechanism(len(dataset), rounds), generator) as step:
            for _ in range(self.epochs):
                for rows in draw(len(dataset), self.batch_size, generator):
                    apart = [weight.detach() - was for weight, was in zip(model.parameters(), sent, strict=True)]
                    losses = Losses(objective, model, dataset.x[rows], dataset.y[rows], generator)
                    if not torch.isfinite(step(model, optimizer, losses)).all():
                        raise FloatingPointError(
                            f"a client's loss is not finite: lower learning_rate (now {self.learning_rate})"
                        )
                    with torch.no_grad():  # the pull does not depend on rows, so it need not be clipped
                        for weight, far in zip(model.parameters(), apart, strict=True):
                            weight.sub_(self.learning_rate * self.proximal * far)
        return parameters_to_vector([new - old for new, old in zip(model.parameters(), sent, strict=True)]).detach()

    def mechanism(self, rows: int, rounds: int) -> SampledGaussian:
        """The mechanism of one round on the rows of a client; without `privacy` it has q = 1 and no noise.

        Args:
            rows: number of the client's rows, which is public.
            rounds: number of all rounds, over which an epsilon is spread.

        Returns:
            Sampling rate, noise multiplier and steps.
        """
        if self.privacy is None:
            return SampledGaussian(1.0, 0.0, self.epochs * -(-rows // self.batch_size))
        hashable = replace(
            self.privacy, objective=Standard()
        )  # the objective does not matter here, and may not be hashable
        whole = _mechanism(hashable, Fit(epochs=rounds * self.epochs, batch_size=self.batch_size), rows)
        return SampledGaussian(whole.q, whole.sigma, whole.steps // rounds)

    def _step(
        self, model: nn.Module, mechanism: SampledGaussian, generator: torch.Generator
    ) -> AbstractContextManager[Step]:
        if self.privacy is None:
            return nullcontext(plain_step)
        return self.privacy.private_step(model, mechanism.sigma, self.batch_size, generator)


@lru_cache(maxsize=1024)
def _mechanism(privacy: DPSGD, fit: Fit, rows: int) -> SampledGaussian:
    """`DPSGD.mechanism`, cached: the search for the noise takes a second."""
    return privacy.mechanism(fit, rows)
