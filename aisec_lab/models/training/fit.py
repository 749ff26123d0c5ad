"""The one training loop."""

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.optim import SGD, AdamW, Optimizer
from torch.optim.lr_scheduler import ConstantLR, LRScheduler, OneCycleLR
from tqdm import tqdm

from aisec_lab.data import Dataset
from aisec_lab.models.contexts import in_training, keeps_statistics, trainable
from aisec_lab.models.layers import refuse_opaque
from aisec_lab.models.passes import PassCounter, logits_of
from aisec_lab.models.training.recipe import TrainingJob, TrainingRecipe
from aisec_lab.models.training.state import TrainingState, content_of

PROGRESS_ROWS = 1000  # training rows whose accuracy the progress line shows


class Objective(Protocol):
    """What training minimises."""

    def __call__(self, model: nn.Module, x: Tensor, y: Tensor, *, generator: torch.Generator) -> Tensor:
        """Losses (N,) of inputs (N, *input) in [0, 1] with classes (N,)."""
        ...


class Losses:
    """The losses of a batch, computed afresh at each call, so that a step may ask for them twice or in parts.

    Args:
        objective: what they are.
        model: the model in training mode.
        x, y: the batch, (N, *input) and (N,); it may be empty.
        generator: source of all that the objective draws.
    """

    def __init__(self, objective: Objective, model: nn.Module, x: Tensor, y: Tensor, generator: torch.Generator):
        self.objective, self.model, self.x, self.y, self.generator = objective, model, x, y, generator

    def __len__(self) -> int:
        return len(self.x)

    def __call__(self, rows: slice | Tensor = slice(None)) -> Tensor:
        """Losses (n,) of those rows of the batch, with their graph; a slice, or their numbers (n,)."""
        return self.objective(self.model, self.x[rows], self.y[rows], generator=self.generator)


Step = Callable[[nn.Module, Optimizer, Losses], Tensor]
Sampler = Callable[[int, int, torch.Generator], Sequence[Tensor]]


def shuffled(rows: int, batch_size: int, generator: torch.Generator) -> Sequence[Tensor]:
    """The batches of an epoch, indices of rows: every row once, in a random order; the last one may be smaller."""
    return torch.randperm(rows, generator=generator).split(batch_size)


class Callback(Protocol):
    """What looks at the model after each epoch, and may end the training."""

    def __call__(self, model: nn.Module, dataset: Dataset) -> dict[str, float]:
        """Figures for the epoch's record."""
        ...

    def should_stop(self, history: list[dict[str, float]]) -> bool:
        """Whether the last epoch of the records has to be undone and the training ends."""
        ...


def plain_step(model: nn.Module, optimizer: Optimizer, losses: Losses) -> Tensor:
    """One step of the optimizer on the mean loss.

    Args:
        model: the model in training mode.
        optimizer: over the model's parameters.
        losses: computes the batch's losses (N,) afresh at each call, so that other steps may call it twice.

    Returns:
        The losses (N,) before the step, detached.
    """
    optimizer.zero_grad(set_to_none=True)
    batch = losses()
    batch.mean().backward()
    optimizer.step()
    return batch.detach()


@dataclass(frozen=True)
class Fit:
    """Minimise an objective with AdamW on a one-cycle schedule (Loshchilov & Hutter, 2019; Smith & Topin, 2019).

    Or, where `momentum` is given, with SGD at a constant rate, the recipe of most papers on private training.

    Args of the call:
        model: classifier; trained in place, left in evaluation mode. Batch norms whose weights are frozen keep their
            statistics.
        dataset: training rows.
        objective: losses (N,) of a batch, or a course.
        generator: source of the order of rows and of all that the objective draws.
        step: how losses become an update; `plain_step` unless privacy or a defense asks for another.
        batches: draws the batches of an epoch; `shuffled` unless privacy asks for another.
        probe: looks at the model after each epoch; where it finds the epoch spoiled, training ends with the weights
            from before that epoch; where its figures have a `stopped` that is not 0, with those after it. None by
            default.
        resume: a file that is rewritten after each epoch, and from which an interrupted run goes on to
            the same bits; none by default.

    Returns:
        One record an epoch: `epoch`, mean `loss`, `accuracy` on a sample of the training set where it has classes, and
        what the objective and the probe cost, `forward_passes` and `backward_passes` of one example; and what the probe
        found. A spoiled epoch has its record too, the last one.

    Raises:
        FloatingPointError: the loss is not finite any more.
        ValueError: all weights are frozen; a batch of one row before a batch norm; the file to resume from belongs to
            another run; a step, batches or a probe beside a course.
    """

    epochs: int = 20
    batch_size: int = 64
    learning_rate: float = 0.003  # the peak of the cycle
    weight_decay: float = 0.0005
    momentum: float | None = None  # none: AdamW on its cycle

    def __post_init__(self) -> None:
        if self.epochs < 1 or self.batch_size < 1 or not self.learning_rate > 0 or not self.weight_decay >= 0:
            raise ValueError(
                f"epochs, batch_size and learning_rate must be positive, weight_decay not negative: {self}"
            )

    def __call__(
        self,
        model: nn.Module,
        dataset: Dataset,
        objective: Objective | TrainingRecipe,
        *,
        generator: torch.Generator,
        step: Step = plain_step,
        batches: Sampler = shuffled,
        probe: Callback | None = None,
        resume: str | os.PathLike[str] | None = None,
    ) -> list[dict[str, float]]:
        if isinstance(objective, TrainingRecipe):
            if step is not plain_step or batches is not shuffled or probe is not None:
                raise ValueError(
                    f"{type(objective).__name__} brings its own step, batches and probe: give Fit no other"
                )
            return objective.run(TrainingJob(self, model, dataset, generator, resume))
        self._check(model, len(dataset), batches)
        device = next(model.parameters()).device
        steps = self.steps_an_epoch(len(dataset))
        optimizer, schedule = self.descent(model, self.epochs * steps)
        content = "" if resume is None else content_of(dataset.x, dataset.y)
        identity = f"{self} {objective} {dataset.name} {len(dataset)} {content}"
        run = TrainingState(model, optimizer, schedule, generator, identity=identity)
        if resume is not None and Path(resume).exists():
            run.restore(Path(resume))
        shown = dataset.sample(min(PROGRESS_ROWS, len(dataset)), seed=0) if dataset.classes else None

        done, total = len(run.history) * steps, self.epochs * steps
        with tqdm(total=total, mininterval=0.5, initial=done, unit="batch", desc="fit") as progress:
            for epoch in range(len(run.history), self.epochs):
                if run.history and run.history[-1].get("stopped"):
                    break
                counted = PassCounter(
                    in_training(model), 1 if dataset.y.is_floating_point() else int(dataset.y.max()) + 1
                )
                before = {name: value.clone() for name, value in model.state_dict().items()} if probe else {}
                losses = []
                for rows in batches(len(dataset), self.batch_size, generator):
                    x, y = dataset.x[rows].to(device), dataset.y[rows].to(device)
                    batch = step(model, optimizer, Losses(objective, counted, x, y, generator))
                    if not torch.isfinite(batch).all():
                        raise FloatingPointError(
                            f"the loss became {batch.mean().item()} in epoch {epoch}: "
                            f"lower fit.learning_rate (now {self.learning_rate})"
                        )
                    schedule.step()
                    losses.append(batch.cpu())
                    progress.update()
                means = {"loss": torch.cat(losses).mean().item()}
                if shown is not None:
                    means["accuracy"] = (logits_of(model, shown.x).argmax(1) == shown.y).float().mean().item()
                seen = probe(counted, dataset) if probe else {}
                passes = {"forward_passes": counted.forward_passes, "backward_passes": counted.backward_passes}
                run.history.append({"epoch": epoch} | means | passes | seen)
                progress.set_postfix({name: f"{value:.3f}" for name, value in means.items()})
                if probe and probe.should_stop(run.history):
                    model.load_state_dict(before)
                    break
                if resume is not None:
                    run.save(Path(resume))
        model.eval()
        return run.history

    def _check(self, model: nn.Module, rows: int, batches: Sampler) -> None:
        refuse_opaque(model)
        trainable(model)
        if batches is shuffled and (self.batch_size == 1 or rows % self.batch_size == 1):
            for name, layer in model.named_modules():
                if isinstance(layer, _BatchNorm) and not keeps_statistics(layer):
                    raise ValueError(
                        f"{rows} rows in batches of {self.batch_size} leave one row alone, which {name or 'the model'} "
                        f"({type(layer).__name__}) cannot normalise: choose another batch_size"
                    )

    def steps_an_epoch(self, rows: int) -> int:
        """How many updates an epoch over so many rows makes."""
        return -(-rows // self.batch_size)

    def descent(self, model: nn.Module, total: int) -> tuple[Optimizer, LRScheduler]:
        """The optimizer of a model's weights, and the schedule of its `total` steps."""
        weights, rate, decay = model.parameters(), self.learning_rate, self.weight_decay
        if self.momentum is None:
            adam = AdamW(weights, lr=rate, weight_decay=decay)
            return adam, OneCycleLR(adam, rate, total_steps=total)
        sgd = SGD(weights, lr=rate, momentum=self.momentum, weight_decay=decay)
        return sgd, ConstantLR(sgd, factor=1)
