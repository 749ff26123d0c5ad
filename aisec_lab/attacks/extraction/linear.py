"""Linear models, solved for: as many answers as there are unknowns."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from aisec_lab.attacks.extraction.result import ExtractionResult, check_extraction, published_probabilities
from aisec_lab.attacks.oracle import Oracle
from aisec_lab.data import Dataset
from aisec_lab.models.asked import asked


def linear_model(weight: Tensor, bias: Tensor) -> nn.Sequential:
    """The classifier with logits weight x + bias: weight (K, D), bias (K,), in evaluation mode and float32."""
    layer = nn.Linear(weight.shape[1], weight.shape[0])
    with torch.no_grad():
        layer.weight.copy_(weight)
        layer.bias.copy_(bias)
    return nn.Sequential(nn.Flatten(), layer).eval()


@dataclass(frozen=True)
class LinearExtraction:
    """The parameters of a (multinomial) logistic model from d + 1 answers (Tramèr et al., 2016, arXiv:1609.02943, 4.1).

    The log odds of each class against class 0 are linear in x: each answer is K - 1 equations. The first query is the
    pool's mean, where a victim is not so sure that a probability vanishes in float32; each other one moves one column
    to the farther end of the box, so that the system is solved by a division, and by no number below a half.

    Args:
        checks: queries at random points on which the solution is tested; 0 for none, and no word of a victim that is
            not linear.
        tolerance: how far the log odds may be off there, as a share of the largest of them, or of 1 if that is less.

    Args of the call:
        oracle: the victim, linear in its inputs up to the softmax.
        pool: inputs that the attacker owns; only their mean is used.
        generator: source of the points of the checks.

    Returns:
        The copy, whose logit of class 0 is 0: what softmax does not tell stays unknown; d + 1 + `checks` queries.

    Raises:
        ValueError: negative settings, an oracle that publishes labels only or probabilities of 0, or answers that are
            not a linear model's; and what `SurrogateExtraction` refuses of an oracle.
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
