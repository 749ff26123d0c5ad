"""Adaptive misinformation: out-of-distribution queries get wrong predictions (Kariyappa & Qureshi, 2020)."""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from aisec_lab.data import Splits
from aisec_lab.defenses.outputs.modified import ModifiedOutput
from aisec_lab.models import Architecture, Fit
from aisec_lab.models.layers import logarithms


@dataclass(frozen=True)
class ReverseCrossEntropy:
    """-log(1 - p_y), which trains a model to be wrong (Kariyappa & Qureshi, 2020, arXiv:1911.07100, eq. 4).

    Call contract: docs/defenses.md, "Objective"; the generator is not drawn from.
    """

    def __call__(self, model: nn.Module, x: Tensor, y: Tensor, *, generator: torch.Generator) -> Tensor:
        logits = model(x)
        return logits.logsumexp(1) - logits.scatter(1, y[:, None], -torch.inf).logsumexp(1)


class MisinformationOutput(nn.Module):
    """Mix the model's prediction with a wrong one; the lower the model's confidence, the more of the wrong one.

    Args:
        wrong: classifier that is trained to be wrong.
        threshold: confidence at which both have weight 1/2, in (0, 1).
        slope: of the sigmoid; positive.
    """

    differentiable: ClassVar[bool] = False  # the mixture changes over within about 1 / slope of the threshold

    def __init__(self, wrong: nn.Module, threshold: float, slope: float) -> None:
        super().__init__()
        self.wrong, self.threshold, self.slope = wrong, threshold, slope

    def forward(self, logits: Tensor, x: Tensor) -> Tensor:
        """Log-probabilities (N, K) for logits (N, K) on inputs (N, *input)."""
        truth = logits.softmax(1)
        share = (self.slope * (self.threshold - truth.amax(1, keepdim=True))).sigmoid()
        return logarithms((1 - share) * truth + share * self.wrong(x).softmax(1).to(truth.dtype))


@dataclass(frozen=True)
class AdaptiveMisinformation:
    """Adaptive misinformation (Kariyappa & Qureshi, 2020, arXiv:1911.07100, section 4).

    A query counts as out-of-distribution where the model's largest probability is below the threshold. The paper also
    trains the model on outliers, so that it is uncertain of them; here the model is taken as it is. The cost: benign
    inputs of which the model is uncertain get wrong predictions too. Call contract: docs/defenses.md, "Output defense";
    data is required, and the wrong model is trained on `data.train`.

    Args:
        architecture: of the wrong model.
        fit: the training loop of the wrong model.
        threshold: tau, compared with the largest probability, in (0, 1).
        slope: nu, of the sigmoid in its distance from the threshold; positive.
        seed: of the wrong model's weights and of the order of its rows.
    """

    architecture: Architecture
    fit: Fit
    threshold: float = 0.9
    slope: float = 1000.0
    seed: int = 0

    def __post_init__(self) -> None:
        if not 0 < self.threshold < 1 or not self.slope > 0:
            raise ValueError(f"threshold must lie in (0, 1) and slope be positive, got {self.threshold}, {self.slope}")

    def __call__(self, model: nn.Module, *, data: Splits | None = None) -> nn.Module:
        if data is None:
            raise ValueError("AdaptiveMisinformation trains a model to be wrong: give it data=splits")
        train, generator = data.train, torch.Generator().manual_seed(self.seed)
        wrong = self.architecture(train.shape, len(train.classes), generator=generator)
        wrong = wrong.to(next(model.parameters()).device)
        self.fit(wrong, train, ReverseCrossEntropy(), generator=generator)
        return ModifiedOutput(model, MisinformationOutput(wrong.requires_grad_(False), self.threshold, self.slope))
