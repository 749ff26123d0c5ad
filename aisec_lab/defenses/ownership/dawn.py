"""DAWN: a few queries, chosen by the key, get a wrong answer; a copy trained on the answers learns them."""

from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor, nn

from aisec_lab.core import binomial
from aisec_lab.core.modes import in_training_mode
from aisec_lab.data import Dataset
from aisec_lab.defenses.ownership.key import Key, check_key
from aisec_lab.defenses.ownership.suspect import Suspect
from aisec_lab.defenses.ownership.watermark import WatermarkedModel, claim_rows
from aisec_lab.models import copied, logits_of
from aisec_lab.models.checked import checked_model


class DAWNModel(nn.Module):
    """A classifier that gives a wrong class to inputs chosen by the key.

    The largest score and the score of the wrong class are swapped, so a wrong answer is as confident as a right one.
    Only the key and the code of an input decide whether its answer is wrong, and which class it gets. The code is the
    signs of `bits` keyed projections of the input. So the answer rarely changes with a tiny change of the input or with
    its batch.

    Args:
        model: the classifier that is served.
        key: the owner's key.
        centre: mean input (*shape), which is subtracted before the projection.
        rate: share of codes that get a wrong answer, in (0, 1).
        bits: length of a code.
    """

    centre: Tensor

    def __init__(self, model: nn.Module, key: Key, centre: Tensor, rate: float, bits: int) -> None:
        super().__init__()
        self.model, self.rate = model, rate
        self.key = key
        self.register_buffer("centre", centre)
        self.projections = key.normal("served projections", (bits, centre.numel()), torch.float64)
        self.training = in_training_mode(model)

    def forward(self, x: Tensor) -> Tensor:
        """Scores (N, K) for inputs x (N, *shape), with gradients."""
        scores: Tensor = self.model(x)
        chosen, moves = self.assign(self.codes(x), scores.shape[1])
        rows = chosen.nonzero().squeeze(1).to(scores.device)
        right = scores[rows].argmax(1)
        wrong = (right + moves[chosen].to(right.device)) % scores.shape[1]
        places = torch.arange(scores.shape[1], device=scores.device).repeat(len(scores), 1)
        places[rows, right], places[rows, wrong] = wrong, right
        return scores.gather(1, places)

    @torch.no_grad()
    def codes(self, x: Tensor) -> list[bytes]:
        """The code of each input of x (N, *shape)."""
        away = (x - self.centre).flatten(1).double().cpu()  # double: a sign must not depend on the batch
        return [code.tobytes() for code in np.packbits((away @ self.projections.T > 0).numpy(), axis=1)]

    def assign(self, codes: list[bytes], classes: int) -> tuple[Tensor, Tensor]:
        """Which inputs of these codes get a wrong class (N,), bool; its distance from the right one (N,), 1..K-1."""
        drawn = b"".join(self.key.stream(f"served {code.hex()}", 16) for code in codes)
        words = np.frombuffer(drawn, dtype="<u8").reshape(-1, 2)
        chosen = torch.from_numpy(words[:, 0] < np.uint64(self.rate * 2**64))
        return chosen, 1 + torch.from_numpy((words[:, 1] % np.uint64(classes - 1)).astype(np.int64))


@dataclass(frozen=True)
class DAWN:
    """Wrong answers to a few queries, as a mark in models trained on the answers (Szyller et al., 2021).

    The paper is arXiv:1906.00830, section 4. Every client gets a share `rate` of wrong answers, and a model trained on
    the answers learns some of them. The served model's weights have no mark, and neither does a copy of them.
    Verification queries the suspect with the inputs for which a client got a wrong answer, one input for each code. A
    suspect that is independent of the key predicts the wrong class, one of K - 1, with probability at most 1 / (K - 1).
    The p-value is the tail of that binomial distribution.

    The paper maps inputs to codes by the features of a network, so that tiny changes do not matter. Here the code is
    the signs of keyed random projections, which need no training.

    Call contract: docs/ownership.md, "Watermarks". `embed` trains nothing; the marked model is a `DAWNModel`. Before
    `verify`, `with_queries` adds the client's queries to the claim.

    Args:
        rate: share of queries that are answered wrongly, in (0, 1).
        bits: length of a code, at least 1. More bits tell more inputs apart, but a small change flips one more easily.

    Raises:
        ValueError: a setting out of range, a dataset of two classes (only one answer is wrong), or a claim to which no
            queries were added.
    """

    rate: float = 0.01
    bits: int = 20

    def __post_init__(self) -> None:
        if not 0 < self.rate < 1 or self.bits < 1:
            raise ValueError(f"rate must lie between 0 and 1 and bits be positive: {self}")

    def embed(self, model: nn.Module, train: Dataset, key: Key, *, generator: torch.Generator) -> WatermarkedModel:
        """Embed the mark; see `Watermark.embed`."""
        check_key(key)
        if len(train.classes) < 3:
            raise ValueError(
                f"{train.name} has {len(train.classes)} classes: where one alone is wrong, giving it proves nothing, "
                "so this mark takes three at least"
            )
        return WatermarkedModel(DAWNModel(copied(model).eval(), key, train.x.mean(0), self.rate, self.bits), key)

    def with_queries(self, marked: WatermarkedModel, x: Tensor) -> WatermarkedModel:
        """The claim against one client.

        Args:
            marked: what `embed` returned.
            x: all queries of the client (N, *shape). A selection of them would prove nothing.

        Returns:
            The claim with these rows, for `verify`.
        """
        scores = logits_of(marked.model, x)
        classes = tuple(map(str, range(scores.shape[1])))
        return replace(marked, rows=Dataset(x, scores.argmax(1).to(x.device), classes, "served"))

    def verify(self, suspect: nn.Module, marked: WatermarkedModel) -> float:
        """The p-value of a suspect; see `Watermark.verify`."""
        rows, served = claim_rows(marked), marked.model
        assert isinstance(served, DAWNModel)
        where, moves = self.triggers(served, marked.key, rows)
        if not len(where):
            return 1.0
        x = rows.x[where.to(rows.x.device)]
        with checked_model(suspect):
            answers = logits_of(Suspect(suspect, len(rows.classes)), x).argmax(1)
        wrong = (logits_of(served.model, x).argmax(1) + moves) % len(rows.classes)
        return binomial.tail(int((answers == wrong).sum()), len(x), 1 / (len(rows.classes) - 1))

    def triggers(self, served: DAWNModel, key: Key, rows: Dataset) -> tuple[Tensor, Tensor]:
        """The rows that a model served under this key answers wrongly, one for each code.

        Returns:
            Row numbers (n,), and the distances of the wrong class from the right one, 1..K-1 (n,), both int64.
        """
        under = DAWNModel(served.model, key, served.centre, self.rate, self.bits)
        codes = under.codes(rows.x)
        first = {code: row for row, code in reversed(list(enumerate(codes)))}
        chosen, moves = under.assign(list(first), len(rows.classes))
        return torch.tensor(list(first.values()))[chosen], moves[chosen]
