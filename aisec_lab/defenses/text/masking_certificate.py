"""How many words of a text may change without changing what a masked classifier says of it."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from math import comb

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from aisec_lab.attacks.evasion.attack import check_answer
from aisec_lab.attacks.text.attack import check, max_changes
from aisec_lab.core.binomial import lower_bound
from aisec_lab.data import as_texts
from aisec_lab.defenses.certification.smoothing_certificate import ABSTAIN
from aisec_lab.defenses.text.masking import check_keep, masked_copies, shown
from aisec_lab.models import frozen
from aisec_lab.models.text import text_logits

GROUP = 20  # texts whose copies are held at a time


def touched(words: int, kept: int, changed: int) -> float:
    """The probability that a random choice of `kept` of so many words holds one of `changed` given ones.

    Levine & Feizi (2020, arXiv:1911.09272, eq. 4): 1 - C(words - changed, kept) / C(words, kept).
    """
    return 1 - comb(words - changed, kept) / comb(words, kept)


def provable_words(p_lower: float, words: int, kept: int) -> int:
    """The largest number of changed words after which a class still has more than half of all choices of words.

    Args:
        p_lower: a lower bound on the share of choices, of the text as it is, that are for the class.
        words, kept: of the text, and how many of them a choice shows.

    Returns:
        The largest d with p_lower - touched(d) > 1/2; -1 where even d = 0 has not.
    """
    return max((d for d in range(words + 1) if p_lower - touched(words, kept, d) > 0.5), default=-1)


@dataclass(frozen=True, eq=False)
class WordCertificate:
    """What `certify_words` proves, each text with confidence 1 - alpha.

    Attributes:
        classes: the masked classifier's class (N,), int64, or `ABSTAIN`.
        words: (N,), int64: so many words, any and by any others, may be replaced, and the class is the same; 0 where
            it abstains. Words must not be put in or taken out.
        lengths: the texts' numbers of words (N,), int64.
        alpha: how often, at most, what is said of a text is not true.
    """

    classes: Tensor
    words: Tensor
    lengths: Tensor
    alpha: float

    def holds(self, y: Tensor, share: float) -> Tensor:
        """Which texts (N,) are proved to have class y (N,) whatever that share of their words is replaced by."""
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
    """A class and a number of words that no replacement of so many words changes.

    Randomised ablation (Levine & Feizi, 2020, arXiv:1911.09272, theorem 1) of words (Zeng et al., 2023,
    arXiv:2105.03743), with exact confidence: no beta is estimated from the same copies.

    Args:
        model: the base classifier of texts in evaluation mode, best trained with `MaskedWords` at the same `keep`.
        texts: N texts.
        keep: share of the words that a copy shows.
        n0: copies that choose the class; others than those that bound its probability.
        n: copies that bound it.
        alpha: how often, at most, a text is given a class and a number that are not true of the masked classifier.
        generator: source of the masks; those of a text depend on it and on the text only.

    Returns:
        The certificate.

    Raises:
        ValueError: what are no texts of words (`as_texts`), a model in training mode, a keep, n0, n or alpha that is
            no such thing.
    """
    texts = as_texts(texts)
    check(model, texts, torch.zeros(len(texts), dtype=torch.int64))
    check_keep(keep, n0=n0, n=n)
    if not 0 < alpha < 1:
        raise ValueError(f"alpha, the share of wrong certificates, must lie in (0, 1), got {alpha}")
    with frozen(model):
        choice = _votes(model, texts, keep, n0, generator).argmax(1)
        own = _votes(model, texts, keep, n, generator).gather(1, choice[:, None]).squeeze(1)
    lengths = [len(text.split()) for text in texts]
    bounds: list[float] = lower_bound(np.asarray(own), n, alpha).tolist()
    proved = torch.tensor(
        [provable_words(p, length, shown(length, keep)) for p, length in zip(bounds, lengths, strict=True)]
    )
    classes = torch.where(proved >= 0, choice, ABSTAIN)
    return WordCertificate(classes, proved.clamp(min=0), torch.tensor(lengths), alpha)


def _votes(model: nn.Module, texts: Sequence[str], keep: float, copies: int, generator: torch.Generator) -> Tensor:
    """Votes (N, K) of so many masked copies of each text."""
    key = str(int(torch.randint(2**62, (), generator=generator)))
    votes = []
    for start in range(0, len(texts), GROUP):
        group = texts[start : start + GROUP]
        logits = text_logits(model, [copy for text in group for copy in masked_copies(text, keep, copies, key)])
        check_answer(logits, torch.zeros(0, dtype=torch.int64))
        votes.append(F.one_hot(logits.argmax(1), logits.shape[1]).unflatten(0, (len(group), copies)).sum(1))
    return torch.cat(votes)
