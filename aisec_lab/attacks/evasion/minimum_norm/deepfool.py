"""DeepFool: step onto the nearest boundary as if it were flat, and again."""

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
    """DeepFool (Moosavi-Dezfooli et al., 2016, arXiv:1511.04599, algorithm 2 and section 3.3): L2 and Linf.

    Here a step leads to the nearest point of the boundary inside the box; the paper has no box.

    Args of the call, raises: as for `FMN`.

    Returns:
        `MinimumNormResult`: a row leaves at the first point that has won, which is near, but not the nearest.
    """

    ball: Ball = L2(0)
    steps: int = 50
    candidates: int = 9  # wrong classes looked at, the likeliest
    overshoot: float = 0.02

    def __post_init__(self) -> None:
        check_ball("DeepFool", self.ball, L2, Linf)
        if self.steps < 1 or self.candidates < 1 or not self.overshoot >= 0:
            raise ValueError(f"steps and candidates must be positive, overshoot must be at least 0: {self}")

    def __call__(self, model: nn.Module, x: Tensor, y: Tensor, *, generator: torch.Generator) -> MinimumNormResult:
        x = prepare_inputs(model, x, y, generator)
        with scored(model):
            found = MinimumNormTracker(model, x, y, Untargeted(), self.ball)
            others = top_wrong_classes(found.logits, y, self.candidates)
            rows = found.active_rows
            delta = torch.zeros_like(x[rows])
            for _ in range(self.steps):
                if not len(rows):
                    break
                origin = x[rows]
                z = origin + clip_to_box(origin, (1 + self.overshoot) * delta)
                logits, plane = nearest_boundary(model, z, y[rows], others[rows], self.ball)
                alive = ~found.update(rows, z, logits)
                rows, delta = rows[alive], (delta + plane.step)[alive]
            z = x[rows] + clip_to_box(x[rows], (1 + self.overshoot) * delta)
            with torch.no_grad():
                found.update(rows, z, model(z))
            found.regula_falsi(model, FINAL_STEPS)
            return found.result(model)
