"""The checks: each takes a claim and returns a measurement with its limit."""

from collections.abc import Callable

import torch

from aisec_lab.attacks import APGD, DetectorAwareMargin, EvadeDetector, Margin, TargetedDLR, TargetedMargin
from aisec_lab.attacks.answers import as_scores, declared_within
from aisec_lab.attacks.evasion.search.losses import Loss
from aisec_lab.evaluation.diagnostics.claim import ALIKE, AttackRun, Claim
from aisec_lab.evaluation.diagnostics.results import CheckResult, count, share
from aisec_lab.evaluation.robustness import BallAttack
from aisec_lab.models import frozen, seeded

Probe = Callable[[Claim], CheckResult]
ZERO = 1e-12  # a gradient with all entries below this counts as zero
STEPS = 50  # steps of the attack that takes a detector into account
LAST = 0.2  # last share of an attack's queries, in which it should have converged
WIDEST: dict[str, Callable[[int], float]] = {"Linf": lambda d: 1.0, "L2": lambda d: d**0.5, "L1": float, "L0": int}


def gradients(case: Claim) -> CheckResult:
    """The share of rows on which no loss that the attacks maximise has a gradient (Athalye et al., 2018, section 3)."""
    largest = torch.zeros(len(case.x), dtype=case.x.dtype, device=case.x.device)
    for loss, seen in {(_loss_of(run.attack), run.seen) for run in case.claim}:
        x = case.x.clone().requires_grad_()
        with frozen(seen), seeded(seen, case.generator(case.seed)), torch.enable_grad():
            losses = loss(seen(x), case.y)
            if losses.requires_grad:
                (grad,) = torch.autograd.grad(losses.sum(), x)
                largest = torch.maximum(largest, grad.nan_to_num().flatten(1).abs().amax(1))
    return share("gradients", (largest < ZERO).double().mean().item())


def randomness(case: Claim) -> CheckResult:
    """How random the least random attacked classifier is, relative to the model; 0 if the model is not random."""
    if not case.spread > ALIKE:
        return share("randomness", 0.0)
    return share("randomness", min(case.spread_of(seen) for seen in {seen for _, seen in case.claim}) / case.spread)


def probabilities(case: Claim) -> CheckResult:
    """Whether the model answers with probabilities without having declared it: 1 or 0."""
    seen = case.claim[0].seen
    logits = as_scores(case.logits(seen, case.seed), declared_within(seen))
    distribution = bool((logits >= 0).all() and torch.allclose(logits.sum(1), torch.ones_like(logits[:, 0]), atol=1e-3))
    return share("probabilities", float(distribution))


def black_box_beats_white_box(case: Claim) -> CheckResult:
    """Rows on which only an attack without the model's gradients succeeds: black box, or transfer from a surrogate."""
    return count("free_attack", int((case.success_of_any & ~case.success).sum()), len(case.x))


def unbounded(case: Claim) -> CheckResult:
    """Rows that are robust even in a ball that contains all inputs (Athalye et al., 2018, section 3.1)."""
    widest = WIDEST[case.ball.name](case.x[0].numel())
    return count("unbounded", int((~case.success_with(eps=widest)).sum()), len(case.x))


def budget(case: Claim) -> CheckResult:
    """By how many rows success decreases at twice the radius."""
    wider = case.success_with(eps=2 * case.ball.eps)
    return count("budget", max(int(case.success.sum() - wider.sum()), 0), len(case.x))


def steps(case: Claim) -> CheckResult:
    """By how many rows success changes with twice the steps."""
    longer = case.success_with(steps_factor=2)
    return count("steps", abs(int(longer.sum() - case.success.sum())), len(case.x))


def convergence(case: Claim) -> CheckResult:
    """The share of the margin's decrease that came last (Pintor et al., 2022, arXiv:2106.09947)."""
    shares = [
        (margins[int((1 - LAST) * len(margins))] - margins[-1]) / (margins[0] - margins[-1])
        for _, seen in case.recorded[0]
        for margins in seen.history
        if margins and margins[0] > margins[-1] >= 0
    ]
    return share("convergence", float(torch.tensor(shares).median()) if shares else 0.0)


def silent_success(case: Claim) -> CheckResult:
    """Rows that were misclassified during the attack, but not at its end (Pintor et al., 2022, silent success)."""
    met = torch.zeros_like(case.success)
    for rows, seen in case.recorded[0]:
        met[rows] |= seen.lowest < 0
    return count("lost_best", int((met & ~case.success).sum()), len(case.x))


def restarts(case: Claim) -> CheckResult:
    """Rows on which the attacks succeed with two more random starts only."""
    again = case.success_with(seed=case.seed + 1, after=case.success)
    more = case.success_with(seed=case.seed + 2, after=again)
    return count("restarts", int((more & ~case.success).sum()), len(case.x))


def detector(case: Claim) -> CheckResult:
    """Rows on which an attack that avoids rejection succeeds (Carlini & Wagner, 2017, arXiv:1705.07263, section 3)."""
    if case.goal != EvadeDetector():
        return count("detector", 0, len(case.x))
    adaptive = APGD(case.ball, steps=STEPS, loss=DetectorAwareMargin(), goal=EvadeDetector())
    success = case.success_of([AttackRun(adaptive, case.claim[0].seen)], after=case.success)
    return count("detector", int((success & ~case.success).sum()), len(case.x))


def _loss_of(attack: BallAttack) -> Loss:
    """The loss that an attack maximises; the margin if it is a targeted loss or none is named."""
    loss = getattr(attack, "loss", Margin())
    return Margin() if isinstance(loss, TargetedDLR | TargetedMargin) else loss


PROBES: tuple[Probe, ...] = (
    gradients, randomness, probabilities, black_box_beats_white_box, unbounded, budget, steps, convergence,
    silent_success, restarts, detector,
)  # fmt: skip
