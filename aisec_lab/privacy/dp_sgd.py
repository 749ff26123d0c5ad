"""DP-SGD: training with differential privacy. Contract: docs/private-training.md."""

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial

import torch
from torch import Tensor, nn

from aisec_lab.data import Dataset
from aisec_lab.defenses import Standard
from aisec_lab.models import Fit, Objective, TrainingJob, TrainingRecipe
from aisec_lab.models.training.fit import Step
from aisec_lab.privacy.accounting import SampledGaussian, check_target, noise_multiplier
from aisec_lab.privacy.clipping import FlatClipping, GhostClipping
from aisec_lab.privacy.dp_step import DPStep
from aisec_lab.privacy.monitor import Stop, TrainingMonitor, checked_step, finite_gradients, refuse_changed_buffers
from aisec_lab.privacy.sampling import poisson_batches, sampling_rate
from aisec_lab.privacy.validation import check_private, refuse_autocast


@dataclass(frozen=True)
class PrivateObjective:
    """The objective of a recipe, named by the whole recipe: a run is not resumed with other privacy settings.

    Args:
        recipe: the private training.
    """

    recipe: "DPSGD"

    def __call__(self, model: nn.Module, x: Tensor, y: Tensor, *, generator: torch.Generator) -> Tensor:
        """Per-sample losses (N,) of inputs (N, *input) and targets (N, *target)."""
        return self.recipe.objective(model, x, y, generator=generator)


@dataclass(frozen=True)
class DPSGD(TrainingRecipe):
    """Clip per-sample gradients and add noise to their sum (Abadi et al., 2016, arXiv:1607.00133, algorithm 1).

    Batches are Poisson samples. The noisy sum is divided by the expected batch size, and `Fit`'s optimizer (SGD or
    AdamW) steps on it. docs/private-training.md says what is guaranteed, which models are supported and what the
    records reveal. DP-SGD is also a baseline against poisoning (Hong et al., 2020, arXiv:2002.11497).

    Args:
        epsilon: target, positive; the noise is the least that reaches it, and infinity is clipping without noise. Give
            either this or `noise_multiplier`.
        noise_multiplier: standard deviation of the noise over the clipping norm, at least 0.
        delta: in (0, 1 / rows).
        clipping: `FlatClipping`, `PerLayerClipping` or `AdaptiveClipping`; or `GhostClipping` (less time and memory)
            and `RowByRowClipping` (any model), which clip as `FlatClipping` does.
        physical_batch: rows that go through the model at a time, to save memory; None for the whole batch.
        release: whether sampling and noise come from the operating system. If not, the model is a simulation: anyone
            who knows the seed can subtract the noise.
        objective: per-sample losses (N,), each from its own row alone.
        stop: called after each epoch with the model in evaluation mode; a true result ends the training. Its
            decisions are public, so let it use other rows than those that are trained on.

    Returns:
        `run` returns the records of `Fit`, with `dropped_rows`; they have no noise and are not private. If training is
        interrupted, the model keeps the weights from after the last whole epoch.

    Raises:
        ValueError: both or neither of epsilon and noise_multiplier, or a setting out of its range; in `run`, fewer rows
            than a batch, delta not below 1 / rows, or a model that `check_private` refuses.
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
        """The mechanism of a whole training, for an accountant: all its steps.

        Args:
            fit: epochs and expected batch size of the training.
            rows: number of training rows.

        Returns:
            Sampling rate, noise multiplier and steps.

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
        source = None if self.release else job.generator
        batches = lambda rows, batch_size, _: poisson_batches(rows, batch_size, source)  # noqa: E731
        monitor, buffers = TrainingMonitor(self.stop), {name: value.clone() for name, value in model.named_buffers()}
        with (
            monitor.keep_whole_epochs(model),
            self.private_step(model, mechanism.sigma, fit.batch_size, source, monitor) as step,
        ):
            checked = partial(checked_step, step=step, buffers=buffers)
            history = job.train(PrivateObjective(self), step=checked, batches=batches, probe=monitor)
        refuse_changed_buffers(model, buffers)  # the last evaluation may have changed them
        return history

    def spent(self, fit: Fit, rows: int, history: Sequence[object]) -> SampledGaussian:
        """The mechanism that a training spent, which may have stopped before its last epoch.

        The noise is that of the planned epochs, so stopping early spends less. If another call trains on the same rows,
        both spend: pass both mechanisms to `epsilon`.

        Args:
            fit: as the training was started.
            rows: number of training rows.
            history: the training's records, one per epoch; of a resumed training, those of all epochs.

        Returns:
            Sampling rate, noise multiplier and the steps that were made.

        Raises:
            ValueError: more records than `fit` has epochs; what `mechanism` refuses.
        """
        if len(history) > fit.epochs:
            raise ValueError(f"{len(history)} records of a training of {fit.epochs} epochs: give each its own `fit`")
        return replace(self.mechanism(fit, rows), steps=len(history) * fit.steps_an_epoch(rows))

    def check_model(self, model: nn.Module, dataset: Dataset, batch_size: int) -> None:
        """Refuse a model that this training could not protect (`check_private`).

        Args:
            model: in any mode; it is not changed.
            dataset: rows of the kind that it is trained on; only their shape, dtype and range are used.
            batch_size: expected batch size of the training.

        Raises:
            ValueError: what `check_private` refuses.
        """
        together = min(batch_size, self.physical_batch or batch_size)
        check_private(model, dataset, self.objective, self.clipping, together)

    @contextmanager
    def private_step(
        self,
        model: nn.Module,
        noise_multiplier: float,
        batch_size: int,
        generator: torch.Generator | None,
        monitor: TrainingMonitor | None = None,
    ) -> Iterator[Step]:
        """The private step without the sampling, for a training loop that samples its own batches.

        Args:
            model: the model that is trained; until the context is left, it has the hooks that the clipping needs.
            noise_multiplier: of the whole step.
            batch_size: expected rows of a batch, by which the summed gradient is divided.
            generator: source of the noise; None for the operating system.
            monitor: counts the rows whose gradient is not finite; None for no count.

        Yields:
            A `DPStep`.

        Raises:
            ValueError: inside `torch.autocast`, or noise that `AdaptiveClipping` cannot reach.
        """
        refuse_autocast(model)
        noise = self.clipping.gradient_noise_multiplier(noise_multiplier, batch_size)
        with self.clipping.gradients(model) as gradients:
            finite = partial(finite_gradients, model=model, gradients=gradients, monitor=monitor or TrainingMonitor())
            yield DPStep(finite, self.clipping, noise, batch_size, self.physical_batch, generator)
