"""HotFlip: choose a word and its replacement by the gradient."""

import random
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from aisec_lab.attacks.evasion.search.goals import logit_margin
from aisec_lab.attacks.text.attack import TextAttackResult, check_share, check_texts
from aisec_lab.attacks.text.edits import replace_word
from aisec_lab.attacks.text.replacements import Replacements
from aisec_lab.attacks.text.search_state import SearchState
from aisec_lab.data import Texts
from aisec_lab.models import frozen
from aisec_lab.models.text import TextClassifier
from aisec_lab.models.words import MASKED, PAD, SPECIAL, tokenise


@dataclass(frozen=True)
class HotFlip:
    """Replace the word for which the gradient predicts the largest fall of the true class's margin.

    Ebrahimi et al. (2018, arXiv:1712.06751, section 3.2, eq. 10), for words (section 5). The loss is the margin of the
    true class. Of the best `tries` flips by the gradient, the one with the smallest margin is kept. Without `allowed`
    any word of the model's vocabulary may be inserted: then the text need not keep its meaning, and the attack measures
    the worst effect of k words.

    Call contract: docs/text-attacks.md. The model contains exactly one `TextClassifier`, possibly wrapped. The gradient
    is taken at the embeddings of the words that it sees, through what comes before it; nothing is drawn.

    Args:
        share: of a text's words that may change, in [0, 1]; one word always may, unless it is 0.
        tries: flips that are tested in a step, at least 1.
        allowed: source of the replacements that are allowed; None for the whole vocabulary.
        early_stop: whether a text is left alone once it is misclassified; take False against a randomised model, where
            that may be by chance.

    Raises:
        ValueError: settings out of range; on a call also no `TextClassifier` in the model, or several.
    """

    share: float = 0.3
    tries: int = 5
    allowed: Replacements | None = None
    early_stop: bool = True

    def __post_init__(self) -> None:
        check_share(self.share)
        if self.tries < 1:
            raise ValueError(
                f"tries counts the flips that are tested in a step and must be at least 1, got {self.tries}"
            )

    def learn(self, train: Texts) -> "HotFlip":
        """The same attack, with allowed replacements learned from the victim's training texts."""
        return replace(self, allowed=self.allowed.learn(train)) if self.allowed else self

    def __call__(
        self, model: nn.Module, texts: Iterable[str], y: Tensor, *, generator: torch.Generator
    ) -> TextAttackResult:
        texts = check_texts(model, texts, y)
        victim = find_text_classifier(model)
        with frozen(model):
            found = SearchState(model, texts, y, self.share, self.early_stop)
            stuck: set[int] = set()
            while rows := [row for row in found.active if row not in stuck]:
                current = [found.texts[row] for row in rows]
                found.queries[rows] += 1
                gains = replacement_gains(model, victim, current, found.y[rows], found.read)  # (rows, L, V)
                versions = {row: self._flips(found, row, gain, victim) for row, gain in zip(rows, gains, strict=True)}
                stuck |= set(found.update(versions))
        return found.result()

    def _flips(self, found: SearchState, row: int, gain: Tensor, victim: TextClassifier) -> list[str]:
        """The row's current text with each of its best flips, by gain (L, V)."""
        text, words, numbers = found.texts[row], victim.vocabulary.words, victim.vocabulary.numbers
        tokens = tokenise(text)
        allowed = torch.zeros(gain.shape, dtype=torch.bool)
        for place in set(range(len(tokens))) - set(found.changed(row)):
            if self.allowed is None:
                allowed[place, len(SPECIAL) :] = True
            else:
                options = self.allowed.options(tokens[place], random.Random(0))
                allowed[place, [numbers[option] for option in options if option in numbers]] = True
            allowed[place, numbers.get(tokens[place], PAD)] = False
        gain = torch.where(allowed, gain, -torch.inf).flatten()
        best = gain.topk(min(self.tries, int(allowed.sum()))).indices.tolist()
        flips = [divmod(flip, allowed.shape[1]) for flip in best]
        return [replace_word(text, place, words[number - len(SPECIAL)]) for place, number in flips]


def find_text_classifier(model: nn.Module) -> TextClassifier:
    """Find the one `TextClassifier` in a model; ValueError where there is none, or several."""
    found = [module for module in model.modules() if isinstance(module, TextClassifier)]
    if len(found) != 1:
        raise ValueError(
            f"HotFlip takes the gradients of one TextClassifier, the model has {len(found)}: use GreedyWordReplacement"
        )
    return found[0]


def replacement_gains(
    model: nn.Module, victim: TextClassifier, texts: Sequence[str], y: Tensor, read: Callable[[Tensor], Tensor]
) -> Tensor:
    """How much the true class's margin falls, to first order, when each word replaces each word of a text.

    Args:
        model: classifier of texts, frozen; it may give its victim several versions of each text, those of one text in
            succession and word for word.
        victim: the `TextClassifier` inside it.
        texts: n texts.
        y: their true classes (n,), int64.
        read: converts the model's outputs to scores, as `ScoreReader` does.

    Returns:
        Gains (n, L, V) on the CPU, with L the words of the longest text and V the size of the vocabulary; 0 for a word
        that the victim does not see.
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
