"""Conferrable adversarial examples: they transfer to copies of a model, not to independently trained models."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from aisec_lab.attacks.answers import check_not_probabilities, one_hot_labels
from aisec_lab.attacks.evasion.attack import check
from aisec_lab.attacks.evasion.geometry.balls import Ball, Linf
from aisec_lab.attacks.extraction.surrogate_training import train_surrogate
from aisec_lab.data import Dataset
from aisec_lab.defenses.ownership.fingerprints import Fingerprint, agreement_with, calibrated, draw_rows
from aisec_lab.models import Architecture, Fit, logits_of
from aisec_lab.models.asked import asked


@dataclass(frozen=True)
class Conferrable:
    """Adversarial examples that transfer to copies only (Lukas et al., 2021, arXiv:1912.00888, section 4).

    The owner trains copies of the model, half of them from its probabilities and half from its labels, and holds
    some reference models out. Rows are perturbed until the copies and the model agree on a class that the held-out
    models do not predict. The points of highest conferrability are kept: the share of copies that predict the model's
    class times the share of held-out models that do not. The remaining reference models calibrate the p-value; those
    held out cannot, since the points were chosen against them.

    Copies may agree because of the rows they were trained on. Then a model that was trained on the same rows
    independently is accused too. So give rows that the model was not trained on, or references that were trained on
    the same rows.

    Call contract: docs/ownership.md, "Fingerprints".

    Args:
        architecture: of the copies.
        fit: training of the copies.
        ball: largest perturbation of a row.
        n: points that are kept, at least 1.
        candidates: rows that are perturbed, at least n; the points are chosen from them.
        copies: number of copies, at least 1.
        held_out: number of reference models that shape the points, at least 1: the first ones.
        steps: steps of the search, by Adam.
        learning_rate: of the search, above 0.

    Raises:
        ValueError: a setting out of range, no reference model beyond those held out, fewer rows than `candidates`, or
            a model that answers with probabilities.
    """

    architecture: Architecture
    fit: Fit = Fit()
    ball: Ball = Linf(0.2)
    n: int = 50
    candidates: int = 200
    copies: int = 6
    held_out: int = 10
    steps: int = 200
    learning_rate: float = 0.01

    def __post_init__(self) -> None:
        counts = (self.n, self.copies, self.held_out, self.steps)
        if min(counts) < 1 or self.candidates < self.n or not self.learning_rate > 0:
            raise ValueError(
                f"n, copies, held_out, steps, learning_rate must be positive, candidates at least n: {self}"
            )

    def make(
        self, model: nn.Module, clean: Dataset, references: Sequence[nn.Module], *, generator: torch.Generator
    ) -> Fingerprint:
        """Make the fingerprint; see `Fingerprinting.make`."""
        check(model, clean.x, clean.y)
        if len(references) <= self.held_out:
            raise ValueError(
                f"{self.held_out} reference models shape the points, more must calibrate, got {len(references)}: "
                "train more or lower `held_out`"
            )
        copies, others = self._copies(model, clean, generator), references[: self.held_out]
        x = draw_rows(clean, self.candidates, generator)
        z = self._moved(model, copies, others, x)
        best = conferrability(model, copies, others, z).argsort(descending=True, stable=True)[: self.n]
        return calibrated(agreement_with(model, z[best.to(z.device)]), references[self.held_out :])

    def _copies(self, model: nn.Module, clean: Dataset, generator: torch.Generator) -> list[nn.Module]:
        """Copies of the model as a thief would train them, in turn from probabilities and from labels."""
        with asked(model):
            logits = logits_of(model, clean.x)
        check_not_probabilities(logits)
        soft = logits.softmax(1)
        answers = [one_hot_labels(soft) if number % 2 else soft for number in range(self.copies)]
        return [
            train_surrogate(self.architecture, clean.x, answer, fit=self.fit, generator=generator, name=clean.name)
            for answer in answers
        ]

    def _moved(self, model: nn.Module, copies: Sequence[nn.Module], others: Sequence[nn.Module], x: Tensor) -> Tensor:
        """Rows x (N, *input), perturbed within the ball to where copies and other models differ most."""
        with torch.no_grad():
            clean = mean_probability(others, x)
        delta = torch.zeros_like(x, requires_grad=True)
        descent = torch.optim.Adam([delta], lr=self.learning_rate)
        with asked(model):
            for _ in range(self.steps):
                z = x + delta
                surrogate, reference = mean_probability(copies, z), mean_probability(others, z)
                apart = (surrogate - reference).amax(1)
                losses = (
                    -apart.clamp(min=1e-6).log()
                    + cross_entropy(surrogate, model(z).softmax(1))
                    + cross_entropy(reference, clean)
                )
                (delta.grad,) = torch.autograd.grad(losses.sum(), delta)
                descent.step()
                with torch.no_grad():
                    delta.copy_(self.ball.project(x, delta))
        return (x + delta.detach()).clamp(0, 1)


def mean_probability(models: Sequence[nn.Module], x: Tensor) -> Tensor:
    """The softmax (N, K) of the mean logits of classifiers, with a gradient for x only."""
    logits = []
    for model in models:
        with asked(model):
            logits.append(model(x))
        check_not_probabilities(logits[-1])
    return torch.stack(logits).mean(0).softmax(1)


def cross_entropy(probability: Tensor, target: Tensor) -> Tensor:
    """The cross-entropy (N,) of probabilities (N, K) with target probabilities (N, K)."""
    return -(target * probability.clamp(min=1e-12).log()).sum(1)


def conferrability(model: nn.Module, copies: Sequence[nn.Module], others: Sequence[nn.Module], x: Tensor) -> Tensor:
    """Share of copies that predict the model's class at points (N, *input), times share of others that do not: (N,)."""
    agree = [
        torch.stack([agreement_with(model, x).y == agreement_with(one, x).y for one in group])
        for group in (copies, others)
    ]
    return agree[0].double().mean(0) * (1 - agree[1].double().mean(0))
