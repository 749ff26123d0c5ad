"""MAD, maximising angular deviation: outputs that mislead the gradient of a surrogate trained on them.

A surrogate's loss on a published output y' is the cross-entropy. Its gradient in the weights of a last linear layer is
the outer product of p - y', where p are the surrogate's own probabilities, and that layer's inputs. So the angle
between the gradients for two outputs is the angle between the two differences, whatever the layer's inputs are, and no
backward pass is needed.
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

LARGEST = 12  # classes for which all extreme outputs with a given top class are tried: 2^11 for each row
LEAD = 1e-5  # by which the top class exceeds the classes that it would tie with


def gradient_deviation(published: Tensor, truth: Tensor, surrogate: Tensor) -> Tensor:
    """By how much a published output changes the direction of a surrogate's gradient (Orekondy et al., 2020, eq. 4).

    Args:
        published: probabilities (..., K).
        truth: the model's own probabilities (..., K).
        surrogate: the surrogate's probabilities (..., K).

    Returns:
        The squared distance (...) of the two gradients' directions, from 0 to 4.
    """
    return (F.normalize(published - surrogate, dim=-1) - F.normalize(truth - surrogate, dim=-1)).square().sum(-1)


def extreme_outputs(classes: int, keep: bool) -> Tensor:
    """The extreme outputs that MAD moves towards.

    Args:
        classes: K.
        keep: True for those with top class 0: it shares evenly with any subset of the others, V = 2^(K-1), and exceeds
            them by `LEAD`. False for the one-hot vectors, V = K.

    Returns:
        (V, K), float64; each row is a distribution over the classes.

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
    """Publish the output within L1 distance eps of the true one that changes a surrogate's gradient the most.

    Args:
        surrogate: classifier that stands for the attacker's.
        eps: budget, L1 distance of probabilities.
        extremes: candidates to move towards, from `extreme_outputs`.
        keep: whether the top class stays the model's.
    """

    differentiable: ClassVar[bool] = False  # the best candidate changes abruptly

    def __init__(self, surrogate: nn.Module, eps: float, extremes: Tensor, keep: bool) -> None:
        super().__init__()
        self.surrogate, self.eps, self.keep = surrogate, eps, keep
        self.register_buffer("extremes", extremes)
        self.extremes: Tensor

    def forward(self, logits: Tensor, x: Tensor) -> Tensor:
        """Log-probabilities (N, K) for logits (N, K) on inputs (N, *input)."""
        truth, surrogate = logits.softmax(1), self.surrogate(x).softmax(1).to(logits.dtype)
        order = torch.arange(truth.shape[1], device=x.device).expand_as(truth)
        if self.keep:  # the top class and class 0 swap places, so that one table of extremes serves all rows
            top = logits.argmax(1, keepdim=True)
            order = order.scatter(1, top, 0)
            order = torch.cat([top, order[:, 1:]], 1)
        truth, surrogate = (each.gather(1, order)[:, None] for each in (truth, surrogate))  # (N, 1, K)
        move = self.extremes.to(logits.dtype) - truth  # (N, V, K)
        candidates = truth + move * (self.eps / move.abs().sum(2, keepdim=True).clamp(min=self.eps))
        best = gradient_deviation(candidates, truth, surrogate).argmax(1)
        chosen = candidates[torch.arange(len(x), device=x.device), best]
        return logarithms(chosen.gather(1, order))  # a swap is its own inverse


@dataclass(frozen=True)
class MAD:
    """MAD and MAD-argmax (Orekondy et al., 2020, arXiv:1906.10908, eq. 4-7 and section 4.3).

    The output moves from the true one towards an extreme one until their L1 distance is eps. The paper chooses the
    extreme that changes the gradient most, and then moves towards it. Here the output moves towards each extreme and
    the best result is chosen, which changes the gradient at least as much. The attacker's model is represented by a
    network with random weights whose last layer is linear. Call contract: docs/defenses.md, "Output defense"; data is
    required, for the shape of inputs and the number of classes.

    Args:
        surrogate: architecture of that network.
        eps: budget, L1 distance of published and true probabilities, in (0, 2]; from 1 on, without `argmax`, hardly any
            top class stays.
        argmax: keep the top class (MAD-argmax); it tries 2^(K-1) extremes, and K may be at most 12.
        seed: of that network's weights.
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
        surrogate = self.surrogate(data.train.shape, classes, generator=generator).requires_grad_(False)
        change = MADModel(surrogate, self.eps, extreme_outputs(classes, self.argmax), self.argmax)
        return ModifiedOutput(model, change.to(next(model.parameters()).device))
