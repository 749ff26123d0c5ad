"""A real private training as an implementation to audit: its noisy sums, read off its weights."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.optimizer import register_optimizer_step_post_hook

from aisec_lab.data import Dataset
from aisec_lab.models import Fit, TrainingRecipe

LARGEST_NORM = 0.5  # of the clipping: a canary's gradient has norm sqrt(1/2) at zero weights, and must stay above it


@dataclass(frozen=True)
class TrainingMechanism:
    """An `Implementation` that runs private training of a linear model and reads the noisy sums off its steps.

    It runs all code of a study: sampling, per-sample gradients, clipping, noise, division and step. Row j is a canary
    with one pixel, which meets two weights of its own. So its gradient is orthogonal to all others and is clipped to
    `norm` exactly, and one training on many canaries is as many independent runs with one canary, if the noise of
    different weights is independent. A canary that is not included is a black row without gradient. The steps are those
    of `fit` on `rows` rows.

    Args:
        recipe: the private training, with flat clipping.
        fit: the training loop, with momentum 0 and weight decay 0, so that each change of the weights is the gradient;
            the learning rate must be so low that the model's outputs stay near zero.
        rows: number of canaries of one training.
        norm: the claimed clipping norm, in (0, 0.5].

    Raises:
        ValueError: another momentum or weight decay, or a norm out of its range.
    """

    recipe: TrainingRecipe
    fit: Fit
    rows: int
    norm: float

    def __post_init__(self) -> None:
        if self.fit.momentum != 0 or self.fit.weight_decay != 0:
            raise ValueError(f"the weights tell each step's gradient at momentum 0 and weight_decay 0 only: {self.fit}")
        if not 0 < self.norm <= LARGEST_NORM:
            raise ValueError(
                f"norm must lie in (0, {LARGEST_NORM}], got {self.norm}: a canary's gradient is not much longer"
            )

    def __call__(self, included: bool, runs: int, *, generator: torch.Generator) -> Tensor:
        """Run as many trainings as the runs need.

        Args:
            included: whether the canaries are in the training set.
            runs: number of independent runs; each training gives `rows` of them.
            generator: source of all randomness.

        Returns:
            The noisy sum of clipped gradients at each step, (runs, steps), float32, projected on the gradient of the
            run's canary and in units of `norm`.
        """
        canaries = torch.eye(self.rows) if included else torch.zeros(self.rows, self.rows)
        dataset = Dataset(canaries, torch.ones(self.rows, dtype=torch.int64), ("out", "in"), "canaries")
        sums = [self._sums(dataset, generator) for _ in range(-(-runs // self.rows))]
        return torch.cat(sums)[:runs]

    def _sums(self, dataset: Dataset, generator: torch.Generator) -> Tensor:
        """The sums of one training, projected on each canary's gradient, (rows, steps), in clipping norms."""
        model = nn.Linear(self.rows, 2, bias=False)
        nn.init.zeros_(model.weight)
        weights = [model.weight.detach().clone()]

        def record(optimizer: Optimizer, *_: object) -> None:
            if any(model.weight is weight for group in optimizer.param_groups for weight in group["params"]):
                weights.append(model.weight.detach().clone())

        handle = register_optimizer_step_post_hook(record)
        try:
            self.fit(model, dataset, self.recipe, generator=generator)
        finally:
            handle.remove()
        steps = torch.stack(weights).diff(dim=0)  # (steps, 2, rows)
        projected = (steps[:, 1] - steps[:, 0]) / 2**0.5  # a canary's gradient is along (1, -1)
        return (projected * self.fit.batch_size / (self.fit.learning_rate * self.norm)).T
