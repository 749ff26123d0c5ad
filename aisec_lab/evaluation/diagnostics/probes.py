"""The measurements: each takes a case and gives a finding."""

from collections.abc import Callable

import torch
from torch import Tensor

from aisec_lab.attacks import APGD, Margin, TargetedDLR, TargetedMargin, Undetected, UndetectedMargin
from aisec_lab.evaluation.diagnostics.case import Case
from aisec_lab.evaluation.diagnostics.findings import Finding, count, share
from aisec_lab.models import frozen, seeded

Probe = Callable[[Case], Finding]
ZERO = 1e-12  # a gradient whose every entry is below this is none
DRAWS = 8  # questions about each row that show how random a model is
ALIKE = 1e-4  # logits that differ by less, relative to their own size, are the same but for rounding
STEPS = 50  # of the attack that knows of a detector
LAST = 0.2  # share of an attack's questions in which it should have settled
WIDEST: dict[str, Callable[[int], float]] = {"Linf": lambda d: 1.0, "L2": lambda d: d**0.5, "L1": float, "L0": int}


def gradients(case: Case) -> Finding:
    """The share of rows on which no loss that the attacks climb has a gradient (Athalye et al., 2018, section 3)."""
    largest = torch.zeros(len(case.x), dtype=case.x.dtype, device=case.x.device)
    losses = {getattr(attack, "loss", Margin()) for attack in case.white}
    for loss in {Margin() if isinstance(loss, TargetedDLR | TargetedMargin) else loss for loss in losses}:
        x = case.x.clone().requires_grad_()
        with frozen(case.surface), seeded(case.surface, case.generator(case.seed)), torch.enable_grad():
            climbed = loss(case.surface(x), case.y)
            if climbed.requires_grad:
                (grad,) = torch.autograd.grad(climbed.sum(), x)
                largest = torch.maximum(largest, grad.nan_to_num().flatten(1).abs().amax(1))
    return share("gradients", (largest < ZERO).double().mean().item())


def randomness(case: Case) -> Finding:
    """How random the attacked model is, against the model itself; 0 for a model that is not random."""
    spread = _spread(case, case.model)
    return share("randomness", _spread(case, case.surface) / spread if spread > ALIKE else 0.0)


def probabilities(case: Case) -> Finding:
    """Whether the answers are a softmax already."""
    logits = case.logits(case.surface, case.seed)
    distribution = bool((logits >= 0).all() and torch.allclose(logits.sum(1), torch.ones_like(logits[:, 0]), atol=1e-3))
    return share("probabilities", float(distribution))


def free_attack(case: Case) -> Finding:
    """Rows that only the attack without gradients breaks."""
    return count("free_attack", int((case.broken_freely & ~case.broken).sum()), len(case.x))


def unbounded(case: Case) -> Finding:
    """Rows that stand in a ball as wide as the box (Athalye et al., 2018, section 3.1)."""
    widest = WIDEST[case.white[0].ball.name](case.x[0].numel())
    return count("unbounded", int((~case.broken_with(eps=widest)).sum()), len(case.x))


def budget(case: Case) -> Finding:
    """How many rows fewer fall at twice the budget."""
    wider = case.broken_with(eps=2 * case.white[0].ball.eps)
    return count("budget", max(int(case.broken.sum() - wider.sum()), 0), len(case.x))


def steps(case: Case) -> Finding:
    """How the number of the fallen changes with twice the steps."""
    longer = case.broken_with(stretch=2)
    return count("steps", abs(int(longer.sum() - case.broken.sum())), len(case.x))


def convergence(case: Case) -> Finding:
    """What share of the fall came last (Pintor et al., 2022, arXiv:2106.09947, indicator of convergence)."""
    shares = [
        (falls[int((1 - LAST) * len(falls))] - falls[-1]) / (falls[0] - falls[-1])
        for _, seen in case.watched[0]
        for falls in seen.falls
        if falls and falls[0] > falls[-1] >= 0
    ]
    return share("convergence", float(torch.tensor(shares).median()) if shares else 0.0)


def lost_best(case: Case) -> Finding:
    """Rows that were won on the way and handed back unwon (Pintor et al., 2022, silent success)."""
    won = torch.zeros_like(case.broken)
    for rows, seen in case.watched[0]:
        won[rows] |= seen.lowest < 0
    return count("lost_best", int((won & ~case.broken).sum()), len(case.x))


def restarts(case: Case) -> Finding:
    """Rows that two more random starts break."""
    more = case.broken_with(seed=case.seed + 1) | case.broken_with(seed=case.seed + 2)
    return count("restarts", int((more & ~case.broken).sum()), len(case.x))


def detector(case: Case) -> Finding:
    """Rows that fall once the attack tries not to be rejected (Carlini & Wagner, 2017, arXiv:1705.07263, section 3)."""
    if case.goal != Undetected():
        return count("detector", 0, len(case.x))
    knowing = APGD(case.white[0].ball, steps=STEPS, loss=UndetectedMargin(), goal=Undetected())
    return count("detector", int((case.broken_by([knowing]) & ~case.broken).sum()), len(case.x))


def _spread(case: Case, model: torch.nn.Module) -> float:
    """The standard deviation of a row's logits over draws, relative to the size of its logits; a median over rows."""
    draws: Tensor = torch.stack([case.logits(model, draw) for draw in range(DRAWS)])  # (DRAWS, N, K)
    size = (draws - draws.mean(2, keepdim=True)).abs().mean((0, 2)).clamp(min=ZERO)
    return float((draws.std(0).mean(1) / size).median())


PROBES: tuple[Probe, ...] = (
    gradients, randomness, probabilities, free_attack, unbounded, budget, steps, convergence, lost_best, restarts,
    detector,
)  # fmt: skip
