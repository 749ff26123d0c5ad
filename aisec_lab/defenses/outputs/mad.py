"""Prediction poisoning: answers that turn the gradient of whoever trains a copy on them.

A copy's loss on a published answer y' is the cross-entropy; its gradient in the weights of a last linear layer is the
outer product of p - y', p being the copy's own probabilities, and that layer's inputs. So the angle between the
gradients for two answers is that between the two differences, whatever the inputs of the layer are: no pass backward is
needed to know by how much an answer turns the gradient.
"""

from dataclasses import dataclass
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from aisec_lab.data import Splits
from aisec_lab.defenses.outputs.modified import ModifiedOutput
from aisec_lab.models import Architecture
from aisec_lab.models.layers import logarithms

LARGEST = 12  # classes for which all answers with a given winner are tried: 2^11 for each row
LEAD = 1e-5  # by which a winner that ties with others stays ahead


def deviation(answer: Tensor, truth: Tensor, copy: Tensor) -> Tensor:
    """By how much an answer turns a copy's gradient (Orekondy et al., 2020, eq. 4).

    Args:
        answer: published (..., K).
        truth: the model's own probabilities (..., K).
        copy: the copy's probabilities (..., K).

    Returns:
        The squared distance of the two gradients' directions (...), from 0 to 4.
    """
    return (F.normalize(answer - copy, dim=-1) - F.normalize(truth - copy, dim=-1)).square().sum(-1)


def corners(classes: int, keep: bool) -> Tensor:
    """The extreme answers: (V, K), float64, each row a distribution over the classes.

    Args:
        classes: K.
        keep: only those which class 0 wins: it shares evenly with any of the others, V = 2^(K-1), and leads by `LEAD`;
            else all on one class, V = K.

    Raises:
        ValueError: `keep` with more than `LARGEST` classes.
    """
    if not keep:
        return torch.eye(classes, dtype=torch.float64)
    if classes > LARGEST:
        raise ValueError(
            f"with argmax=True there are 2^{classes - 1} answers to try, for {classes} classes; at most {LARGEST} "
            "classes: set argmax=False"
        )
    others = torch.arange(2 ** (classes - 1))[:, None] >> torch.arange(classes - 1) & 1
    shares = torch.cat([torch.full((len(others), 1), 1 + LEAD, dtype=torch.float64), others], 1)
    return shares / shares.sum(1, keepdim=True)


class MADModel(nn.Module):
    """Of answers no farther from the true one than eps, the one that turns a copy's gradient the most."""

    differentiable: ClassVar[bool] = False  # it jumps from one corner to another

    def __init__(self, surrogate: nn.Module, eps: float, extremes: Tensor, keep: bool) -> None:
        super().__init__()
        self.surrogate, self.eps, self.keep = surrogate, eps, keep
        self.register_buffer("extremes", extremes)
        self.extremes: Tensor

    def forward(self, logits: Tensor, x: Tensor) -> Tensor:
        """Log-probabilities (N, K) for logits (N, K) on inputs (N, *input)."""
        truth, copy = logits.softmax(1), self.surrogate(x).softmax(1).to(logits.dtype)
        order = torch.arange(truth.shape[1], device=x.device).expand_as(truth)
        if self.keep:  # the winner and class 0 change places, so that one table of extremes is for all rows
            winner = logits.argmax(1, keepdim=True)
            order = order.scatter(1, winner, 0)
            order = torch.cat([winner, order[:, 1:]], 1)
        truth, copy = (each.gather(1, order)[:, None] for each in (truth, copy))  # (N, 1, K)
        away = self.extremes.to(logits.dtype) - truth  # (N, V, K)
        answers = truth + away * (self.eps / away.abs().sum(2, keepdim=True).clamp(min=self.eps))
        best = deviation(answers, truth, copy).argmax(1)
        chosen = answers[torch.arange(len(x), device=x.device), best]
        return logarithms(chosen.gather(1, order))  # the exchange undoes itself


@dataclass(frozen=True)
class MAD:
    """MAD and MAD-argmax (Orekondy et al., 2020, arXiv:1906.10908, eq. 4-7 and section 4.3).

    The answer moves from the true one towards an extreme one until it is eps away in L1. The paper takes the extreme
    that turns the gradient most and then goes towards it; here all are gone towards and the best point is taken, which
    turns it at least as far. The copy is guessed to be a network of random weights, its last layer linear.

    Args:
        surrogate: architecture of that copy.
        eps: budget, L1 distance of published and true probabilities, above 0 and at most 2; without `argmax`, from 1
            on, hardly any winner stays.
        argmax: the winner stays (MAD-argmax); it looks at all 2^(K-1) ties, for at most 12 classes.
        seed: of the copy's weights.

    Args of the call:
        model: a classifier.
        data: the splits, for the shape of inputs and the number of classes.

    Returns:
        A classifier, in the mode of `model`.

    Raises:
        ValueError: no data, or too many classes for `argmax`.
    """

    surrogate: Architecture
    eps: float = 0.5
    argmax: bool = False
    seed: int = 0

    def __post_init__(self) -> None:
        if not 0 < self.eps <= 2:
            raise ValueError(f"eps is an L1 distance of probabilities, above 0 and at most 2, got {self.eps}")

    def __call__(self, model: nn.Module, *, data: Splits | None = None) -> nn.Module:
        if data is None:
            raise ValueError("MAD builds a surrogate for the shape of the data: give it data=splits")
        classes, generator = len(data.train.classes), torch.Generator().manual_seed(self.seed)
        copy = self.surrogate(data.train.shape, classes, generator=generator).requires_grad_(False)
        change = MADModel(copy, self.eps, corners(classes, self.argmax), self.argmax)
        return ModifiedOutput(model, change.to(next(model.parameters()).device))
