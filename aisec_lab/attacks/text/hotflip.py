"""HotFlip: the word and its replacement that the gradient asks for."""

import random
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from aisec_lab.attacks.evasion.search.goals import logit_margin
from aisec_lab.attacks.text.attack import TextAttackResult, check, check_share
from aisec_lab.attacks.text.edits import swapped
from aisec_lab.attacks.text.replacements import Replacements
from aisec_lab.attacks.text.search_state import SearchState
from aisec_lab.data import Texts
from aisec_lab.models import frozen
from aisec_lab.models.text import TextClassifier
from aisec_lab.models.words import MASKED, PAD, SPECIAL, tokenise


@dataclass(frozen=True)
class HotFlip:
    """Flip the word whose replacement, by the gradient, costs the true class most (Ebrahimi et al., 2018).

    arXiv:1712.06751, section 3.2, eq. 10, for words (section 5); the loss is the lead of the true class, and of the
    best `tries` flips by the gradient, the one that is best in truth is kept. Without `allowed` any word of the model's
    vocabulary may come in: then the text need not mean the same, and the attack measures what k words can do.

    Args of the call: as for `GreedyWordReplacement`; `model` holds one `TextClassifier`, whatever is wrapped around
    it. The gradient is taken at the words that it sees, through whatever stands before it; `generator` is unused.

    Returns:
        Texts of as many words, of which no more than `share` are others, but always one may be, each from the
        vocabulary, and from `allowed` where that is given.

    Raises:
        ValueError: as for `GreedyWordReplacement`; no `TextClassifier` in the model, or several.
    """

    share: float = 0.3  # of a text's words, and one word at least where it is not 0
    tries: int = 5
    allowed: Replacements | None = None
    early_stop: bool = True  # as for `GreedyWordReplacement`

    def __post_init__(self) -> None:
        check_share(self.share)
        if self.tries < 1:
            raise ValueError(
                f"tries counts the flips that are tested in a step and must be at least 1, got {self.tries}"
            )

    def learn(self, train: Texts) -> "HotFlip":
        """With allowed replacements that are learned from the victim's training texts."""
        return replace(self, allowed=self.allowed.learn(train)) if self.allowed else self

    def __call__(
        self, model: nn.Module, texts: Iterable[str], y: Tensor, *, generator: torch.Generator
    ) -> TextAttackResult:
        texts = check(model, texts, y)
        victim = victim_of(model)
        with frozen(model):
            found = SearchState(model, texts, y, self.share, self.early_stop)
            stuck: set[int] = set()
            while rows := [row for row in found.alive if row not in stuck]:
                current = [found.texts[row] for row in rows]
                found.queries[rows] += 1
                gains = first_order(model, victim, current, found.y[rows], found.read)  # (rows, L, V)
                versions = {row: self._flips(found, row, gain, victim) for row, gain in zip(rows, gains, strict=True)}
                stuck |= set(found.take(versions))
        return found.edited()

    def _flips(self, found: SearchState, row: int, gain: Tensor, victim: TextClassifier) -> list[str]:
        """The row's text with each of its best flips, by gain (L, V)."""
        text, words, numbers = found.texts[row], victim.vocabulary.words, victim.vocabulary.numbers
        tokens = tokenise(text)
        open_ = torch.zeros(gain.shape, dtype=torch.bool)
        for place in set(range(len(tokens))) - set(found.changed(row)):
            if self.allowed is None:
                open_[place, len(SPECIAL) :] = True
            else:
                options = self.allowed.options(tokens[place], random.Random(0))
                open_[place, [numbers[option] for option in options if option in numbers]] = True
            open_[place, numbers.get(tokens[place], PAD)] = False
        gain = torch.where(open_, gain, -torch.inf).flatten()
        best = gain.topk(min(self.tries, int(open_.sum()))).indices.tolist()
        return [swapped(text, flip // open_.shape[1], words[flip % open_.shape[1] - len(SPECIAL)]) for flip in best]


def victim_of(model: nn.Module) -> TextClassifier:
    """The one `TextClassifier` in a model; ValueError where there is none, or several."""
    found = [module for module in model.modules() if isinstance(module, TextClassifier)]
    if len(found) != 1:
        raise ValueError(
            f"HotFlip takes the gradients of one TextClassifier, the model has {len(found)}: use GreedyWordReplacement"
        )
    return found[0]


def first_order(
    model: nn.Module, victim: TextClassifier, texts: Sequence[str], y: Tensor, read: Callable[[Tensor], Tensor]
) -> Tensor:
    """By how much the lead of the true class would fall, by the gradient, with each word in each place.

    Args:
        model: classifier of texts, frozen; may show its victim several versions of each text, those of a text
            together, word for word.
        victim: the `TextClassifier` inside it.
        texts, y: n texts and their true classes.
        read: makes scores of the model's answers, as `Reading` does.

    Returns:
        Gains (n, L, V) on the CPU, L the longest text's words; a place that the victim does not see gains nothing.
    """
    (embedding,) = (module for module in victim.network.modules() if isinstance(module, nn.Embedding))
    seen: list[tuple[Tensor, Tensor]] = []

    def keep(module: nn.Module, inputs: tuple[Tensor, ...], vectors: Tensor) -> Tensor:
        seen.append((inputs[0], vectors.detach().requires_grad_()))
        return seen[-1][1]

    handle = embedding.register_forward_hook(keep)
    try:
        with torch.enable_grad():
            falling = -logit_margin(read(model(texts)), y.to(embedding.weight.device)).sum()
            ((numbers, vectors),) = seen
            (grad,) = torch.autograd.grad(falling, vectors)
    finally:
        handle.remove()
    grad = grad * ((numbers != MASKED) & (numbers != PAD)).unsqueeze(2)
    stay = (grad * vectors.detach()).sum(2, keepdim=True)
    copies = len(numbers) // len(texts)
    gains = grad.unflatten(0, (len(texts), copies)).sum(1) @ embedding.weight.T
    return (
        (gains - stay.unflatten(0, (len(texts), copies)).sum(1)).detach().cpu()[:, : max(len(t.split()) for t in texts)]
    )
