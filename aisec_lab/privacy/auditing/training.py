"""A real private training as something to hunt: the noisy sums that its weights give away."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.optimizer import register_optimizer_step_post_hook

from aisec_lab.data import Dataset
from aisec_lab.models import Fit, TrainingRecipe

STEEPEST = 0.5  # half of the least length of a canary's gradient before clipping, which is sqrt(1/2) at weights of zero


@dataclass(frozen=True)
class TrainingMechanism:
    """Many runs of a private training on a linear model, seen step by step: an `Implementation`.

    All code that a study runs is run here: sampling, the rows' gradients, clipping, noise, division, the step. Row j is
    a canary whose one pixel meets two weights of its own, so that its gradient is orthogonal to all others' and is cut
    to `norm` exactly. One training on so many canaries is therefore as many independent runs with a canary, provided
    the noise of two weights is independent. Where the canary is not included, its row is black and has no gradient.

    Args:
        course: the private training, with flat clipping.
        fit: its loop, with momentum 0 and weight decay 0, so that a step of the weights tells the gradient; at so low a
            learning rate that the model stays undecided.
        rows: canaries of one training.
        norm: the clipping norm that is claimed, at most 0.5.

    Args of the call, returns: as for `Implementation`; steps are the epochs' of `fit` on `rows`.

    Raises:
        ValueError: another momentum or weight decay, a norm above 0.5, or one that is not positive.
    """

    course: TrainingRecipe
    fit: Fit
    rows: int
    norm: float

    def __post_init__(self) -> None:
        if self.fit.momentum != 0 or self.fit.weight_decay != 0:
            raise ValueError(f"the weights tell each step's gradient at momentum 0 and weight_decay 0 only: {self.fit}")
        if not 0 < self.norm <= STEEPEST:
            raise ValueError(
                f"norm must lie in (0, {STEEPEST}], got {self.norm}: a canary's gradient is not much longer"
            )

    def __call__(self, included: bool, runs: int, *, generator: torch.Generator) -> Tensor:
        canaries = torch.eye(self.rows) if included else torch.zeros(self.rows, self.rows)
        dataset = Dataset(canaries, torch.ones(self.rows, dtype=torch.int64), ("out", "in"), "canaries")
        found = [self._sums(dataset, generator) for _ in range(-(-runs // self.rows))]
        return torch.cat(found)[:runs]

    def _sums(self, dataset: Dataset, generator: torch.Generator) -> Tensor:
        """The sums of one training along each canary's gradient, (rows, steps), in clipping norms."""
        model = nn.Linear(self.rows, 2, bias=False)
        nn.init.zeros_(model.weight)
        seen = [model.weight.detach().clone()]

        def look(optimizer: Optimizer, *_: object) -> None:
            if any(model.weight is weight for group in optimizer.param_groups for weight in group["params"]):
                seen.append(model.weight.detach().clone())

        handle = register_optimizer_step_post_hook(look)
        try:
            self.fit(model, dataset, self.course, generator=generator)
        finally:
            handle.remove()
        moved = torch.stack(seen).diff(dim=0)  # (steps, 2, rows)
        along = (moved[:, 1] - moved[:, 0]) / 2**0.5  # against a canary's gradient, which is along (1, -1)
        return (along * self.fit.batch_size / (self.fit.learning_rate * self.norm)).T
