"""The state of a search over words: the best text of each row so far, and the rows that are still attacked."""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from aisec_lab.attacks.evasion.attack import ScoreReader
from aisec_lab.attacks.evasion.search.goals import logit_margin
from aisec_lab.attacks.text.attack import TextAttackResult, max_changes
from aisec_lab.attacks.text.edits import changed_places
from aisec_lab.core.validation import check_output
from aisec_lab.models.text import text_logits


class SearchState:
    """For each row the text of the lowest margin so far, found by changing one word after another.

    Args:
        model: classifier of texts, frozen; it is queried once about each clean text.
        texts: N clean texts.
        y: true classes (N,), int64.
        share: of each text's words that may change, in [0, 1].
        early_stop: whether a row is left alone once it is misclassified.

    Attributes:
        texts: N current texts.
        margin: margin of the true class for each (N,), negative for a misclassified one.
        queries: of each row (N,), int64.
        paths: for each row, its texts with 0, 1, 2, ... words changed.
        read: converts the model's outputs to scores.

    Raises:
        ValueError: outputs that are no scores, or what `ScoreReader` refuses.
    """

    def __init__(self, model: nn.Module, texts: Sequence[str], y: Tensor, share: float, early_stop: bool) -> None:
        self.read = ScoreReader(model)
        self.model, self.y, self.clean, self.texts = model, y.cpu(), tuple(texts), list(texts)
        self.paths = [[text] for text in texts]
        self.early_stop = early_stop
        self.queries = torch.zeros(len(self.texts), dtype=torch.int64)
        self.allowed = [max_changes(len(text.split()), share) for text in texts]
        self.margin = self.margins(list(range(len(texts))), self.texts)

    @property
    def active(self) -> list[int]:
        """Indices of the rows that may change further and, with early stop, are classified correctly."""
        is_adv = (self.margin < 0).tolist()
        return [
            row
            for row, path in enumerate(self.paths)
            if len(path) <= self.allowed[row] and not (self.early_stop and is_adv[row])
        ]

    def changed(self, row: int) -> list[int]:
        """Indices of the words of a row that are changed."""
        return changed_places(self.clean[row], self.texts[row])

    def margins(self, rows: list[int], texts: Sequence[str]) -> Tensor:
        """Query the model.

        Args:
            rows: for each text the row that it is a version of; the query counts for that row.
            texts: n texts.

        Returns:
            Margins of the true classes (n,).
        """
        if not rows:
            return torch.empty(0)
        index = torch.tensor(rows)
        self.queries += index.bincount(minlength=len(self.texts))
        logits = self.read(text_logits(self.model, texts))
        check_output(logits, self.y[index])
        return logit_margin(logits, self.y[index])

    def update(self, versions: Mapping[int, Sequence[str]]) -> list[int]:
        """Query versions of some rows, and continue each row from its version of the lowest margin.

        A row stays as it is where no version is lower. Without early stop its current text is queried again beside its
        versions, since the earlier margin of a randomised model may have been low by chance.

        Args:
            versions: for each row, texts with one more word changed.

        Returns:
            Indices of the rows that stay as they are.
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

    def result(self) -> TextAttackResult:
        """The result of the search: the current text where it is misclassified, else the clean one."""
        is_adv = (self.margin < 0).tolist()
        texts = tuple(new if adv else old for old, new, adv in zip(self.clean, self.texts, is_adv, strict=True))
        changed = torch.tensor([len(changed_places(*pair)) for pair in zip(self.clean, texts, strict=True)])
        words = torch.tensor([len(text.split()) for text in self.clean])
        distance = torch.where(torch.tensor(is_adv), changed.double() / words.double(), torch.inf)
        return TextAttackResult(texts, changed.long(), distance, self.queries, tuple(map(tuple, self.paths)))
