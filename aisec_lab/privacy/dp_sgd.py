"""Training that promises each row a bound on what can be learned of it (DP-SGD)."""

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from aisec_lab.data import Dataset
from aisec_lab.defenses import Standard
from aisec_lab.models import Fit, Objective, TrainingJob, TrainingRecipe
from aisec_lab.models.training.fit import Losses, Step
from aisec_lab.privacy.accounting import SampledGaussian, check_target, noise_multiplier
from aisec_lab.privacy.clipping import FlatClipping, GhostClipping
from aisec_lab.privacy.gradients import PerSampleGradients, layers_of, trained
from aisec_lab.privacy.sampling import normals, poisson, sampling_rate
from aisec_lab.privacy.validation import check_private, refuse_autocast
from aisec_lab.privacy.watch import Stop, Tally, of_finite, refuse_changed_buffers, watched


@dataclass(frozen=True)
class PrivateRecipe:
    """A course's objective under the name of the course, so that no run goes on from one with other settings."""

    course: "DPSGD"

    def __call__(self, model: nn.Module, x: Tensor, y: Tensor, *, generator: torch.Generator) -> Tensor:
        """Its losses (N,)."""
        return self.course.objective(model, x, y, generator=generator)


@dataclass(frozen=True)
class DPSGD(TrainingRecipe):
    """Clip the gradient of each row and add noise to their sum (Abadi et al., 2016, arXiv:1607.00133, algorithm 1).

    Batches are Poisson samples, drawn with the q that `mechanism` states; the gradient is divided by the batch that is
    expected, whatever its size, and an empty batch gets its noise too. The steps on the noisy gradient are `Fit`'s, SGD
    or AdamW. Also a baseline against poisoning, since no row can move the weights far (Hong et al., 2020,
    arXiv:2002.11497).

    A row whose gradient is not finite counts as zero, as if it had not been sampled, and `Fit`'s record says of each
    epoch how many did (`dropped_rows`).

    What is promised concerns all that the model's `state_dict` holds: a model that mixes rows, or keeps any, is refused
    (`check_private`). `Fit`'s record holds the loss, the accuracy and the dropped rows of the training, which have no
    noise and are not private: keep it where the rows are.

    Args:
        epsilon: to be kept to with `delta`, by the least noise that does; infinity for clipping alone. Or
        noise_multiplier: the noise's standard deviation in units of the clipping norm; 0 for clipping alone.
        delta: of the promise; below 1 / rows.
        clipping: `FlatClipping`, `PerLayerClipping`, `AdaptiveClipping`; or what gives the sums of `FlatClipping` in
            another way: `GhostClipping`, in less time and memory, and `RowByRowClipping`, for any model.
        physical_batch: how many rows go through the model at a time, to hold memory; all by default.
        release: sampling and noise from the operating system instead of `generator`. Without it the model is a
            simulation: who knows the seed can subtract the noise.
        objective: one loss for each row, from that row alone, such as a squared error or the sum over labels.
        stop: asked after each epoch with the model, in evaluation mode; true ends the training. What it decides is
            public: let it look at other rows than those that are trained on.

    An interrupted training leaves the model as the last whole epoch left it.

    Args of `run`, returns: as for `Fit`; `spent` says what the records' epochs come to.

    Raises:
        ValueError: both or neither of epsilon and noise_multiplier, or a setting out of its range; when called, fewer
            rows than a batch, delta not below 1 / rows, or what `check_private` refuses.
    """

    epsilon: float | None = None
    noise_multiplier: float | None = None
    delta: float = 1e-5
    clipping: FlatClipping = GhostClipping()
    physical_batch: int | None = None
    release: bool = False
    objective: Objective = Standard()
    stop: Stop | None = None

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

    def run(self, job: TrainingJob) -> list[dict[str, float]]:
        fit, model = job.fit, job.model
        self.check_model(model, job.dataset, fit.batch_size)
        if job.resume is not None and " at 0x" in repr(self):
            raise ValueError(
                f"an interrupted training knows its settings again by their repr, got {self}: make the objective and "
                "stop frozen dataclasses with a __call__"
            )
        mechanism = self.mechanism(fit, len(job.dataset))
        chance = None if self.release else job.generator
        batches = lambda rows, batch_size, _: poisson(rows, batch_size, chance)  # noqa: E731
        tally, kept = Tally(self.stop), {name: value.clone() for name, value in model.named_buffers()}
        with tally.whole_epochs(model), self.stepping(model, mechanism.sigma, fit.batch_size, chance, tally) as step:
            same = partial(watched, step=step, kept=kept)
            history = job.train(PrivateRecipe(self), step=same, batches=batches, probe=tally)
        refuse_changed_buffers(model, kept)  # in the last look at the rows
        return history

    def spent(self, fit: Fit, rows: int, history: Sequence[object]) -> SampledGaussian:
        """What a training was to an accountant that ended before its last epoch, or did not.

        The noise is that of the whole plan, so that stopping early spends less. A training that goes on with the same
        rows, by another call, spends beside it: `epsilon` takes what each spent.

        Args:
            fit, rows: of the training.
            history: its records, one for each epoch; those of a resumed training, too, are of all its epochs.

        Raises:
            ValueError: more records than `fit` has epochs; what `mechanism` refuses.
        """
        if len(history) > fit.epochs:
            raise ValueError(f"{len(history)} records of a training of {fit.epochs} epochs: give each its own `fit`")
        return replace(self.mechanism(fit, rows), steps=len(history) * fit.steps_an_epoch(rows))

    def check_model(self, model: nn.Module, dataset: Dataset, batch_size: int) -> None:
        """Refuse a model whose rows this training could not protect, as `check_private` says.

        Args:
            model: in any mode; nothing of it is changed.
            dataset: rows of the kind that it is trained on; their shape, type and range are used.
            batch_size: of the training.
        """
        together = min(batch_size, self.physical_batch or batch_size)
        check_private(model, dataset, self.objective, self.clipping, together)

    @contextmanager
    def stepping(
        self,
        model: nn.Module,
        sigma: float,
        batch_size: int,
        generator: torch.Generator | None,
        tally: Tally | None = None,
    ) -> Iterator[Step]:
        """The step alone, for a loop that samples its own batches.

        Args:
            model: whose steps they are; hooks that the clipping needs are on it until the context is left.
            sigma: noise multiplier of the whole step.
            batch_size: how many rows are expected in a batch; what the sum of their gradients is divided by.
            generator: source of the noise; none for the operating system.
            tally: counts the rows whose gradient is not finite.

        Yields:
            A `Step` of `Fit`; it takes a batch of any size, an empty one too, and returns the losses of the rows that
            counted.

        Raises:
            ValueError: inside of `torch.autocast`.
        """
        refuse_autocast(model)
        noise = self.clipping.gradient_noise(sigma, batch_size)
        with self.clipping.gradients(model) as gradients:
            finite = partial(of_finite, model=model, gradients=gradients, tally=tally or Tally())
            yield partial(self._step, gradients=finite, noise=noise, expected=batch_size, generator=generator)

    def _step(
        self,
        model: nn.Module,
        optimizer: Optimizer,
        losses: Losses,
        *,
        gradients: Callable[[Losses, Tensor], PerSampleGradients],
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
