"""What is diagnosed: a model, the rows that it classifies correctly, and the attacks whose worst case is the claim."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from aisec_lab.attacks import Ball, Untargeted
from aisec_lab.attacks.evasion.search.goals import Goal
from aisec_lab.evaluation.diagnostics.margin_recorder import MarginRecorder
from aisec_lab.evaluation.predictions import FRESH
from aisec_lab.evaluation.robustness import BallAttack
from aisec_lab.models import seeded
from aisec_lab.models.asked import asked

DRAWS = 16  # predictions for the same input, to measure how random a model is, and for a majority
ALIKE = 1e-4  # logits with a smaller relative difference are equal up to rounding
TINY = 1e-12  # avoids a division by zero


class AttackRun(NamedTuple):
    """An attack, and the classifier that it runs on (`seen`)."""

    attack: BallAttack
    seen: nn.Module


@dataclass
class Claim:
    """A claim that a model is robust on some rows.

    Args:
        model: the classifier as it is used; its predictions decide about success.
        x: inputs (N, *input) that `model` classifies correctly.
        y: their classes (N,).
        claim: gradient-based attacks over one ball, each on `model` or on an `EOT` or `BPDA` model of it.
        black_box: an attack without gradients, over the same ball.
        surrogates: classifiers of the same task, for transfer attacks.
        goal: what counts as a success of the attacker on `model`.
        seed: seed of every run.
    """

    model: nn.Module
    x: Tensor
    y: Tensor
    claim: Sequence[AttackRun]
    black_box: BallAttack
    surrogates: Sequence[nn.Module]
    goal: Goal
    seed: int

    @property
    def ball(self) -> Ball:
        """The threat model."""
        return self.claim[0].attack.ball

    @cached_property
    def recorded(self) -> tuple[list[tuple[Tensor, MarginRecorder]], Tensor]:
        """For each attack of the claim, the rows it ran on and the recorded margins; and all successes, (N,), bool."""
        recorders: list[tuple[Tensor, MarginRecorder]] = []

        def record(run: AttackRun, rows: Tensor) -> nn.Module:
            goal = getattr(run.attack, "goal", Untargeted())
            seen = MarginRecorder(run.seen, self.x[rows], self.y[rows], run.attack.ball, goal)
            recorders.append((rows, seen))
            return seen

        return recorders, self.success_of(self.claim, wrap=record)

    @property
    def success(self) -> Tensor:
        """Rows on which an attack of the claim succeeds: (N,), bool."""
        return self.recorded[1]

    @cached_property
    def success_of_any(self) -> Tensor:
        """Rows on which an attack of the claim, the black-box attack or a transfer attack succeeds: (N,), bool."""
        others = [AttackRun(attack, surrogate) for surrogate in self.surrogates for attack, _ in self.claim]
        return self.success_of([AttackRun(self.black_box, self.model), *others], after=self.success)

    def success_with(
        self, *, steps_factor: int = 1, eps: float | None = None, seed: int | None = None, after: Tensor | None = None
    ) -> Tensor:
        """Rows on which the attacks of the claim succeed with other settings.

        Args:
            steps_factor: factor on their numbers of steps.
            eps: radius, in place of their own.
            seed: in place of the claim's.
            after: rows (N,) that count as successes already and are not attacked.

        Returns:
            Successes (N,), bool.
        """
        changed = []
        for attack, seen in self.claim:
            steps: dict[str, Any] = {"steps": steps_factor * attack.steps} if hasattr(attack, "steps") else {}
            ball = attack.ball if eps is None else replace(attack.ball, eps=eps)
            changed.append(AttackRun(replace(attack, ball=ball, **steps), seen))  # type: ignore[type-var]
        return self.success_of(changed, seed=seed, after=after)

    def success_of(
        self,
        runs: Sequence[AttackRun],
        *,
        seed: int | None = None,
        after: Tensor | None = None,
        wrap: Callable[[AttackRun, Tensor], nn.Module] = lambda run, rows: run.seen,
    ) -> Tensor:
        """Rows on which any of some attacks succeeds, each run on the rows that are left.

        Args:
            runs: the attacks. `model` is queried anew at their points, which decides about success.
            seed: in place of the claim's.
            after: rows (N,) that count as successes already and are not attacked.
            wrap: the model to show to a run on the rows with some indices.

        Returns:
            Successes (N,), bool.
        """
        seed = self.seed if seed is None else seed
        success = torch.zeros_like(self.y, dtype=torch.bool) if after is None else after.clone()
        for run in runs:
            rows = (~success).nonzero().squeeze(1)
            x, y, seen = self.x[rows], self.y[rows], wrap(run, rows)
            with seeded(seen, self.generator(seed)):
                x_adv = run.attack(seen, x, y, generator=self.generator(seed))
            success[rows] = self.is_adversarial(x_adv, y)
        return success

    def is_adversarial(self, z: Tensor, y: Tensor) -> Tensor:
        """Whether the attacker's goal is met on `model`, by a majority of predictions if it is random.

        Args:
            z: points (n, *input).
            y: classes of their rows (n,).

        Returns:
            (n,), bool.
        """
        with asked(self.model), torch.no_grad(), seeded(self.model, self.generator(FRESH)):
            is_adv = [self.goal.margin(self.model(z), y) < 0 for _ in range(DRAWS if self.spread > ALIKE else 1)]
        return torch.stack(is_adv).double().mean(0) > 0.5

    @cached_property
    def spread(self) -> float:
        """How random the model is, see `spread_of`."""
        return self.spread_of(self.model)

    def spread_of(self, model: nn.Module) -> float:
        """Standard deviation of a row's logits over draws, relative to their size: the median over rows."""
        draws = torch.stack([self.logits(model, draw) for draw in range(DRAWS)])  # (DRAWS, N, K)
        size = (draws - draws.mean(2, keepdim=True)).abs().mean((0, 2)).clamp(min=TINY)
        return float((draws.std(0).mean(1) / size).median())

    def logits(self, model: nn.Module, draw: int) -> Tensor:
        """Logits (N, K) on the clean rows; a random model is seeded with `draw`."""
        with torch.no_grad(), seeded(model, self.generator(draw)):
            logits: Tensor = model(self.x)
            return logits

    def generator(self, number: int) -> torch.Generator:
        """A new generator with a seed, on the device of the rows."""
        return torch.Generator(self.x.device).manual_seed(number)
