"""Randomised masking: the class that wins most often when only some words of a text are shown."""

import random
from collections.abc import Iterable
from dataclasses import dataclass
from numbers import Integral

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from aisec_lab.data import TextSplits, as_texts
from aisec_lab.defenses.certification.smoothing import log_mean_probability
from aisec_lab.models.text import TextTraining
from aisec_lab.models.words import MASK, MASKED, PAD


def check_keep(keep: float, **counts: int) -> None:
    """Refuse, with a ValueError, a share of shown words outside (0, 1] and counts below 1."""
    if not 0 < keep <= 1:
        raise ValueError(f"keep, the share of a text's words that the model is shown, must lie in (0, 1], got {keep}")
    for name, count in counts.items():
        if not (isinstance(count, Integral) and count >= 1):
            raise ValueError(f"{name} counts masked copies of a text and must be an integer of at least 1, got {count}")


def shown(words: int, keep: float) -> int:
    """How many of a text's words stay when the rest is masked: at least one."""
    return max(1, round(keep * words))


def masked_copies(text: str, keep: float, copies: int, key: str) -> list[str]:
    """Copies of a text, each with another random choice of its words left in; the same for the same text and key."""
    words, rng, found = text.split(), random.Random(f"{key} {text}"), []
    for _ in range(copies):
        copy = [MASK] * len(words)
        for place in rng.sample(range(len(words)), shown(len(words), keep)):
            copy[place] = words[place]
        found.append(" ".join(copy))
    return found


class MaskedModel(nn.Module):
    """The classifier g(x) = argmax_c P(f(x with all but k words masked) = c) by Monte Carlo, scores as in `Smoothed`.

    Args:
        model: the base classifier f of texts.
        keep: share of the words that are left.
        samples: masked copies of a text in one pass.

    Attributes:
        generator: source of the masks, which belong to the text; bound by `seeded`.
    """

    generator: torch.Generator | None = None

    def __init__(self, model: nn.Module, keep: float, samples: int) -> None:
        super().__init__()
        check_keep(keep, samples=samples)
        self.model, self.keep, self.samples = model, keep, samples

    def forward(self, texts: Iterable[str]) -> Tensor:
        """Scores (N, K) of N texts; ValueError where no generator is bound, and for what are no texts."""
        if self.generator is None:
            raise ValueError("a masked model draws and no generator is bound: use `with seeded(model, generator):`")
        texts = as_texts(texts)
        key = str(int(torch.randint(2**62, (), generator=self.generator)))
        copies = [copy for text in texts for copy in masked_copies(text, self.keep, self.samples, key)]
        logits = self.model(copies).unflatten(0, (len(texts), self.samples))
        soft = log_mean_probability(logits)
        votes = F.one_hot(logits.argmax(2), logits.shape[2]).sum(1)
        shares = ((votes + soft.exp()) / (self.samples + 1)).log()
        return shares.detach() + soft - soft.detach()


@dataclass(frozen=True)
class MaskedWords:
    """Cross-entropy with words masked at random, one copy a text (Zeng et al., 2023, arXiv:2105.03743, section 3.1).

    Args of the call:
        model: network over numbers of words, in training mode.
        x, y: numbers (N, L), int64, and classes (N,).
        generator: source of the masks.

    Returns:
        Losses (N,), with their graph.
    """

    keep: float

    def __post_init__(self) -> None:
        check_keep(self.keep)

    def __call__(self, model: nn.Module, x: Tensor, y: Tensor, *, generator: torch.Generator) -> Tensor:
        lot = torch.rand(x.shape, generator=generator).to(x.device).masked_fill(x == PAD, torch.inf)
        stay = (self.keep * (x != PAD).sum(1, keepdim=True)).round().clamp(min=1)
        hidden = (lot.argsort(1).argsort(1) >= stay) & (x != PAD)
        return F.cross_entropy(model(torch.where(hidden, MASKED, x)), y, reduction="none")


@dataclass(frozen=True)
class RandomMasking:
    """Train with masks and vote over masks (RanMASK; Zeng et al., 2023, arXiv:2105.03743).

    What it proves is said by `certify_words`. Called as `TextDefense` says.
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
