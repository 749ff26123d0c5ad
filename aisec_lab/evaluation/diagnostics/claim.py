"""What is diagnosed: a model, the rows that it gets right, and the attacks whose worst case is the claim."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from aisec_lab.attacks import Ball, Untargeted
from aisec_lab.attacks.evasion.search.goals import Goal
from aisec_lab.evaluation.diagnostics.margin_recorder import MarginRecorder
from aisec_lab.evaluation.robustness import FRESH, BallAttack
from aisec_lab.models import seeded
from aisec_lab.models.asked import asked

DRAWS = 16  # answers to the same question that show how random a model is, and what it mostly says
ALIKE = 1e-4  # logits that differ by less, relative to their own size, are the same but for rounding
TINY = 1e-12  # in place of a size of zero


class AttackRun(NamedTuple):
    """An attack, and the classifier that it sees."""

    attack: BallAttack
    seen: nn.Module


@dataclass
class Claim:
    """A claim that some rows stand.

    Args:
        model: the classifier as it is used; its answers are the score.
        x, y: rows (N, *input) that `model` gets right, and their classes (N,).
        claim: attacks with gradients, over one ball; each sees `model`, or what makes it attackable (`EOT`, `BPDA`).
        free: an attack without gradients, over the same ball.
        surrogates: classifiers of the same task, whose gradients may serve instead.
        goal: what counts as an attacker's success on `model`.
        seed: of every run.
    """

    model: nn.Module
    x: Tensor
    y: Tensor
    claim: Sequence[AttackRun]
    free: BallAttack
    surrogates: Sequence[nn.Module]
    goal: Goal
    seed: int

    @property
    def ball(self) -> Ball:
        """The threat."""
        return self.claim[0].attack.ball

    @cached_property
    def watched(self) -> tuple[list[tuple[Tensor, MarginRecorder]], Tensor]:
        """The rows that each attack of the claim was given, with what it saw of them; and all that they broke, (N,)."""
        watching: list[tuple[Tensor, MarginRecorder]] = []

        def watch(attempt: AttackRun, rows: Tensor) -> nn.Module:
            goal = getattr(attempt.attack, "goal", Untargeted())
            seen = MarginRecorder(attempt.seen, self.x[rows], self.y[rows], attempt.attack.ball, goal)
            watching.append((rows, seen))
            return seen

        return watching, self.broken_by(self.claim, watch=watch)

    @property
    def broken(self) -> Tensor:
        """Rows that the claim's attacks break: (N,), bool."""
        return self.watched[1]

    @cached_property
    def broken_by_any(self) -> Tensor:
        """Those, and rows that fall to the attack without gradients or to what the attacks do to a surrogate: (N,)."""
        others = [AttackRun(attack, surrogate) for surrogate in self.surrogates for attack, _ in self.claim]
        return self.broken_by([AttackRun(self.free, self.model), *others], after=self.broken)

    def broken_with(
        self, *, stretch: int = 1, eps: float | None = None, seed: int | None = None, after: Tensor | None = None
    ) -> Tensor:
        """Rows that the same attacks break with other settings: (N,), bool.

        Args:
            stretch: factor on their steps.
            eps: budget, in place of their own.
            seed: in place of the case's.
            after: rows (N,) that count as broken already.
        """
        changed = []
        for attack, seen in self.claim:
            steps: dict[str, Any] = {"steps": stretch * attack.steps} if hasattr(attack, "steps") else {}
            ball = attack.ball if eps is None else replace(attack.ball, eps=eps)
            changed.append(AttackRun(replace(attack, ball=ball, **steps), seen))  # type: ignore[type-var]
        return self.broken_by(changed, seed=seed, after=after)

    def broken_by(
        self,
        attempts: Sequence[AttackRun],
        *,
        seed: int | None = None,
        after: Tensor | None = None,
        watch: Callable[[AttackRun, Tensor], nn.Module] = lambda attempt, rows: attempt.seen,
    ) -> Tensor:
        """Rows that any attempt breaks, each made on the rows that are left: (N,), bool.

        Args:
            attempts: success is what the model as it is used answers to their points, asked anew.
            seed: in place of the case's.
            after: rows (N,) that count as broken already.
            watch: what an attempt on the rows at some positions is shown.
        """
        seed = self.seed if seed is None else seed
        broken = torch.zeros_like(self.y, dtype=torch.bool) if after is None else after.clone()
        for attempt in attempts:
            rows = (~broken).nonzero().squeeze(1)
            x, y, seen = self.x[rows], self.y[rows], watch(attempt, rows)
            with seeded(seen, self.generator(seed)):
                x_adv = attempt.attack(seen, x, y, generator=self.generator(seed))
            broken[rows] = self.won(x_adv, y)
        return broken

    def won(self, z: Tensor, y: Tensor) -> Tensor:
        """Where the model as it is used gives the attacker what it wants, of classes y (n,) at points z: (n,), bool.

        Of a random model, by most of its answers: a single one has its luck, and who tries often enough meets it.
        """
        with asked(self.model), torch.no_grad(), seeded(self.model, self.generator(FRESH)):
            won = [self.goal.margin(self.model(z), y) < 0 for _ in range(DRAWS if self.spread > ALIKE else 1)]
        return torch.stack(won).double().mean(0) > 0.5

    @cached_property
    def spread(self) -> float:
        """How random the model is: see `spread_of`."""
        return self.spread_of(self.model)

    def spread_of(self, model: nn.Module) -> float:
        """The standard deviation of a row's logits over draws, relative to their size; a median over rows."""
        draws = torch.stack([self.logits(model, draw) for draw in range(DRAWS)])  # (DRAWS, N, K)
        size = (draws - draws.mean(2, keepdim=True)).abs().mean((0, 2)).clamp(min=TINY)
        return float((draws.std(0).mean(1) / size).median())

    def logits(self, model: nn.Module, draw: int) -> Tensor:
        """Answers (N, K) on the clean rows; a random model's own, for each `draw`."""
        with torch.no_grad(), seeded(model, self.generator(draw)):
            logits: Tensor = model(self.x)
            return logits

    def generator(self, number: int) -> torch.Generator:
        """A new generator on the rows' device."""
        return torch.Generator(self.x.device).manual_seed(number)
