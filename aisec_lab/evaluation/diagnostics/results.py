"""The checks of a robust accuracy: their limits, what they mean, and their results."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class CheckInfo:
    """Explanation of a check.

    Args:
        title: the doubt in a few words.
        limit: a larger measurement raises the doubt. For counts it is a share of the rows, and never less than `FEWEST`
            rows.
        measured: what is measured, with its unit.
        why: why it matters.
        fix: what to do.
    """

    title: str
    limit: float
    measured: str
    why: str
    fix: str


FEWEST = 3  # rows; so many never raise a doubt, whatever share they are
CHECKS: Mapping[str, CheckInfo] = {
    "gradients": CheckInfo(
        "No gradient to follow",
        0.1,
        "share of the rows on which all losses that the attacks maximise have a gradient of zero",
        "A gradient-based attack does not move on such a row. Rounding, compression and saturated outputs have this "
        "effect without making a model more robust.",
        "Attack a differentiable approximation (`BPDA`), use a loss that does not saturate (`DLR`, `Margin`), or an "
        "attack without gradients (`Square`).",
    ),
    "randomness": CheckInfo(
        "The model is random",
        0.5,
        "spread of the attacked model's logits over repeated queries, relative to that of the model as it is used",
        "With a single draw of the noise, the attack gets a wrong direction, and a lucky prediction counts as robust.",
        "Attack the mean over many draws (`EOT`), and score with new draws.",
    ),
    "probabilities": CheckInfo(
        "Probabilities in place of logits",
        0.0,
        "1 if every answer is a probability distribution, else 0",
        "Losses apply a second softmax to them, so gradients shrink, and vanish if the model is confident.",
        "Let the model return the logits before its softmax.",
    ),
    "free_attack": CheckInfo(
        "A black-box attack is stronger",
        0.01,
        "rows that are misclassified under a black-box or transfer attack, and under no attack with gradients of the "
        "model itself",
        "A white-box attacker can do all that a black-box attacker can. If the latter succeeds more often, gradients "
        "mislead.",
        "Find out what masks the gradients; until then report the worst case over all attacks.",
    ),
    "unbounded": CheckInfo(
        "Robust without a bound on the perturbation",
        0.01,
        "rows that are robust when each pixel may take any value",
        "No classifier can be correct on an input that has been replaced entirely. So the attack fails.",
        "Raise steps and restarts, or change the loss; see `gradients`.",
    ),
    "budget": CheckInfo(
        "Less success with a larger budget",
        0.01,
        "by how many rows success decreases when eps is doubled",
        "All perturbations of size eps are allowed at twice eps too. So the search is not finding what exists.",
        "Check the step size relative to eps, and the projection.",
    ),
    "steps": CheckInfo(
        "More steps change the result",
        0.02,
        "by how many rows success changes when every attack takes twice the steps",
        "If success increases, the search had ended too early; if it decreases, gradients are misleading.",
        "Raise the steps until the number is stable.",
    ),
    "convergence": CheckInfo(
        "Not converged",
        0.05,
        "share of the margin's decrease in the last fifth of the queries; the median over robust rows",
        "A margin that was still decreasing would have decreased further.",
        "Raise the steps, or the step size.",
    ),
    "lost_best": CheckInfo(
        "The best point was not returned",
        0.005,
        "rows that were misclassified during the attack, and not at the point that it returned",
        "The attack had succeeded and returned another point. The attack has an error, or the model is random.",
        "Return the point of lowest margin, or stop at the first success; for a random model see `randomness`.",
    ),
    "restarts": CheckInfo(
        "Too few restarts",
        0.02,
        "rows that are misclassified with two more random starts and not with the first",
        "The result depends on the start of the search, so another start would lower the robust accuracy.",
        "Add restarts until the worst case over them is stable.",
    ),
    "detector": CheckInfo(
        "The detector was not attacked",
        0.01,
        "rows on which an adaptive attack on the reject option succeeds, and the attacks of the claim do not",
        "A detector is evaluated only by an attack that tries to evade it. An attack that ignores it measures how well "
        "the detector knows that attack.",
        "Attack with a goal and a loss that count a rejected input as a failure (`EvadeDetector`, "
        "`DetectorAwareMargin`).",
    ),
}


@dataclass(frozen=True)
class CheckResult:
    """The result of one check.

    Args:
        name: key of the check in `CHECKS`.
        measured: the measurement: a share, a ratio, or a number of rows.
        limit: a larger measurement raises the doubt.
    """

    name: str
    measured: float
    limit: float

    @property
    def raised(self) -> bool:
        """Whether the measurement exceeds the limit."""
        return self.measured > self.limit

    def row(self) -> dict[str, Any]:
        """A record of a table."""
        return {"finding": self.name, "measured": self.measured, "limit": self.limit, "raised": self.raised}


def share(name: str, measured: float) -> CheckResult:
    """The result of a check that measures a share or a ratio, with the limit from `CHECKS`."""
    return CheckResult(name, measured, CHECKS[name].limit)


def count(name: str, rows: int, n: int) -> CheckResult:
    """The result of a check that counts rows out of n; the limit is a share of n, and at least `FEWEST`."""
    return CheckResult(name, rows, max(FEWEST, CHECKS[name].limit * n))
