"""Reasons to doubt a robust accuracy: each with its limit, and the page that says what it means."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class CheckInfo:
    """What a reader needs to know of a finding.

    Args:
        title: in a few words.
        limit: a measurement above it raises the finding; of counts, this share of the rows, but never fewer than
            `FEWEST` rows.
        measured: what is measured, with its unit.
        why: why it matters.
        mend: what to do.
    """

    title: str
    limit: float
    measured: str
    why: str
    mend: str


FEWEST = 3  # rows: fewer never count against a model, whatever share they are
PAGES: Mapping[str, CheckInfo] = {
    "gradients": CheckInfo(
        "No gradient to follow",
        0.1,
        "share of the rows on which none of the losses that the attacks climb has a gradient other than zero",
        "An attack that climbs a loss stays where it is on such a row. Rounding, compression and saturated outputs "
        "do this without making a model any safer.",
        "Attack through a differentiable stand-in (`BPDA`), on a loss that does not saturate (`DLR`, `Margin`), or "
        "without gradients (`Square`).",
    ),
    "randomness": CheckInfo(
        "The model answers differently each time",
        0.5,
        "spread of the attacked model's logits over repeated questions, relative to that of the model as it is used",
        "A single draw of the noise gives the attacker a wrong direction and a lucky answer counts as robust.",
        "Attack the mean over many draws (`EOT`), and score with fresh draws.",
    ),
    "probabilities": CheckInfo(
        "Probabilities in place of logits",
        0.0,
        "1 if every answer is a probability distribution, else 0",
        "Losses on logits take another softmax of them: their gradients shrink, and vanish where the model is sure.",
        "Let the model return what stands before its softmax.",
    ),
    "free_attack": CheckInfo(
        "An attack that sees less does better",
        0.01,
        "rows that fall to a search without gradients or to transfer from another model, and to no attack with "
        "gradients of the model itself",
        "Whoever knows the model can do all that others can. If they do better, the gradients mislead.",
        "Find out what hides the gradients; until then count every success of every attack (worst case).",
    ),
    "unbounded": CheckInfo(
        "Survives an attacker without bounds",
        0.01,
        "rows that stand when each pixel may be changed at will",
        "No classifier can be right on an input that has been replaced. The attack is failing, not the attacker.",
        "Raise steps and restarts, change the loss; see `gradients`.",
    ),
    "budget": CheckInfo(
        "A larger budget wins less",
        0.01,
        "by how many rows fewer fall when eps is doubled",
        "All that is allowed at eps is allowed at twice eps. The search does not use what it may.",
        "Check the step size against eps, and the projection.",
    ),
    "steps": CheckInfo(
        "More steps change the answer",
        0.02,
        "by how many rows the number of the fallen differs when every attack takes twice the steps",
        "If more fall, the search had been cut off too early; if fewer, it is led astray.",
        "Raise the steps until the number stands.",
    ),
    "convergence": CheckInfo(
        "Still getting better when it ended",
        0.05,
        "how much of all that the attack took off the margin it took in the last fifth of its questions; the median "
        "over the rows that stand",
        "What was still falling would have fallen further.",
        "Raise the steps, or the step size.",
    ),
    "lost_best": CheckInfo(
        "The best point was not returned",
        0.005,
        "rows that the model got wrong on the way, and right on the point that was returned",
        "The attack had won and did not say so. It is the attack that is broken, or the model that is random.",
        "Return the point of lowest margin, or stop at the first success; for a random model see `randomness`.",
    ),
    "restarts": CheckInfo(
        "Too few restarts",
        0.02,
        "rows that fall to two more random starts and not to the first",
        "The outcome hangs on where the search began. Its robust accuracy is an upper bound that one more try lowers.",
        "Add restarts until the worst case over them stands.",
    ),
    "detector": CheckInfo(
        "The detector was not attacked",
        0.01,
        "rows on which an attack that knows of the reject option wins, and this one did not",
        "Rejecting only counts if the attacker tries to be accepted. An attack that ignores the detector measures how "
        "well it knows one attack.",
        "Attack with the goal and the loss that count a rejected input as a failure (`EvadeDetector`).",
    ),
}


@dataclass(frozen=True)
class CheckResult:
    """One measurement that may speak against a robust accuracy; `name` is its page."""

    name: str
    measured: float
    limit: float

    @property
    def raised(self) -> bool:
        """Whether it does."""
        return self.measured > self.limit

    def row(self) -> dict[str, Any]:
        """As one record of a table."""
        return {"finding": self.name, "measured": self.measured, "limit": self.limit, "raised": self.raised}


def share(name: str, measured: float) -> CheckResult:
    """A finding on a share or a ratio, held against the limit on its page."""
    return CheckResult(name, measured, PAGES[name].limit)


def count(name: str, rows: int, n: int) -> CheckResult:
    """A finding on a number of rows out of n, held against the limit on its page, and never raised by `FEWEST`."""
    return CheckResult(name, rows, max(FEWEST, PAGES[name].limit * n))
