"""Can this robust accuracy be believed?"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from aisec_lab.attacks import Untargeted
from aisec_lab.attacks.evasion.goals import Goal
from aisec_lab.evaluation.diagnostics.case import Case
from aisec_lab.evaluation.diagnostics.findings import Finding
from aisec_lab.evaluation.diagnostics.probes import PROBES, gradients, probabilities
from aisec_lab.evaluation.robustness import BallAttack
from aisec_lab.models import seeded


@dataclass(frozen=True)
class Diagnosis:
    """All findings on one robust accuracy."""

    findings: tuple[Finding, ...]
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
    goal: Goal = Untargeted(),  # noqa: B008
    seed: int,
) -> Diagnosis:
    """Look for reasons to doubt that the rows which some attacks leave standing really stand.

    Args:
        model: the classifier as it is used, in evaluation mode.
        x, y: inputs (N, *input) in [0, 1] and their classes (N,); those that `model` gets wrong are left out.
        white: the attacks with gradients whose worst case is the claim, as they were run for it.
        free: an attack without gradients, over the same ball.
        surface: what the attacks with gradients see, where this is not `model` itself (`EOT`, `BPDA`).
        goal: what counts as an attacker's success.
        seed: of every run.

    Returns:
        The findings. Where there is no gradient to follow at all, nothing but that is measured.

    Raises:
        ValueError: attacks over different balls, or no row that the model gets right.
    """
    balls = {attack.ball for attack in (*white, free)}
    if len(balls) != 1:
        raise ValueError(f"a claim is over one ball, got {sorted(map(repr, balls))}: give every attack the same")
    with torch.no_grad(), seeded(model, torch.Generator(x.device).manual_seed(seed)):
        right = goal.margin(model(x), y) >= 0
    if not right.any():
        raise ValueError(f"the model gets none of {len(x)} rows right: there is no robustness to diagnose")
    case = Case(model, surface or model, x[right], y[right], tuple(white), free, goal, seed)
    at_once = (gradients(case), probabilities(case))
    if at_once[0].measured == 1.0:
        return Diagnosis(at_once, len(case.x))
    return Diagnosis(tuple(probe(case) for probe in PROBES), len(case.x))
