"""Training that promises each row a bound on what can be learned of it (DP-SGD)."""

import math
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from aisec_lab.data import Dataset
from aisec_lab.defenses import Standard
from aisec_lab.models import Course, Fit
from aisec_lab.models.fit import Losses, Step
from aisec_lab.privacy.accounting import SampledGaussian, check, noise_multiplier
from aisec_lab.privacy.clipping import Flat, Ghost
from aisec_lab.privacy.gradients import Gradients, layers_of, trained
from aisec_lab.privacy.sampling import normals, poisson, sampling_rate


@dataclass(frozen=True)
class Private(Standard):
    """`Standard` under the name of its course, so that no run goes on from one with other settings."""

    course: "DPSGD"


@dataclass(frozen=True)
class DPSGD(Course):
    """Clip the gradient of each row and add noise to their sum (Abadi et al., 2016, arXiv:1607.00133, algorithm 1).

    Batches are Poisson samples, drawn with the q that `mechanism` states; the gradient is divided by the batch that is
    expected, whatever its size, and an empty batch gets its noise too. The steps on the noisy gradient are `Fit`'s, SGD
    or AdamW. Also a baseline against poisoning, since no row can move the weights far (Hong et al., 2020,
    arXiv:2002.11497).

    What is promised concerns the weights. `Fit`'s record holds the loss and the accuracy on training rows, which are
    computed without noise and are not private: keep it where the rows are.

    Args:
        epsilon: to be kept to with `delta`, by the least noise that does; infinity for clipping alone. Or
        noise_multiplier: the noise's standard deviation in units of the clipping norm; 0 for clipping alone.
        delta: of the promise; below 1 / rows.
        clipping: `Flat`, `PerLayer`, `Adaptive`, or `Ghost`, which is `Flat` in less time and memory.
        physical_batch: how many rows go through the model at a time, to hold memory; all by default.
        release: sampling and noise from the operating system instead of `generator`. Without it the model is a
            simulation: who knows the seed can subtract the noise.

    Args of `follow`, returns: as for `Fit`; the objective is `Standard`.

    Raises:
        ValueError: both or neither of epsilon and noise_multiplier, or a setting out of its range; when called, fewer
            rows than a batch, delta not below 1 / rows, or a model whose layers mix rows or that the clipping does not
            know.
    """

    epsilon: float | None = None
    noise_multiplier: float | None = None
    delta: float = 1e-5
    clipping: Flat = Ghost()
    physical_batch: int | None = None
    release: bool = False

    def __post_init__(self) -> None:
        if (self.epsilon is None) == (self.noise_multiplier is None):
            raise ValueError(
                f"give one of epsilon and noise_multiplier, got {self.epsilon} and {self.noise_multiplier}"
            )
        if self.epsilon is not None and not self.epsilon > 0:
            raise ValueError(f"epsilon must be positive, got {self.epsilon}: 1 to 10 is usual")
        if self.noise_multiplier is not None and not 0 <= self.noise_multiplier < math.inf:
            raise ValueError(f"noise_multiplier must be finite and not negative, got {self.noise_multiplier}")
        if self.physical_batch is not None and self.physical_batch < 1:
            raise ValueError(f"physical_batch must be positive, got {self.physical_batch}")

    def mechanism(self, fit: Fit, rows: int) -> SampledGaussian:
        """What a training by `fit` on so many rows is to an accountant: all of it, with q as it is sampled.

        Raises:
            ValueError: fewer rows than a batch, or delta not below 1 / rows.
        """
        rate, steps = sampling_rate(rows, fit.batch_size), fit.epochs * fit.steps_an_epoch(rows)
        check(math.inf if self.epsilon is None else self.epsilon, self.delta, rows)
        sigma = self.noise_multiplier
        if sigma is None:
            assert self.epsilon is not None
            sigma = 0.0 if math.isinf(self.epsilon) else noise_multiplier(self.epsilon, self.delta, rate, steps)
        return SampledGaussian(rate, sigma, steps)

    def follow(
        self,
        fit: Fit,
        model: nn.Module,
        dataset: Dataset,
        *,
        generator: torch.Generator,
        resume: str | os.PathLike[str] | None,
    ) -> list[dict[str, float]]:
        some = dataset.x[:2].to(next(model.parameters()).device)
        refuse_mixing(model, some)
        with self.clipping.gradients(model.train()) as gradients:
            gradients(lambda: model(some).sum(1))  # a trial, before noise is looked for
        mechanism = self.mechanism(fit, len(dataset))
        chance = None if self.release else generator
        batches = lambda rows, batch_size, _: poisson(rows, batch_size, chance)  # noqa: E731
        with self.stepping(model, mechanism.sigma, fit.batch_size, chance) as step:
            return fit(model, dataset, Private(self), generator=generator, step=step, batches=batches, resume=resume)

    @contextmanager
    def stepping(
        self, model: nn.Module, sigma: float, batch_size: int, generator: torch.Generator | None
    ) -> Iterator[Step]:
        """The step alone, for a loop that samples its own batches.

        Args:
            model: whose steps they are; hooks that the clipping needs are on it until the context is left.
            sigma: noise multiplier of the whole step.
            batch_size: how many rows are expected in a batch; what the sum of their gradients is divided by.
            generator: source of the noise; none for the operating system.

        Yields:
            A `Step` of `Fit`; it takes a batch of any size, an empty one too.
        """
        noise = self.clipping.gradient_noise(sigma, batch_size)
        with self.clipping.gradients(model) as gradients:
            yield partial(self._step, gradients=gradients, noise=noise, expected=batch_size, generator=generator)

    def _step(
        self,
        model: nn.Module,
        optimizer: Optimizer,
        losses: Losses,
        *,
        gradients: Callable[[Callable[[], Tensor]], Gradients],
        noise: float,
        expected: int,
        generator: torch.Generator | None,
    ) -> Tensor:
        weights, layers = list(trained(model).values()), layers_of(model)
        state = optimizer.state["clipping"]  # type: ignore[index]  # here a resumed run finds it again
        bound: float = state.get("bound", self.clipping.max_grad_norm)
        totals = [torch.zeros_like(weight) for weight in weights]
        seen, norms = [torch.zeros(0)], [torch.zeros(len(weights), 0)]
        size = self.physical_batch or max(1, len(losses))
        for start in range(0, len(losses), size):
            part = gradients(partial(losses, slice(start, start + size)))
            factors = self.clipping.factors(part.norms, layers.to(part.norms.device), bound)
            for total, sum_of_rows in zip(totals, part.sums(factors), strict=True):
                total += sum_of_rows
            seen.append(part.losses.cpu())
            norms.append(part.norms.cpu())
        for weight, total in zip(weights, totals, strict=True):
            weight.grad = (total + noise * bound * normals(weight.shape, generator).to(total)) / expected
        state["bound"] = self.clipping.next_bound(bound, torch.cat(norms, 1), expected, generator)
        optimizer.step()
        return torch.cat(seen)


def refuse_mixing(model: nn.Module, x: Tensor) -> None:
    """ValueError where the output for a row depends on others, in or before its batch: no clipping bounds that.

    Args:
        model: in any mode.
        x: a few rows, on the model's device; where they are no numbers with gradients, only layers are looked at.
    """
    if not trained(model):
        raise ValueError("all weights are frozen: there is nothing to train")
    for name, layer in model.named_modules():
        normalises = isinstance(layer, nn.modules.batchnorm._NormBase)
        if normalises and (isinstance(layer, nn.modules.batchnorm._BatchNorm) or layer.track_running_stats):
            raise ValueError(f"{name} ({type(layer).__name__}) mixes the rows of a batch: use GroupNorm")
    if x.is_floating_point():
        x = x.clone().requires_grad_()
        (slopes,) = torch.autograd.grad(model(x)[0].sum(), x, allow_unused=True)
        if slopes is not None and slopes[1:].any():
            raise ValueError(
                f"{type(model).__name__} mixes the rows of a batch: its first output depends on the second row"
            )
