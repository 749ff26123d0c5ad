"""Randomised masking: classify a text by the class that is most probable when random words are masked."""

import random
from collections.abc import Iterable
from dataclasses import dataclass
from numbers import Integral

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from aisec_lab.data import TextSplits, as_texts
from aisec_lab.defenses.certification.smoothing import log_mean_probability, straight_through
from aisec_lab.models.text import TextTraining
from aisec_lab.models.words import MASK, MASKED, PAD


def check_keep(keep: float, **counts: int) -> None:
    """Check the settings of a masked classifier.

    Args:
        keep: share of a text's words that stay visible, in (0, 1].
        counts: numbers of masked copies by name; integers of at least 1.

    Raises:
        ValueError: one of them out of range.
    """
    if not 0 < keep <= 1:
        raise ValueError(f"keep, the share of a text's words that the model is shown, must lie in (0, 1], got {keep}")
    for name, count in counts.items():
        if not (isinstance(count, Integral) and count >= 1):
            raise ValueError(f"{name} counts masked copies of a text and must be an integer of at least 1, got {count}")


def kept_words(words: int, keep: float) -> int:
    """How many of a text's words stay visible when the others are masked: at least one."""
    return max(1, round(keep * words))


def masked_copies(text: str, keep: float, copies: int, key: str) -> list[str]:
    """Copies of a text with random words masked; the same text and key give the same copies.

    Args:
        text: words between whitespace.
        keep: share of the words that stay visible in each copy.
        copies: how many.
        key: seeds the choice, together with the text.

    Returns:
        The copies, words between single spaces.
    """
    words, rng, masked = text.split(), random.Random(f"{key} {text}"), []
    for _ in range(copies):
        copy = [MASK] * len(words)
        for place in rng.sample(range(len(words)), kept_words(len(words), keep)):
            copy[place] = words[place]
        masked.append(" ".join(copy))
    return masked


class MaskedModel(nn.Module):
    """The classifier g(x) = argmax_c P(f(x with all but k words masked) = c) by Monte Carlo; scores as in `Smoothed`.

    Args:
        model: base classifier f of texts.
        keep: share of a text's words that stay visible.
        samples: masked copies for each text and pass.

    Attributes:
        generator: source of the masks, which depend on the text as well; bound by `seeded`.

    Raises:
        ValueError: keep or samples out of range; on a call, no generator is bound, or the input is no list of texts.
    """

    generator: torch.Generator | None = None

    def __init__(self, model: nn.Module, keep: float, samples: int) -> None:
        super().__init__()
        check_keep(keep, samples=samples)
        self.model, self.keep, self.samples = model, keep, samples

    def forward(self, texts: Iterable[str]) -> Tensor:
        """Log-probabilities (N, K) of N texts."""
        if self.generator is None:
            raise ValueError("a masked model draws and no generator is bound: use `with seeded(model, generator):`")
        texts = as_texts(texts)
        key = str(int(torch.randint(2**62, (), generator=self.generator)))
        copies = [copy for text in texts for copy in masked_copies(text, self.keep, self.samples, key)]
        logits = self.model(copies).unflatten(0, (len(texts), self.samples))
        return straight_through(logits, log_mean_probability(logits))


@dataclass(frozen=True)
class MaskedWords:
    """Cross-entropy with words masked at random, one copy a text (Zeng et al., 2023, arXiv:2105.03743, section 3.1).

    Call contract: docs/defenses.md, "Objective"; but x are word numbers (N, L), int64, and not pixels.

    Args:
        keep: share of a text's words that stay visible, in (0, 1].
    """

    keep: float

    def __post_init__(self) -> None:
        check_keep(self.keep)

    def __call__(self, model: nn.Module, x: Tensor, y: Tensor, *, generator: torch.Generator) -> Tensor:
        order = torch.rand(x.shape, generator=generator).to(x.device).masked_fill(x == PAD, torch.inf)
        kept = (self.keep * (x != PAD).sum(1, keepdim=True)).round().clamp(min=1)
        masked = (order.argsort(1).argsort(1) >= kept) & (x != PAD)
        return F.cross_entropy(model(torch.where(masked, MASKED, x)), y, reduction="none")


@dataclass(frozen=True)
class RandomMasking:
    """RanMASK: train under random masks and predict the most probable class under them (Zeng et al., 2023).

    arXiv:2105.03743. Call contract: docs/defenses.md; it returns a `MaskedModel`. `certify_words` gives its guarantee.

    Args:
        keep: share of a text's words that stay visible, in (0, 1].
        samples: masked copies for each text and pass, at least 1.
    """

    keep: float = 0.2
    samples: int = 30

    def __post_init__(self) -> None:
        check_keep(self.keep, samples=self.samples)

    def __call__(
        self, model: nn.Module, *, data: TextSplits, training: TextTraining, generator: torch.Generator
    ) -> nn.Module:
        base = training(data.train, MaskedWords(self.keep), generator=generator)
        return MaskedModel(base, self.keep, self.samples).eval()
