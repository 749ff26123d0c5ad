"""What every search over words keeps: the best text of each row so far, and the rows still in work."""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from aisec_lab.attacks.evasion.attack import Reading, check_answer
from aisec_lab.attacks.evasion.search.goals import logit_margin
from aisec_lab.attacks.text.attack import TextAttackResult, allowance
from aisec_lab.attacks.text.edits import differing
from aisec_lab.models.text import text_logits


class SearchState:
    """The text of lowest margin seen so far for each row, beginning with the row itself, one word after another.

    Args:
        model: classifier of texts, frozen; asked once about all rows.
        texts: clean texts, N.
        y: true classes (N,).
        share: of each text's words that may change.
        early_stop: whether a row is left alone once it is won.

    Attributes:
        texts: the texts, N.
        margin: the lead of the true class in each (N,), negative once the row is won.
        read: makes scores of the model's answers.

    Raises:
        ValueError: answers that are none, or what `Reading` refuses.
    """

    def __init__(self, model: nn.Module, texts: Sequence[str], y: Tensor, share: float, early_stop: bool) -> None:
        self.read = Reading(model)
        self.model, self.y, self.clean, self.texts = model, y.cpu(), tuple(texts), list(texts)
        self.paths = [[text] for text in texts]
        self.early_stop = early_stop
        self.queries = torch.zeros(len(self.texts), dtype=torch.int64)
        self.allowed = [allowance(len(text.split()), share) for text in texts]
        self.margin = self.margins(list(range(len(texts))), self.texts)

    @property
    def alive(self) -> list[int]:
        """The rows that still may and have to change."""
        won = (self.margin < 0).tolist()
        return [
            row
            for row, path in enumerate(self.paths)
            if len(path) <= self.allowed[row] and not (self.early_stop and won[row])
        ]

    def changed(self, row: int) -> list[int]:
        """The places of a row that are changed."""
        return differing(self.clean[row], self.texts[row])

    def margins(self, rows: list[int], texts: Sequence[str]) -> Tensor:
        """Margins of texts (n,), text i being a version of row `rows[i]`; each counts as a query of its row."""
        if not rows:
            return torch.empty(0)
        index = torch.tensor(rows)
        self.queries += index.bincount(minlength=len(self.texts))
        logits = self.read(text_logits(self.model, texts))
        check_answer(logits, self.y[index])
        return logit_margin(logits, self.y[index])

    def take(self, versions: Mapping[int, Sequence[str]]) -> list[int]:
        """Ask about versions of some rows, each with one more word changed; a row goes on from its lowest one.

        It stays where none is lower. Without early stop it is asked about anew for that, among its versions: where the
        model draws, its former margin may have been luck.

        Returns:
            The rows that stay.
        """
        if not self.early_stop:
            versions = {row: [*texts, self.texts[row]] for row, texts in versions.items()}
        rows = [row for row, texts in versions.items() for _ in texts]
        margins = iter(self.margins(rows, [text for texts in versions.values() for text in texts]).tolist())
        stay = []
        for row, texts in versions.items():
            lowest, text = min(((next(margins), text) for text in texts), default=(torch.inf, ""))
            if text == self.texts[row] or (self.early_stop and lowest >= self.margin[row]):
                stay.append(row)
            else:
                self.texts[row] = text
                self.paths[row].append(text)
            self.margin[row] = min(lowest, self.margin[row].item()) if self.early_stop else lowest
        return stay

    def edited(self) -> TextAttackResult:
        """What was found."""
        won = (self.margin < 0).tolist()
        texts = tuple(new if broken else old for old, new, broken in zip(self.clean, self.texts, won, strict=True))
        changed = torch.tensor([len(differing(*pair)) for pair in zip(self.clean, texts, strict=True)])
        words = torch.tensor([len(text.split()) for text in self.clean])
        distance = torch.where(torch.tensor(won), changed.double() / words.double(), torch.inf)
        return TextAttackResult(texts, changed.long(), distance, self.queries, tuple(map(tuple, self.paths)))
