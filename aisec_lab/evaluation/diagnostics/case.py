"""What is diagnosed: a model, the rows that it gets right, and the attacks whose worst case is the claim."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn

from aisec_lab.attacks import Untargeted
from aisec_lab.attacks.evasion.goals import Goal
from aisec_lab.evaluation.diagnostics.watched import Watched
from aisec_lab.evaluation.robustness import FRESH, BallAttack
from aisec_lab.models import seeded


@dataclass
class Case:
    """A claim that some rows stand.

    Args:
        model: the classifier as it is used; its answers are the score.
        surface: the classifier that the attacks see: `model`, or what makes it attackable (`EOT`, `BPDA`).
        x, y: rows (N, *input) that `model` gets right, and their classes (N,).
        white: attacks with gradients, over one ball.
        free: an attack without gradients, over the same ball.
        goal: what counts as an attacker's success on `model`.
        seed: of every run.
    """

    model: nn.Module
    surface: nn.Module
    x: Tensor
    y: Tensor
    white: Sequence[BallAttack]
    free: BallAttack
    goal: Goal
    seed: int

    @cached_property
    def watched(self) -> tuple[list[tuple[Tensor, Watched]], Tensor]:
        """The rows that each attack of the claim was given, with what it saw of them; and all that they broke, (N,)."""
        watching: list[tuple[Tensor, Watched]] = []

        def watch(attack: BallAttack, rows: Tensor) -> nn.Module:
            goal = getattr(attack, "goal", Untargeted())
            seen = Watched(self.surface, self.x[rows], self.y[rows], attack.ball, goal)
            watching.append((rows, seen))
            return seen

        return watching, self._broken(self.white, self.seed, watch)

    @property
    def broken(self) -> Tensor:
        """Rows that the claim's attacks break: (N,), bool."""
        return self.watched[1]

    def broken_with(self, *, stretch: int = 1, eps: float | None = None, seed: int | None = None) -> Tensor:
        """Rows that the same attacks break with other settings: (N,), bool.

        Args:
            stretch: factor on their steps.
            eps: budget, in place of their own.
            seed: in place of the case's.
        """
        changed = []
        for attack in self.white:
            steps: dict[str, Any] = {"steps": stretch * attack.steps} if hasattr(attack, "steps") else {}
            ball = attack.ball if eps is None else replace(attack.ball, eps=eps)
            changed.append(replace(attack, ball=ball, **steps))  # type: ignore[type-var]
        return self.broken_by(changed, seed)

    def broken_by(self, attacks: Sequence[BallAttack], seed: int | None = None) -> Tensor:
        """Rows that other attacks break on the surface: (N,), bool; `seed` in place of the case's."""
        return self._broken(attacks, self.seed if seed is None else seed, lambda attack, rows: self.surface)

    @cached_property
    def broken_freely(self) -> Tensor:
        """Rows that the attack without gradients breaks, on the model as it is used: (N,), bool."""
        return self._broken([self.free], self.seed, lambda attack, rows: self.model)

    def logits(self, model: nn.Module, draw: int) -> Tensor:
        """Answers (N, K) on the clean rows; a random model's own, for each `draw`."""
        with torch.no_grad(), seeded(model, self.generator(draw)):
            logits: Tensor = model(self.x)
            return logits

    def generator(self, number: int) -> torch.Generator:
        """A new generator on the rows' device."""
        return torch.Generator(self.x.device).manual_seed(number)

    def _broken(
        self,
        attacks: Sequence[BallAttack],
        seed: int,
        seen_by: Callable[[BallAttack, Tensor], nn.Module],
    ) -> Tensor:
        """Rows that any of the attacks breaks, each run on the rows that are left; success is the model's own, anew."""
        broken = torch.zeros(len(self.x), dtype=torch.bool, device=self.x.device)
        for attack in attacks:
            rows = (~broken).nonzero().squeeze(1)
            x, y = self.x[rows], self.y[rows]
            seen = seen_by(attack, rows)
            with seeded(seen, self.generator(seed)):
                x_adv = attack(seen, x, y, generator=self.generator(seed))
            with torch.no_grad(), seeded(self.model, self.generator(FRESH)):
                broken[rows] = self.goal.margin(self.model(x_adv), y) < 0
        return broken
