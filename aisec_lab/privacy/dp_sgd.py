"""Training that promises each row a bound on what can be learned of it (DP-SGD)."""

import copy
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
from aisec_lab.models import Course, Fit, in_training
from aisec_lab.models.fit import Losses, Step
from aisec_lab.privacy.accounting import SampledGaussian, check_target, noise_multiplier
from aisec_lab.privacy.clipping import Flat, Ghost
from aisec_lab.privacy.gradients import ANY, Gradients, layers_of, trained
from aisec_lab.privacy.mixing import nobodys, refuse_mixing
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

    A row whose gradient is not finite counts as zero, as if it had not been sampled, and `Fit`'s record says of each
    epoch how many did (`dropped_rows`).

    What is promised concerns all that the model's `state_dict` holds: a model that mixes rows, or keeps any, is refused
    (`refuse_mixing`). `Fit`'s record holds the loss, the accuracy and the dropped rows of the training, which have no
    noise and are not private: keep it where the rows are.

    Args:
        epsilon: to be kept to with `delta`, by the least noise that does; infinity for clipping alone. Or
        noise_multiplier: the noise's standard deviation in units of the clipping norm; 0 for clipping alone.
        delta: of the promise; below 1 / rows.
        clipping: `Flat`, `PerLayer`, `Adaptive`; or what gives the sums of `Flat` in another way: `Ghost`, in less time
            and memory, and `RowByRow`, for any model.
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
        check_target(math.inf if self.epsilon is None else self.epsilon, self.delta, rows)
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
        self.check_model(model, dataset.x, fit.batch_size)
        mechanism = self.mechanism(fit, len(dataset))
        chance = None if self.release else generator
        batches = lambda rows, batch_size, _: poisson(rows, batch_size, chance)  # noqa: E731
        dropped, kept = Dropped(), {name: value.clone() for name, value in model.named_buffers()}
        with self.stepping(model, mechanism.sigma, fit.batch_size, chance, dropped) as step:
            watched = partial(_watched, step=step, kept=kept)
            own = {"generator": generator, "step": watched, "batches": batches, "probe": dropped, "resume": resume}
            history = fit(model, dataset, Private(self), **own)  # type: ignore[arg-type]
        _refuse_changes(model, kept)  # in the last look at the rows
        return history

    def check_model(self, model: nn.Module, x: Tensor, batch_size: int) -> None:
        """Refuse a model whose rows this training could not protect; on copies of it, and on rows that are nobody's.

        Args:
            model: in any mode; nothing of it is changed.
            x: rows of the kind that it is trained on; their shape, type and range are used.
            batch_size: of the training.

        Raises:
            ValueError: what `refuse_mixing` says, or a layer of which the clipping does not know the rows' gradients.
        """
        rows = nobodys(x.to(next(model.parameters()).device), 2)
        refuse_mixing(model, rows, min(batch_size, self.physical_batch or batch_size))
        model, part = copy.deepcopy(model), rows[: self.clipping.at_once]
        try:
            with self.clipping.gradients(in_training(model)) as gradients:
                gradients(lambda: model(part).flatten(1).sum(1))
        except ValueError:
            raise
        except Exception as error:  # Opacus's and torch's own, of any kind
            kind, instead = type(self.clipping).__name__, "" if self.clipping.at_once else f": {ANY}"
            raise ValueError(f"clipping {kind} cannot take {type(model).__name__} ({error}){instead}") from error

    @contextmanager
    def stepping(
        self,
        model: nn.Module,
        sigma: float,
        batch_size: int,
        generator: torch.Generator | None,
        dropped: "Dropped | None" = None,
    ) -> Iterator[Step]:
        """The step alone, for a loop that samples its own batches.

        Args:
            model: whose steps they are; hooks that the clipping needs are on it until the context is left.
            sigma: noise multiplier of the whole step.
            batch_size: how many rows are expected in a batch; what the sum of their gradients is divided by.
            generator: source of the noise; none for the operating system.
            dropped: counts the rows whose gradient is not finite.

        Yields:
            A `Step` of `Fit`; it takes a batch of any size, an empty one too, and returns the losses of the rows that
            counted.
        """
        noise, dropped = self.clipping.gradient_noise(sigma, batch_size), dropped or Dropped()
        with self.clipping.gradients(model) as gradients:
            finite = partial(_of_finite, gradients=gradients, dropped=dropped)
            yield partial(self._step, gradients=finite, noise=noise, expected=batch_size, generator=generator)

    def _step(
        self,
        model: nn.Module,
        optimizer: Optimizer,
        losses: Losses,
        *,
        gradients: Callable[[Losses, Tensor], Gradients],
        noise: float,
        expected: int,
        generator: torch.Generator | None,
    ) -> Tensor:
        weights, layers = list(trained(model).values()), layers_of(model)
        state = optimizer.state["clipping"]  # type: ignore[index]  # here a resumed run finds it again
        bound: float = state.get("bound", self.clipping.max_grad_norm)
        totals = [torch.zeros_like(weight) for weight in weights]
        seen, norms = [torch.zeros(0)], [torch.zeros(len(weights), 0)]
        size = self.clipping.at_once or self.physical_batch or max(1, len(losses))
        for rows in torch.arange(len(losses)).split(size) if len(losses) else ():
            part = gradients(losses, rows)
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


class Dropped:
    """Counts the rows whose gradient was not finite, epoch by epoch: a `Probe`."""

    def __init__(self) -> None:
        self.rows = 0

    def __call__(self, model: nn.Module, dataset: Dataset) -> dict[str, float]:
        """How many there were since the last call."""
        found, self.rows = self.rows, 0
        return {"dropped_rows": found}

    def spoiled(self, history: list[dict[str, float]]) -> bool:
        """No epoch is."""
        return False


def _of_finite(
    losses: Losses, rows: Tensor, *, gradients: Callable[[Callable[[], Tensor]], Gradients], dropped: Dropped
) -> Gradients:
    """The gradients of those of the rows that have finite ones; the others are left out of the pass."""
    while True:
        found = gradients(partial(losses, rows))
        finite = (found.norms.isfinite().all(0) & found.losses.isfinite()).to(rows.device)
        if finite.all():
            return found
        dropped.rows += int((~finite).sum())
        rows = rows[finite]


def _watched(model: nn.Module, optimizer: Optimizer, losses: Losses, *, step: Step, kept: dict[str, Tensor]) -> Tensor:
    """A step after which all buffers are as they were."""
    seen = step(model, optimizer, losses)
    _refuse_changes(model, kept)
    return seen


def _refuse_changes(model: nn.Module, kept: dict[str, Tensor]) -> None:
    """ValueError where a buffer is not as it was kept; it is then put back."""
    now = dict(model.named_buffers())
    changed = [name for name, value in now.items() if name not in kept or not torch.equal(value, kept[name])]
    for name in changed:
        place, _, leaf = name.rpartition(".")
        buffers = model.get_submodule(place)._buffers
        if name in kept:
            buffers[leaf] = kept[name]
        else:
            del buffers[leaf]
    if changed:
        raise ValueError(
            f"the buffer {changed[0]} changed in a step, past the noise, and is as it was again: compute it from the "
            "weights alone"
        )
