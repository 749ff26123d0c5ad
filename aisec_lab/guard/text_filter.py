"""A filter of texts: characters that look like others, that nobody sees, and texts that are too long."""

import re
from dataclasses import dataclass

import torch

from aisec_lab.defenses.text.normalisation import normalise_word
from aisec_lab.guard.filters import FilterDecision, FilterResult

WORD = re.compile(r"\S+")


@dataclass(frozen=True)
class TextFilter:
    """Rewrite words that hide their characters, and reject texts that are full of them or too long.

    A word is rewritten as it is displayed, with homoglyphs replaced by Latin letters (`normalise_word`). The score is
    the share of the words that were rewritten, and infinite for a text that is too long. So texts in Greek, Cyrillic or
    a right-to-left script are rejected or destroyed: use it where texts are in the Latin script. Call contract:
    docs/guard.md, "Filter".

    Args:
        longest: most characters of a text, at least 1.
        most: the largest share of rewritten words that passes, in [0, 1].
        name: of the filter.

    Raises:
        ValueError: a setting out of range.
    """

    longest: int = 10_000
    most: float = 0.2
    name: str = "text"

    def __post_init__(self) -> None:
        if self.longest < 1 or not 0 <= self.most <= 1:
            raise ValueError(f"longest must be positive and most lie in [0, 1], got {self.longest} and {self.most}")

    def check(self, rows: tuple[str, ...], *, client: str) -> FilterResult[tuple[str, ...]]:
        judged = [self._judge(text) for text in rows]
        texts, decisions, scores, reasons = zip(*judged, strict=True) if judged else ((), (), (), ())
        return FilterResult(texts, torch.tensor(decisions).long(), torch.tensor(scores).double(), reasons)

    def _judge(self, text: str) -> tuple[str, FilterDecision, float, str]:
        if len(text) > self.longest:
            return (
                text,
                FilterDecision.REJECT,
                float("inf"),
                f"{self.name}: {len(text)} characters are above {self.longest}",
            )
        words = WORD.findall(text)
        plain = [normalise_word(word) for word in words]
        rewritten = sum(new != old for new, old in zip(plain, words, strict=True))
        share = rewritten / max(len(words), 1)
        if not rewritten:
            return text, FilterDecision.PASS, 0.0, ""
        hidden = f"{self.name}: {rewritten} of {len(words)} words hide characters"
        if share > self.most:
            return text, FilterDecision.REJECT, share, f"{hidden}, above {self.most:.4g}"
        as_displayed = iter(plain)
        return WORD.sub(lambda _: next(as_displayed), text), FilterDecision.SANITISE, share, f"{hidden}, rewritten"
