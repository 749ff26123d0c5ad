"""A mark that is served: a few queries, chosen by the key, get a wrong answer, which only a thief learns."""

from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor, nn

from aisec_lab.core import binomial
from aisec_lab.data import Dataset
from aisec_lab.defenses.ownership.key import Key, check_key
from aisec_lab.defenses.ownership.suspect import Suspect
from aisec_lab.defenses.ownership.watermark import WatermarkedModel, rows_of
from aisec_lab.models import copied, logits_of
from aisec_lab.models.asked import asked
from aisec_lab.models.contexts import trains


class DAWNModel(nn.Module):
    """A classifier that answers rows which the key chooses as if they were of a wrong class.

    The largest score and that of the wrong class change places: such an answer is as confident as any other. Which rows
    and which class depend on the key and on the row's code alone: `bits` signs of keyed projections of the row, so that
    a tiny change of a row, or another batch around it, seldom changes its fate.

    Args:
        model: the classifier that is served.
        key: the owner's.
        centre: the mean row (*shape), from which projections are taken.
        rate: share of codes that are chosen.
        bits: of a code.
    """

    centre: Tensor

    def __init__(self, model: nn.Module, key: Key, centre: Tensor, rate: float, bits: int) -> None:
        super().__init__()
        self.model, self.rate = model, rate
        self.key = key
        self.register_buffer("centre", centre)
        self.projections = key.normal("served projections", (bits, centre.numel()), torch.float64)
        self.training = trains(model)

    def forward(self, x: Tensor) -> Tensor:
        """Scores (N, K) of x (N, *shape); they pass gradients on."""
        scores: Tensor = self.model(x)
        chosen, moves = self.fate(self.codes(x), scores.shape[1])
        rows = chosen.nonzero().squeeze(1).to(scores.device)
        right = scores[rows].argmax(1)
        wrong = (right + moves[chosen].to(right.device)) % scores.shape[1]
        places = torch.arange(scores.shape[1], device=scores.device).repeat(len(scores), 1)
        places[rows, right], places[rows, wrong] = wrong, right
        return scores.gather(1, places)

    @torch.no_grad()
    def codes(self, x: Tensor) -> list[bytes]:
        """A code for each row of x (N, *shape)."""
        away = (x - self.centre).flatten(1).double().cpu()  # double: a sign must not depend on the batch
        return [code.tobytes() for code in np.packbits((away @ self.projections.T > 0).numpy(), axis=1)]

    def fate(self, codes: list[bytes], classes: int) -> tuple[Tensor, Tensor]:
        """Whether rows of these codes get a wrong answer (N,), bool, and how far from the right one: 1..K-1 (N,)."""
        drawn = b"".join(self.key.stream(f"served {code.hex()}", 16) for code in codes)
        words = np.frombuffer(drawn, dtype="<u8").reshape(-1, 2)
        chosen = torch.from_numpy(words[:, 0] < np.uint64(self.rate * 2**64))
        return chosen, 1 + torch.from_numpy((words[:, 1] % np.uint64(classes - 1)).astype(np.int64))


@dataclass(frozen=True)
class DAWN:
    """Wrong answers to a few queries, as a mark in whatever is trained on the answers (Szyller et al., 2021: DAWN).

    arXiv:1906.00830, section 4. Every client pays with `rate` of the answers, and who trains on them learns some of the
    wrong ones; the model itself has no mark, nor has a copy of its weights. Verification asks the suspect the rows that
    a client was answered wrongly, one row of each code. A suspect that is independent of the key gives the wrong class,
    one of K - 1 others than the model's, with probability 1 / (K - 1) at most: the p-value is the tail of that binomial
    law.

    The paper's mapping of rows, against tiny changes, is by features of a network; here it is by signs of keyed random
    projections, for which none has to be trained.

    Args:
        rate: share of queries that are answered wrongly.
        bits: of a row's code; more of them tell more rows apart, and a change has more of them to flip.

    Args of `embed` and `verify`, returns: as for `Watermark`; nothing is trained, and the marked model is a
    `DAWNModel`.
        Before `verify`, `asked` says which rows a client asked.

    Raises:
        ValueError: fields out of range; two classes, of which one is the only wrong answer; a claim without rows.
    """

    rate: float = 0.01
    bits: int = 20

    def __post_init__(self) -> None:
        if not 0 < self.rate < 1 or self.bits < 1:
            raise ValueError(f"rate must lie between 0 and 1 and bits be positive: {self}")

    def embed(self, model: nn.Module, train: Dataset, key: Key, *, generator: torch.Generator) -> WatermarkedModel:
        """As `Watermark`."""
        check_key(key)
        if len(train.classes) < 3:
            raise ValueError(
                f"{train.name} has {len(train.classes)} classes: where one alone is wrong, giving it proves nothing, "
                "so this mark takes three at least"
            )
        return WatermarkedModel(DAWNModel(copied(model).eval(), key, train.x.mean(0), self.rate, self.bits), key)

    def asked(self, marked: WatermarkedModel, x: Tensor) -> WatermarkedModel:
        """The claim against a client that asked rows x (N, *shape), its whole log: a chosen part proves nothing."""
        scores = logits_of(marked.model, x)
        classes = tuple(map(str, range(scores.shape[1])))
        return replace(marked, rows=Dataset(x, scores.argmax(1).to(x.device), classes, "served"))

    def verify(self, suspect: nn.Module, marked: WatermarkedModel) -> float:
        """As `Watermark`."""
        rows, served = rows_of(marked), marked.model
        assert isinstance(served, DAWNModel)
        where, moves = self.triggers(served, marked.key, rows)
        if not len(where):
            return 1.0
        x = rows.x[where.to(rows.x.device)]
        with asked(suspect):
            answers = logits_of(Suspect(suspect, len(rows.classes)), x).argmax(1)
        wrong = (logits_of(served.model, x).argmax(1) + moves) % len(rows.classes)
        return binomial.tail(int((answers == wrong).sum()), len(x), 1 / (len(rows.classes) - 1))

    def triggers(self, served: DAWNModel, key: Key, rows: Dataset) -> tuple[Tensor, Tensor]:
        """Which rows a model served under this key answers wrongly, one of each code, and how far from the right class.

        Returns:
            Row numbers (n,) and 1..K-1 (n,), both int64.
        """
        under = DAWNModel(served.model, key, served.centre, self.rate, self.bits)
        codes = under.codes(rows.x)
        first = {code: row for row, code in reversed(list(enumerate(codes)))}
        chosen, moves = under.fate(list(first), len(rows.classes))
        return torch.tensor(list(first.values()))[chosen], moves[chosen]
