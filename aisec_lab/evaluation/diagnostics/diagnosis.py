"""Diagnosis of a robust accuracy: run all checks."""

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
from aisec_lab.evaluation.diagnostics.surrogates import match_outputs
from aisec_lab.evaluation.robustness import BallAttack


@dataclass(frozen=True)
class Diagnosis:
    """The results of all checks on one robust accuracy.

    Args:
        findings: result of each check.
        n: number of rows that were used.
    """

    findings: tuple[CheckResult, ...]
    n: int

    @property
    def trusted(self) -> bool:
        """Whether no check raises a doubt."""
        return not any(finding.raised for finding in self.findings)

    @property
    def raised(self) -> tuple[str, ...]:
        """The names of the checks that raise a doubt."""
        return tuple(finding.name for finding in self.findings if finding.raised)

    def rows(self) -> list[dict[str, Any]]:
        """Records of a table: one for each check, with the columns `finding`, `measured`, `limit`, `raised` and `n`."""
        return [finding.row() | {"n": self.n} for finding in self.findings]


def diagnose(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    *,
    white_box: Sequence[BallAttack],
    black_box: BallAttack,
    attacked_model: nn.Module | None = None,
    surrogates: Sequence[nn.Module] = (),
    goal: Goal = Untargeted(),  # noqa: B008
    seed: int,
) -> Diagnosis:
    """Look for reasons to doubt a robust accuracy: rows that count as robust might not be.

    Args:
        model: the classifier as it is used, in evaluation mode.
        x: inputs (N, *input) in [0, 1]; those that `model` misclassifies are left out.
        y: their classes (N,).
        white_box: the gradient-based attacks whose worst case is the claim, with the settings of the claim.
        black_box: an attack without gradients, over the same ball.
        attacked_model: what the gradient-based attacks run on, if not `model` itself: `EOT` or `BPDA` of it. An attack
            that is `Adaptive` has its own view of `model`.
        surrogates: other classifiers of the same task, in evaluation mode. Adversarial inputs that the gradient-based
            attacks find for them are tried on `model`. They need no reject option, even if `model` has one.
        goal: what counts as a success of the attacker.
        seed: seed of every run.

    Returns:
        The results of all checks. If no row has a gradient at all, or if the model answers with probabilities, which
        attacks refuse unless it has declared them logits (`declared_within`), only `gradients` and `probabilities` are
        measured.

    Raises:
        ValueError: attacks over different balls, no row that the model classifies correctly, or a surrogate of another
            task.
    """
    balls = {attack.ball for attack in (*white_box, black_box)}
    if len(balls) != 1:
        raise ValueError(f"a claim is over one ball, got {sorted(map(repr, balls))}: give every attack the same")
    claim = [_attack_run(attack, attacked_model or model) for attack in white_box]
    rejecting = goal == EvadeDetector()
    others = [match_outputs(other, model, x[:1], rejecting=rejecting) for other in surrogates]
    case = Claim(model, x, y, claim, black_box, others, goal, seed)
    clean = replace(case, goal=Untargeted() if rejecting else goal)  # rejecting a clean row is an error
    right = ~clean.is_adversarial(x, y)
    if not right.any():
        raise ValueError(f"the model gets none of {len(x)} rows right: there is no robustness to diagnose")
    case = replace(case, x=x[right], y=y[right])
    at_once = (gradients(case), probabilities(case))
    refused = at_once[1].measured == 1.0 and declared_within(case.claim[0].seen) is None
    if at_once[0].measured == 1.0 or refused:
        return Diagnosis(at_once, len(case.x))
    return Diagnosis(tuple(probe(case) for probe in PROBES), len(case.x))


def _attack_run(attack: BallAttack, seen: nn.Module) -> AttackRun:
    """An attack and its model; an `Adaptive` one is split into attack and view, so that its settings can be changed."""
    if isinstance(attack, Adaptive):
        return AttackRun(attack.attack(attack.ball), attack.view(seen))  # type: ignore[arg-type]
    return AttackRun(attack, seen)
