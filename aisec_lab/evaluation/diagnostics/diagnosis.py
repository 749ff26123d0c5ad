"""Can this robust accuracy be believed?"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from torch import Tensor, nn

from aisec_lab.attacks import Adaptive, EvadeDetector, Untargeted
from aisec_lab.attacks.answers import declared_within
from aisec_lab.attacks.evasion.search.goals import Goal
from aisec_lab.evaluation.diagnostics.claim import AttackRun, Claim
from aisec_lab.evaluation.diagnostics.probes import PROBES, gradients, probabilities
from aisec_lab.evaluation.diagnostics.results import CheckResult
from aisec_lab.evaluation.diagnostics.surrogates import matched
from aisec_lab.evaluation.robustness import BallAttack


@dataclass(frozen=True)
class Diagnosis:
    """All findings on one robust accuracy."""

    findings: tuple[CheckResult, ...]
    n: int  # rows that were diagnosed

    @property
    def trusted(self) -> bool:
        """Whether nothing speaks against it."""
        return not any(finding.raised for finding in self.findings)

    @property
    def raised(self) -> tuple[str, ...]:
        """The names of what does."""
        return tuple(finding.name for finding in self.findings if finding.raised)

    def rows(self) -> list[dict[str, Any]]:
        """As records of a table, one a finding."""
        return [finding.row() | {"n": self.n} for finding in self.findings]


def diagnose(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    *,
    white: Sequence[BallAttack],
    free: BallAttack,
    surface: nn.Module | None = None,
    surrogates: Sequence[nn.Module] = (),
    goal: Goal = Untargeted(),  # noqa: B008
    seed: int,
) -> Diagnosis:
    """Look for reasons to doubt that the rows which some attacks leave standing really stand.

    Args:
        model: the classifier as it is used, in evaluation mode.
        x, y: inputs (N, *input) in [0, 1] and their classes (N,); those that `model` gets wrong are left out.
        white: the attacks with gradients whose worst case is the claim, as they were run for it.
        free: an attack without gradients, over the same ball.
        surface: what the attacks with gradients see, where this is not `model` itself (`EOT`, `BPDA`); an attack that
            is `Adaptive` brings its own view.
        surrogates: other classifiers of the same task, in evaluation mode: what the attacks with gradients do to them
            is tried on `model`. They need no reject option where it has one.
        goal: what counts as an attacker's success.
        seed: of every run.

    Returns:
        The findings. Where there is no gradient to follow at all, or the answers are a softmax already, which attacks
        refuse unless the model has called them logits (`declared_within`), nothing but that is measured.

    Raises:
        ValueError: attacks over different balls, no row that the model gets right, or a surrogate of another task.
    """
    balls = {attack.ball for attack in (*white, free)}
    if len(balls) != 1:
        raise ValueError(f"a claim is over one ball, got {sorted(map(repr, balls))}: give every attack the same")
    claim = [_attempt(attack, surface or model) for attack in white]
    rejecting = goal == EvadeDetector()
    others = [matched(other, model, x[:1], rejecting=rejecting) for other in surrogates]
    case = Claim(model, x, y, claim, free, others, goal, seed)
    right = ~replace(case, goal=Untargeted() if rejecting else goal).won(x, y)  # a clean row that is rejected is wrong
    if not right.any():
        raise ValueError(f"the model gets none of {len(x)} rows right: there is no robustness to diagnose")
    case = replace(case, x=x[right], y=y[right])
    at_once = (gradients(case), probabilities(case))
    refused = at_once[1].measured == 1.0 and declared_within(case.claim[0].seen) is None
    if at_once[0].measured == 1.0 or refused:
        return Diagnosis(at_once, len(case.x))
    return Diagnosis(tuple(probe(case) for probe in PROBES), len(case.x))


def _attempt(attack: BallAttack, seen: nn.Module) -> AttackRun:
    """The attack on what it sees; one that looks through a view is taken apart, so that its settings can be changed."""
    if isinstance(attack, Adaptive):
        return AttackRun(attack.attack(attack.ball), attack.view(seen))  # type: ignore[arg-type]
    return AttackRun(attack, seen)
