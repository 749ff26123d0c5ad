"""AutoAttack: attacks one after the other, each on the rows that the ones before have left standing."""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import partial

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

CLEAN, STANDING = 0, -1  # in `WorstCase.stage`
RESTARTS_L1, TARGETS_L1 = 5, 5  # of APGD-CE and, at most, of APGD-T in L1, as in the authors' code


@dataclass(frozen=True, eq=False)
class WorstCase:
    """The worst case of each row over the stages so far; all that is needed to go on with the next.

    Args:
        x_adv: inputs (N, *input): where a row was first won, else its point of lowest margin.
        margin: their margins (N,), negative where a row is won.
        stage: which stage won a row (N,), int64, counted from 1; 0 for rows that are wrong as they are, -1 for
            rows that stand.
        classes: how many the model knows.
        done: how many stages have run.
    """

    x_adv: Tensor
    margin: Tensor
    stage: Tensor
    classes: int
    done: int


class AttackEnsemble(ABC):
    """Attacks in a row, itself an attack: the per-example worst case over its stages.

    Args of the call, raises: as for `PGD`; the classes are the true ones.

    Returns:
        Adversarial inputs, shape of `x`: `WorstCase.x_adv` after the last stage.
    """

    @abstractmethod
    def stages(self, classes: int) -> Mapping[str, Attack]:
        """The attacks by name, in order, for a model of so many classes."""

    def __call__(self, model: nn.Module, x: Tensor, y: Tensor, *, generator: torch.Generator) -> Tensor:
        *_, worst = self.run(model, x, y, generator=generator)
        return worst.x_adv

    def run(
        self, model: nn.Module, x: Tensor, y: Tensor, *, generator: torch.Generator, after: WorstCase | None = None
    ) -> Iterator[WorstCase]:
        """Attack stage by stage.

        Args:
            model, x, y: as in the call.
            generator: gives each stage one of its own, whatever the other stages are given to do.
            after: what an interrupted run, of the same arguments, last gave: the stages that it has done are not run
                again, and the others do what they would have done.

        Yields:
            The worst case so far: over the clean rows, and after each stage.
        """
        x = prepare_inputs(model, x, y, generator)
        worst = self._clean(model, x, y) if after is None else after
        yield worst
        stages = self.stages(worst.classes)
        for attack, own in list(zip(stages.values(), spawn_generators(generator, len(stages)), strict=True))[
            worst.done :
        ]:
            worst = self._next(model, x, y, worst, attack, own)
            yield worst

    def _clean(self, model: nn.Module, x: Tensor, y: Tensor) -> WorstCase:
        with asked(model), torch.no_grad():
            logits = model(x)
        check_answer(logits, y)
        margin = logit_margin(logits, y)
        return WorstCase(x.clone(), margin, torch.where(margin < 0, CLEAN, STANDING), logits.shape[1], done=0)

    def _next(
        self, model: nn.Module, x: Tensor, y: Tensor, worst: WorstCase, attack: Attack, generator: torch.Generator
    ) -> WorstCase:
        """One stage on the survivors; what it found is judged here, by the model itself."""
        x_adv, margin, stage, done = worst.x_adv.clone(), worst.margin.clone(), worst.stage.clone(), worst.done + 1
        rows = (stage == STANDING).nonzero().squeeze(1)
        if len(rows):
            z = attack(model, x[rows], y[rows], generator=generator)
            with asked(model), torch.no_grad():
                reached = logit_margin(model(z), y[rows])
            lower = reached < margin[rows]
            x_adv[rows[lower]], margin[rows[lower]] = z[lower], reached[lower]
            stage[rows[reached < 0]] = done
        return WorstCase(x_adv, margin, stage, worst.classes, done)


def spawn_generators(generator: torch.Generator, number: int) -> list[torch.Generator]:
    """As many generators, seeded from one."""
    seeds = torch.randint(2**63 - 1, (number,), generator=generator, device=generator.device)
    return [torch.Generator(generator.device).manual_seed(seed) for seed in seeds.tolist()]


@dataclass(frozen=True)
class SequentialEnsemble(AttackEnsemble):
    """Any attacks, by name, as one."""

    attacks: Mapping[str, Attack]

    def stages(self, classes: int) -> Mapping[str, Attack]:
        return self.attacks


@dataclass(frozen=True)
class AutoAttack(AttackEnsemble):
    """AutoAttack, version "standard" (Croce & Hein, 2020, arXiv:2003.01690, section 6): images, Linf, L2 and L1.

    APGD-CE, targeted APGD-DLR, targeted FAB, Square. With fewer than 4 classes the ratio loses its meaning, and the
    margin takes its place. In L1 (Croce & Hein, 2021, arXiv:2103.01208) APGD begins in larger balls, with 5 restarts
    or towards at most 5 targets.
    """

    ball: Ball
    steps: int = 100
    targets: int = 9
    queries: int = 5000

    def __post_init__(self) -> None:
        self.stages(classes=10)  # what a stage refuses is refused at once

    def stages(self, classes: int) -> Mapping[str, Attack]:
        return {
            **QuickAutoAttack(self.ball, self.steps, self.targets).stages(classes),
            "fab_t": FixedEpsilon(self.ball, TargetedFAB(steps=self.steps, targets=self.targets)),
            "square": Square(self.ball, self.queries),
        }


@dataclass(frozen=True)
class QuickAutoAttack(AttackEnsemble):
    """The first two stages of `AutoAttack`, which find nearly all that the four do, in any ball and for any inputs."""

    ball: Ball
    steps: int = 100
    targets: int = 9

    def __post_init__(self) -> None:
        self.stages(classes=10)

    def stages(self, classes: int) -> Mapping[str, Attack]:
        loss: TargetedLoss = TargetedDLR() if classes >= 4 else TargetedMargin()
        sparse = isinstance(self.ball, L1)
        restarts, targets = (RESTARTS_L1, min(self.targets, TARGETS_L1)) if sparse else (1, self.targets)
        return {
            "apgd_ce": APGD(self.ball, self.steps, restarts, larger_first=sparse),
            "apgd_t": TargetedAPGD(self.ball, self.steps, targets, loss, larger_first=sparse),
        }


@dataclass(frozen=True)
class RandAutoAttack(AttackEnsemble):
    """AutoAttack, version "rand", for models that draw at random: APGD-CE and APGD-DLR on mean logits (`EOT`).

    What a stage found is judged on fresh draws of the model itself. With fewer than 3 classes the margin replaces DLR.
    """

    ball: Ball
    steps: int = 100
    draws: int = 20

    def __post_init__(self) -> None:
        self.stages(classes=10)

    def stages(self, classes: int) -> Mapping[str, Attack]:
        loss: Loss = DLR() if classes >= 3 else Margin()
        view = EOT(self.draws)
        return {
            "apgd_ce": Adaptive(self.ball, partial(APGD, steps=self.steps), view),
            "apgd_dlr": Adaptive(self.ball, partial(APGD, steps=self.steps, loss=loss), view),
        }
