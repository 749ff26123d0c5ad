"""The training loop. Contract: docs/training.md."""

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
    """A training objective: a function that gives each row of a batch a loss."""

    def __call__(self, model: nn.Module, x: Tensor, y: Tensor, *, generator: torch.Generator) -> Tensor:
        """Compute per-sample losses.

        Args:
            model: in training mode.
            x, y: inputs (N, *input) in [0, 1], and their classes (N,), int64, or true values (N,), floats.
            generator: source of the objective's randomness.

        Returns:
            Losses (N,), with their graph.
        """
        ...


class Losses:
    """The losses of a batch, computed anew in each call: a step may compute them twice, or in parts.

    Args:
        objective: computes the losses.
        model: the model in training mode.
        x, y: the batch, (N, *input) and (N,); it may be empty.
        generator: source of the objective's randomness.
    """

    def __init__(self, objective: Objective, model: nn.Module, x: Tensor, y: Tensor, generator: torch.Generator):
        self.objective, self.model, self.x, self.y, self.generator = objective, model, x, y, generator

    def __len__(self) -> int:
        return len(self.x)

    def __call__(self, rows: slice | Tensor = slice(None)) -> Tensor:
        """Compute the losses of rows.

        Args:
            rows: a slice of the batch or indices (n,) in it.

        Returns:
            Losses (n,), with their graph; those of the whole batch by default.
        """
        return self.objective(self.model, self.x[rows], self.y[rows], generator=self.generator)


Step = Callable[[nn.Module, Optimizer, Losses], Tensor]
Sampler = Callable[[int, int, torch.Generator], Sequence[Tensor]]


def shuffled(rows: int, batch_size: int, generator: torch.Generator) -> Sequence[Tensor]:
    """Draw the batches of an epoch: each row once, in random order.

    Args:
        rows: number of rows of the dataset.
        batch_size: of all batches but the last, which may be smaller.
        generator: source of the order.

    Returns:
        Indices (n,), int64, of the rows of each batch.
    """
    return torch.randperm(rows, generator=generator).split(batch_size)


class Callback(Protocol):
    """An object that is called after each epoch, and may end the training (docs/training.md, "Ending early")."""

    def __call__(self, model: nn.Module, dataset: Dataset) -> dict[str, float]:
        """Measure the model after an epoch.

        Args:
            model: in training mode; its passes are counted in the epoch's record.
            dataset: the training rows.

        Returns:
            Entries for the epoch's record; a nonzero `stopped` ends the training after this epoch.
        """
        ...

    def should_stop(self, history: list[dict[str, float]]) -> bool:
        """Decide whether to continue after an epoch.

        Args:
            history: the records of the epochs so far.

        Returns:
            True to undo the last epoch and to end the training.
        """
        ...


def plain_step(model: nn.Module, optimizer: Optimizer, losses: Losses) -> Tensor:
    """One step of the optimizer on the mean loss.

    Args:
        model: the model in training mode.
        optimizer: over the model's parameters.
        losses: computes the losses (N,) of the batch.

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

    With `momentum`, by SGD at a constant rate, as most papers on private training do. Call contract: docs/training.md.

    Args:
        epochs: at least 1.
        batch_size: at least 1.
        learning_rate: positive; with AdamW, the peak of the cycle.
        weight_decay: at least 0.
        momentum: of SGD; None for AdamW.

    Raises:
        ValueError: a field out of its range.
    """

    epochs: int = 20
    batch_size: int = 64
    learning_rate: float = 0.003
    weight_decay: float = 0.0005
    momentum: float | None = None

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
        """The number of steps of an epoch over so many rows."""
        return -(-rows // self.batch_size)

    def descent(self, model: nn.Module, total: int) -> tuple[Optimizer, LRScheduler]:
        """The optimizer of a model's weights, and its learning rate schedule for `total` steps."""
        weights, rate, decay = model.parameters(), self.learning_rate, self.weight_decay
        if self.momentum is None:
            adam = AdamW(weights, lr=rate, weight_decay=decay)
            return adam, OneCycleLR(adam, rate, total_steps=total)
        sgd = SGD(weights, lr=rate, momentum=self.momentum, weight_decay=decay)
        return sgd, ConstantLR(sgd, factor=1)
