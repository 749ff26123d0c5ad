"""Extraction of linear models by solving equations: as many queries as unknowns."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from aisec_lab.attacks.extraction.result import ExtractionResult, check_extraction, published_probabilities
from aisec_lab.attacks.oracle import Oracle
from aisec_lab.data import Dataset
from aisec_lab.models.asked import asked


def linear_model(weight: Tensor, bias: Tensor) -> nn.Sequential:
    """Make a linear classifier.

    Args:
        weight: (K, D).
        bias: (K,).

    Returns:
        A classifier with logits weight x + bias of flattened inputs, float32, in evaluation mode.
    """
    layer = nn.Linear(weight.shape[1], weight.shape[0])
    with torch.no_grad():
        layer.weight.copy_(weight)
        layer.bias.copy_(bias)
    return nn.Sequential(nn.Flatten(), layer).eval()


@dataclass(frozen=True)
class LinearExtraction:
    """Solve for a (multinomial) logistic regression with d + 1 queries (Tramèr et al., 2016, arXiv:1609.02943).

    Section 4.1: the log odds of each class against class 0 are linear in x, so that each answer gives K - 1 equations.
    The first query is the pool's mean, where a victim is rarely so confident that a probability underflows in float32.
    Each other query moves one column to the farther end of the box: the system is then solved by a division, and no
    divisor is below a half.

    Call contract: docs/extraction-attacks.md. The oracle publishes probabilities, and is linear up to the softmax. Of
    the pool only the mean is used, and the generator draws the points of the checks. The attack costs d + 1 + `checks`
    queries. The surrogate's logit of class 0 is 0, since softmax does not reveal a common offset.

    Args:
        checks: queries at random points on which the solution is tested, at least 0; with 0 a victim that is not linear
            is not noticed.
        tolerance: largest error of the log odds at any query, relative to the largest of them or to 1 if that is less;
            positive.

    Raises:
        ValueError: settings out of range; on a call also an oracle that publishes labels only or a probability of 0,
            and answers that are not a linear model's.
    """

    checks: int = 8
    tolerance: float = 1e-3

    def __post_init__(self) -> None:
        if self.checks < 0 or not self.tolerance > 0:
            raise ValueError(f"checks must not be negative and tolerance be positive: {self}")

    def __call__(self, oracle: Oracle, pool: Dataset, *, generator: torch.Generator) -> ExtractionResult:
        if oracle.labels_only:
            raise ValueError(
                "LinearExtraction solves for probabilities, this oracle publishes labels only: "
                "take HyperplaneExtraction for two classes, Knockoff for more"
            )
        centre = pool.x.flatten(1).mean(0)  # (d,)
        d = len(centre)
        queries = d + 1 + self.checks
        check_extraction(oracle, pool, queries, at_least=queries)
        ends = (centre < 0.5).to(centre.dtype)
        moved = torch.where(torch.eye(d, dtype=torch.bool), ends, centre)  # (d, d)
        x = torch.cat([centre[None], moved, torch.rand(self.checks, d, generator=generator)])
        with asked(oracle):
            p = published_probabilities(oracle, x.unflatten(1, pool.shape)).double()  # (queries, K)
        if not (p > 0).all():
            raise ValueError(
                f"LinearExtraction needs the odds of every class, and {int((p == 0).sum())} published probabilities "
                "are 0: the victim rounds them, cuts them off, or is too sure for float32; take Knockoff"
            )
        x, odds = x.double(), p.log() - p.log()[:, :1]  # (queries, K), the first column 0
        weight = (odds[1 : d + 1] - odds[0]) / (ends.double() - x[0])[:, None]  # (d, K)
        bias = odds[0] - x[0] @ weight
        off = (x @ weight + bias - odds).abs().max().item()
        if off > self.tolerance * max(1.0, odds.abs().max().item()):
            raise ValueError(
                f"the victim's log odds are off a linear model's by up to {off:.3g}: it is not linear, "
                "or rounds or perturbs what it publishes; take Knockoff"
            )
        return ExtractionResult(linear_model(weight.T, bias), queries)
