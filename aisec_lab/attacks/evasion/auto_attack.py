"""AutoAttack: attacks in sequence, each on the rows that the earlier ones left robust."""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Literal

import torch
from torch import Tensor, nn

from aisec_lab.attacks.evasion.adaptive import EOT, Adaptive
from aisec_lab.attacks.evasion.attack import Attack, check_answer, prepare_inputs
from aisec_lab.attacks.evasion.black_box.square import Square
from aisec_lab.attacks.evasion.fixed_epsilon import FixedEpsilon
from aisec_lab.attacks.evasion.geometry.balls import L1, Ball
from aisec_lab.attacks.evasion.gradient.apgd_attacks import APGD, TargetedAPGD
from aisec_lab.attacks.evasion.minimum_norm.fab import TargetedFAB
from aisec_lab.attacks.evasion.search.goals import logit_margin
from aisec_lab.attacks.evasion.search.losses import DLR, Loss, Margin, TargetedDLR, TargetedLoss, TargetedMargin
from aisec_lab.models.asked import asked

CLEAN, ROBUST = 0, -1  # values of `WorstCase.stage`
RESTARTS_L1, TARGETS_L1 = 5, 5  # of APGD-CE and, at most, of APGD-T in L1, as in the authors' code
VERSIONS = ("standard", "quick", "rand")


@dataclass(frozen=True, eq=False)
class WorstCase:
    """The worst case of each row over the stages run so far; a run can be resumed from it.

    Args:
        x_adv: inputs (N, *input), each the first adversarial point, else the point of lowest margin.
        margin: margins (N,) of `x_adv`, negative where a row is adversarial.
        stage: stage (N,), int64, that made the row adversarial, counted from 1; 0 for rows misclassified without an
            attack, -1 for rows that are robust so far.
        classes: number of classes of the model.
        done: number of stages run.
    """

    x_adv: Tensor
    margin: Tensor
    stage: Tensor
    classes: int
    done: int


class AttackEnsemble(ABC):
    """Attacks in sequence, itself an attack: the worst case of each row over its stages.

    Call contract: docs/evasion-attacks.md, untargeted. The call returns `WorstCase.x_adv` after the last stage.
    """

    @abstractmethod
    def stages(self, classes: int) -> Mapping[str, Attack]:
        """The attacks in order, by name.

        Args:
            classes: number of classes of the model.
        """

    def __call__(self, model: nn.Module, x: Tensor, y: Tensor, *, generator: torch.Generator) -> Tensor:
        *_, worst = self.run(model, x, y, generator=generator)
        return worst.x_adv

    def run(
        self, model: nn.Module, x: Tensor, y: Tensor, *, generator: torch.Generator, after: WorstCase | None = None
    ) -> Iterator[WorstCase]:
        """Attack stage by stage.

        Args:
            model: classifier in evaluation mode; inputs (N, *input) to logits (N, K).
            x: clean inputs (N, *input) in [0, 1].
            y: true classes (N,), int64.
            generator: seeds one generator for each stage, so that a stage does not depend on what others draw.
            after: the last worst case of an interrupted run with the same arguments. Its stages are skipped; the
                others give what they would have given.

        Yields:
            The worst case over the clean rows (or `after`), and then after each stage.

        Raises:
            ValueError: what the call contract lists.
        """
        x = prepare_inputs(model, x, y, generator)
        worst = self._clean(model, x, y) if after is None else after
        yield worst
        stages = self.stages(worst.classes)
        generators = spawn_generators(generator, len(stages))
        for attack, own in list(zip(stages.values(), generators, strict=True))[worst.done :]:
            worst = self._next(model, x, y, worst, attack, own)
            yield worst

    def _clean(self, model: nn.Module, x: Tensor, y: Tensor) -> WorstCase:
        """The worst case before the first stage."""
        with asked(model), torch.no_grad():
            logits = model(x)
        check_answer(logits, y)
        margin = logit_margin(logits, y)
        return WorstCase(x.clone(), margin, torch.where(margin < 0, CLEAN, ROBUST), logits.shape[1], done=0)

    def _next(
        self, model: nn.Module, x: Tensor, y: Tensor, worst: WorstCase, attack: Attack, generator: torch.Generator
    ) -> WorstCase:
        """The worst case after one more stage; its points are judged here, on the model itself."""
        x_adv, margin, stage, done = worst.x_adv.clone(), worst.margin.clone(), worst.stage.clone(), worst.done + 1
        rows = (stage == ROBUST).nonzero().squeeze(1)
        if len(rows):
            z = attack(model, x[rows], y[rows], generator=generator)
            with asked(model), torch.no_grad():
                new_margin = logit_margin(model(z), y[rows])
            lower = new_margin < margin[rows]
            x_adv[rows[lower]], margin[rows[lower]] = z[lower], new_margin[lower]
            stage[rows[new_margin < 0]] = done
        return WorstCase(x_adv, margin, stage, worst.classes, done)


def spawn_generators(generator: torch.Generator, number: int) -> list[torch.Generator]:
    """As many generators, seeded from one."""
    seeds = torch.randint(2**63 - 1, (number,), generator=generator, device=generator.device)
    return [torch.Generator(generator.device).manual_seed(seed) for seed in seeds.tolist()]


@dataclass(frozen=True)
class SequentialEnsemble(AttackEnsemble):
    """The given attacks as one. Call contract: docs/evasion-attacks.md, untargeted.

    Args:
        attacks: attacks in order, by name.
    """

    attacks: Mapping[str, Attack]

    def stages(self, classes: int) -> Mapping[str, Attack]:
        return self.attacks


@dataclass(frozen=True)
class AutoAttack(AttackEnsemble):
    """AutoAttack (Croce & Hein, 2020, arXiv:2003.01690, section 6). Call contract: docs/evasion-attacks.md, untargeted.

    - "standard": APGD-CE, APGD-T, FAB-T, Square; images; Linf, L2 and L1;
    - "quick": APGD-CE and APGD-T alone, which find nearly all that the four find; any inputs, any ball;
    - "rand", for randomised models: APGD-CE and APGD-DLR on mean logits (`EOT`); each stage's points are judged on
      fresh samples of the model; any inputs, any ball.

    In L1 (Croce & Hein, 2021, arXiv:2103.01208) the first two versions begin APGD in larger balls, with 5 restarts or
    at most 5 targets. Where a model has too few classes for a DLR loss (3, targeted 4), the margin replaces it.

    Args:
        ball: the threat model.
        version: "standard", "quick" or "rand".
        steps: iterations of each APGD and FAB run.
        targets: wrong classes of APGD-T and FAB-T; no effect in "rand".
        queries: queries of Square for each row; effective in "standard" only.
        draws: forward passes that EOT averages; effective in "rand" only.

    Raises:
        ValueError: an unknown version, and settings that one of its stages refuses.
    """

    ball: Ball
    version: Literal["standard", "quick", "rand"] = "standard"
    steps: int = 100
    targets: int = 9
    queries: int = 5000
    draws: int = 20

    def __post_init__(self) -> None:
        if self.version not in VERSIONS:
            raise ValueError(f"version must be one of {', '.join(VERSIONS)}, got {self.version!r}")
        self.stages(classes=10)  # raise the stages' errors now, not at the call

    def stages(self, classes: int) -> Mapping[str, Attack]:
        if self.version == "rand":
            loss: Loss = DLR() if classes >= 3 else Margin()
            return {
                "apgd_ce": Adaptive(self.ball, partial(APGD, steps=self.steps), EOT(self.draws)),
                "apgd_dlr": Adaptive(self.ball, partial(APGD, steps=self.steps, loss=loss), EOT(self.draws)),
            }
        in_l1 = isinstance(self.ball, L1)
        restarts, targets = (RESTARTS_L1, min(self.targets, TARGETS_L1)) if in_l1 else (1, self.targets)
        targeted: TargetedLoss = TargetedDLR() if classes >= 4 else TargetedMargin()
        quick: dict[str, Attack] = {
            "apgd_ce": APGD(self.ball, self.steps, restarts, larger_first=in_l1),
            "apgd_t": TargetedAPGD(self.ball, self.steps, targets, targeted, larger_first=in_l1),
        }
        if self.version == "quick":
            return quick
        return {
            **quick,
            "fab_t": FixedEpsilon(self.ball, TargetedFAB(steps=self.steps, targets=self.targets)),
            "square": Square(self.ball, self.queries),
        }
