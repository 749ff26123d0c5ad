"""DeepFool: repeated steps onto the nearest boundary of the linearised model."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from aisec_lab.attacks.evasion.attack import prepare_inputs, scored
from aisec_lab.attacks.evasion.geometry.balls import L2, Ball, Linf, check_ball
from aisec_lab.attacks.evasion.geometry.projections import clip_to_box
from aisec_lab.attacks.evasion.minimum_norm.linearised import nearest_boundary
from aisec_lab.attacks.evasion.minimum_norm.result import MinimumNormResult
from aisec_lab.attacks.evasion.minimum_norm.tracker import FINAL_STEPS, MinimumNormTracker, top_wrong_classes
from aisec_lab.attacks.evasion.search.goals import Untargeted


@dataclass(frozen=True)
class DeepFool:
    """DeepFool (Moosavi-Dezfooli et al., 2016, arXiv:1511.04599, algorithm 2, section 3.3): minimum-norm, L2 and Linf.

    Each step goes to the nearest point of the linearised boundary inside the box; the paper has no box. Call contract:
    docs/evasion-attacks.md, minimum-norm attacks, untargeted. A row leaves at its first adversarial point, which is
    near x but not the nearest.

    Args:
        ball: L2 or Linf; rows adversarial inside its radius leave the search.
        steps: iterations, at most.
        candidates: number of wrong classes considered, by clean logit from the highest.
        overshoot: share, at least 0, by which the perturbation is lengthened.

    Raises:
        ValueError: another ball, settings outside their ranges, and what the call contract lists.
    """

    ball: Ball = L2(0)
    steps: int = 50
    candidates: int = 9
    overshoot: float = 0.02

    def __post_init__(self) -> None:
        check_ball("DeepFool", self.ball, L2, Linf)
        if self.steps < 1 or self.candidates < 1 or not self.overshoot >= 0:
            raise ValueError(f"steps and candidates must be positive, overshoot must be at least 0: {self}")

    def __call__(self, model: nn.Module, x: Tensor, y: Tensor, *, generator: torch.Generator) -> MinimumNormResult:
        x = prepare_inputs(model, x, y, generator)
        with scored(model):
            tracker = MinimumNormTracker(model, x, y, Untargeted(), self.ball)
            others = top_wrong_classes(tracker.logits, y, self.candidates)
            rows = tracker.active_rows
            delta = torch.zeros_like(x[rows])
            for _ in range(self.steps):
                if not len(rows):
                    break
                origin = x[rows]
                z = origin + clip_to_box(origin, (1 + self.overshoot) * delta)
                logits, plane = nearest_boundary(model, z, y[rows], others[rows], self.ball)
                alive = ~tracker.update(rows, z, logits)
                rows, delta = rows[alive], (delta + plane.step)[alive]
            z = x[rows] + clip_to_box(x[rows], (1 + self.overshoot) * delta)
            with torch.no_grad():
                tracker.update(rows, z, model(z))
            tracker.regula_falsi(model, FINAL_STEPS)
            return tracker.result(model)
