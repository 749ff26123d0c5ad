"""One run of Auto-PGD: up the loss inside a ball, or first inside larger ones."""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from aisec_lab.attacks.evasion.geometry.balls import L1, Ball
from aisec_lab.attacks.evasion.gradient.apgd_l1 import L1APGDState
from aisec_lab.attacks.evasion.gradient.apgd_state import APGDState
from aisec_lab.attacks.evasion.search.best import LowestMargin
from aisec_lab.attacks.evasion.search.objectives import loss_and_gradient

LARGER = (3, 2)  # radii before the ball's own, in units of it; each has three tenths of the steps


def run_apgd(
    model: nn.Module,
    found: LowestMargin,
    loss: Callable[..., Tensor],
    *labels: Tensor,
    ball: Ball,
    steps: int,
    generator: torch.Generator,
    larger_first: bool = False,
) -> None:
    """One run of Auto-PGD over the rows that are not yet won: in L1 by the rule of `L1APGDState`, else of `APGDState`.

    Args:
        model: classifier, frozen.
        found: the best points so far; brought up to date.
        loss: of logits (n, K) and their rows' labels, each (n,); ascended.
        labels: of all rows (N,).
        ball: the threat.
        steps: the paper's N_iter.
        generator: source of the random start, of another one for each of several searches about a row.
        larger_first: whether the search begins in 3 eps and goes on in 2 eps, three tenths of the steps each, from the
            highest point so far drawn into the next ball (Croce & Hein, 2021, arXiv:2103.01208, section 3.3).
    """
    x, rows = found.x, found.active_rows
    if not len(rows):
        return

    def ascent_at(z: Tensor, rows: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        return loss_and_gradient(model, z, lambda logits: loss(logits, *(label[rows] for label in labels)))

    rule = L1APGDState if isinstance(ball, L1) else APGDState
    share = 3 * steps // 10 if larger_first else 0
    wider = [ball.with_eps(factor * ball.eps) for factor in LARGER] if share else []
    outer = wider[0] if wider else ball
    delta = torch.cat([rule.random_start(part, outer, generator) for part in x[rows].chunk(found.copies)])
    for wide in wider:
        delta = _run(ascent_at, x, rows, wide.project(x[rows], delta), rule, wide, share)
    if wider:
        delta = ball.project(x[rows], delta)
    _run(ascent_at, x, rows, delta, rule, ball, steps - len(wider) * share, found)


def _run(
    ascent_at: Callable[[Tensor, Tensor], tuple[Tensor, Tensor, Tensor]],
    x: Tensor,
    rows: Tensor,
    delta: Tensor,
    rule: type[APGDState],
    ball: Ball,
    steps: int,
    found: LowestMargin | None = None,
) -> Tensor:
    """Up from perturbations delta (n, *input) of the rows at positions `rows`, which leave once `found` is won.

    Returns:
        The highest perturbations of the rows that are left: of all, where nothing is shown to `found`.
    """
    origin = x[rows]
    logits, f, grad = ascent_at(origin + delta, rows)
    c = rule.begin(rows, delta, grad, f, ball.eps)
    due, checked, k = rule.checkpoints(steps), 0, 0
    while True:
        if found is not None:
            found.update(c.rows, origin + delta, logits)
            c.retain(found.active_mask[c.rows])
        if k == steps or not len(c.rows):
            return c.delta_max
        k += 1
        origin = x[c.rows]
        delta = c.step(ball, origin, first=k == 1)
        logits, f, grad = ascent_at(origin + delta, c.rows)
        c.move(delta, grad, f)
        if k in due:
            c.update_step_size(k - checked)
            checked = k
