"""Certified robustness of a masked text classifier: how many words may be replaced without changing its class."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from math import comb

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from aisec_lab.attacks.text.attack import check_texts, max_changes
from aisec_lab.core.binomial import lower_bound
from aisec_lab.core.validation import check_output
from aisec_lab.data import as_texts
from aisec_lab.defenses.certification.smoothing_certificate import ABSTAIN
from aisec_lab.defenses.text.masking import check_keep, kept_words, masked_copies
from aisec_lab.models import frozen
from aisec_lab.models.text import text_logits

GROUP = 20  # texts whose copies are in memory at a time


def overlap_probability(words: int, kept: int, changed: int) -> float:
    """The probability that a random subset of the words contains a changed one (Levine & Feizi, 2020, eq. 4).

    arXiv:1911.09272; it is 1 - C(words - changed, kept) / C(words, kept).

    Args:
        words: of the text.
        kept: size of the subset.
        changed: words that an attacker replaces.

    Returns:
        A probability.
    """
    return 1 - comb(words - changed, kept) / comb(words, kept)


def certified_words(p_lower: float, words: int, kept: int) -> int:
    """The largest number of replaced words after which a class is still that of more than half of all masks.

    Args:
        p_lower: lower bound on the probability of the class under a random mask of the unchanged text.
        words: of the text.
        kept: words that a mask leaves visible.

    Returns:
        The largest d with p_lower - overlap_probability(d) > 1/2; -1 where d = 0 does not satisfy it.
    """
    return max((d for d in range(words + 1) if p_lower - overlap_probability(words, kept, d) > 0.5), default=-1)


@dataclass(frozen=True, eq=False)
class WordCertificate:
    """The outcome of `certify_words`; what it says of a text holds with confidence 1 - alpha.

    Zeng et al. (2023, arXiv:2105.03743).

    Args:
        classes: predicted class (N,), int64, or `ABSTAIN`.
        words: certified number of words (N,), int64: replacing any so many, by any words, leaves the class; 0 on
            abstention. Insertions and deletions are not covered.
        lengths: numbers of words of the texts (N,), int64.
        alpha: failure probability.
    """

    classes: Tensor
    words: Tensor
    lengths: Tensor
    alpha: float

    def holds(self, y: Tensor, share: float) -> Tensor:
        """Which texts are certified to have class y whatever replaces a share of their words.

        Args:
            y: classes (N,), int64.
            share: of a text's words, in [0, 1].

        Returns:
            Bool (N,).
        """
        allowed = torch.tensor([max_changes(length, share) for length in self.lengths.tolist()])
        return (self.classes == y) & (self.words >= allowed)


def certify_words(
    model: nn.Module,
    texts: Iterable[str],
    *,
    keep: float,
    n0: int = 100,
    n: int = 1000,
    alpha: float = 0.001,
    generator: torch.Generator,
) -> WordCertificate:
    """Certify a class and a number of words whose replacement cannot change it.

    Randomised ablation (Levine & Feizi, 2020, arXiv:1911.09272, theorem 1) of words (Zeng et al., 2023,
    arXiv:2105.03743). The confidence is exact: unlike the latter, it estimates no beta from the same copies.

    Args:
        model: base classifier of texts in evaluation mode, best trained with `MaskedWords` at the same `keep`.
        texts: N texts.
        keep: share of a text's words that stay visible in a copy, in (0, 1].
        n0: copies for selection: they guess the top class.
        n: copies for estimation: they bound the top class's probability. They are drawn anew.
        alpha: failure probability, in (0, 1): the bound on how often a text's class or number of words is wrong.
        generator: source of the masks; those of a text depend on it and on the text only.

    Returns:
        The certificate.

    Raises:
        ValueError: no texts of words (`as_texts`), a model in training mode, or keep, n0, n or alpha out of range.
    """
    texts = as_texts(texts)
    check_texts(model, texts, torch.zeros(len(texts), dtype=torch.int64))
    check_keep(keep, n0=n0, n=n)
    if not 0 < alpha < 1:
        raise ValueError(f"alpha, the share of wrong certificates, must lie in (0, 1), got {alpha}")
    with frozen(model):
        top = _sample_counts(model, texts, keep, n0, generator).argmax(1)
        count = _sample_counts(model, texts, keep, n, generator).gather(1, top[:, None]).squeeze(1)
    lengths = [len(text.split()) for text in texts]
    bounds: list[float] = lower_bound(np.asarray(count), n, alpha).tolist()
    words = torch.tensor(
        [certified_words(p, length, kept_words(length, keep)) for p, length in zip(bounds, lengths, strict=True)]
    )
    classes = torch.where(words >= 0, top, ABSTAIN)
    return WordCertificate(classes, words.clamp(min=0), torch.tensor(lengths), alpha)


def _sample_counts(
    model: nn.Module, texts: Sequence[str], keep: float, copies: int, generator: torch.Generator
) -> Tensor:
    """Counts (N, K): in how many masked copies of each text the base classifier predicts each class."""
    key = str(int(torch.randint(2**62, (), generator=generator)))
    counts = []
    for start in range(0, len(texts), GROUP):
        group = texts[start : start + GROUP]
        logits = text_logits(model, [copy for text in group for copy in masked_copies(text, keep, copies, key)])
        check_output(logits, torch.zeros(0, dtype=torch.int64))
        counts.append(F.one_hot(logits.argmax(1), logits.shape[1]).unflatten(0, (len(group), copies)).sum(1))
    return torch.cat(counts)
