"""The measurements: each takes a case and gives a finding."""

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
ZERO = 1e-12  # a gradient whose every entry is below this is none
STEPS = 50  # of the attack that knows of a detector
LAST = 0.2  # share of an attack's questions in which it should have settled
WIDEST: dict[str, Callable[[int], float]] = {"Linf": lambda d: 1.0, "L2": lambda d: d**0.5, "L1": float, "L0": int}


def gradients(case: Claim) -> CheckResult:
    """The share of rows on which no loss that the attacks climb has a gradient (Athalye et al., 2018, section 3)."""
    largest = torch.zeros(len(case.x), dtype=case.x.dtype, device=case.x.device)
    for loss, seen in {(_climbed(attempt.attack), attempt.seen) for attempt in case.claim}:
        x = case.x.clone().requires_grad_()
        with frozen(seen), seeded(seen, case.generator(case.seed)), torch.enable_grad():
            climbed = loss(seen(x), case.y)
            if climbed.requires_grad:
                (grad,) = torch.autograd.grad(climbed.sum(), x)
                largest = torch.maximum(largest, grad.nan_to_num().flatten(1).abs().amax(1))
    return share("gradients", (largest < ZERO).double().mean().item())


def randomness(case: Claim) -> CheckResult:
    """How random the steadiest attacked classifier is, against the model itself; 0 for a model that is not random."""
    if not case.spread > ALIKE:
        return share("randomness", 0.0)
    return share("randomness", min(case.spread_of(seen) for seen in {seen for _, seen in case.claim}) / case.spread)


def probabilities(case: Claim) -> CheckResult:
    """Whether the answers are a softmax already, of a model that has not declared it."""
    seen = case.claim[0].seen
    logits = as_scores(case.logits(seen, case.seed), declared_within(seen))
    distribution = bool((logits >= 0).all() and torch.allclose(logits.sum(1), torch.ones_like(logits[:, 0]), atol=1e-3))
    return share("probabilities", float(distribution))


def black_box_beats_white_box(case: Claim) -> CheckResult:
    """Rows that only an attack without the model's gradients breaks: a search, or transfer from a surrogate."""
    return count("free_attack", int((case.broken_by_any & ~case.broken).sum()), len(case.x))


def unbounded(case: Claim) -> CheckResult:
    """Rows that stand in a ball as wide as the box (Athalye et al., 2018, section 3.1)."""
    widest = WIDEST[case.ball.name](case.x[0].numel())
    return count("unbounded", int((~case.broken_with(eps=widest)).sum()), len(case.x))


def budget(case: Claim) -> CheckResult:
    """How many rows fewer fall at twice the budget."""
    wider = case.broken_with(eps=2 * case.ball.eps)
    return count("budget", max(int(case.broken.sum() - wider.sum()), 0), len(case.x))


def steps(case: Claim) -> CheckResult:
    """How the number of the fallen changes with twice the steps."""
    longer = case.broken_with(stretch=2)
    return count("steps", abs(int(longer.sum() - case.broken.sum())), len(case.x))


def convergence(case: Claim) -> CheckResult:
    """What share of the fall came last (Pintor et al., 2022, arXiv:2106.09947, indicator of convergence)."""
    shares = [
        (falls[int((1 - LAST) * len(falls))] - falls[-1]) / (falls[0] - falls[-1])
        for _, seen in case.watched[0]
        for falls in seen.falls
        if falls and falls[0] > falls[-1] >= 0
    ]
    return share("convergence", float(torch.tensor(shares).median()) if shares else 0.0)


def silent_success(case: Claim) -> CheckResult:
    """Rows that were won on the way and handed back unwon (Pintor et al., 2022, silent success)."""
    won = torch.zeros_like(case.broken)
    for rows, seen in case.watched[0]:
        won[rows] |= seen.lowest < 0
    return count("lost_best", int((won & ~case.broken).sum()), len(case.x))


def restarts(case: Claim) -> CheckResult:
    """Rows that two more random starts break."""
    again = case.broken_with(seed=case.seed + 1, after=case.broken)
    more = case.broken_with(seed=case.seed + 2, after=again)
    return count("restarts", int((more & ~case.broken).sum()), len(case.x))


def detector(case: Claim) -> CheckResult:
    """Rows that fall once the attack tries not to be rejected (Carlini & Wagner, 2017, arXiv:1705.07263, section 3)."""
    if case.goal != EvadeDetector():
        return count("detector", 0, len(case.x))
    knowing = APGD(case.ball, steps=STEPS, loss=DetectorAwareMargin(), goal=EvadeDetector())
    fallen = case.broken_by([AttackRun(knowing, case.claim[0].seen)], after=case.broken)
    return count("detector", int((fallen & ~case.broken).sum()), len(case.x))


def _climbed(attack: BallAttack) -> Loss:
    """The loss whose gradient an attack follows; of a targeted one, and where it names none, the margin."""
    loss = getattr(attack, "loss", Margin())
    return Margin() if isinstance(loss, TargetedDLR | TargetedMargin) else loss


PROBES: tuple[Probe, ...] = (
    gradients, randomness, probabilities, black_box_beats_white_box, unbounded, budget, steps, convergence,
    silent_success, restarts, detector,
)  # fmt: skip
