"""Objectives of standard and adversarial training. Call contract: docs/defenses.md, "Objective"."""

from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from aisec_lab.attacks import PGD, Attack, KullbackLeibler
from aisec_lab.models import frozen


@dataclass(frozen=True)
class Standard:
    """Cross-entropy on clean inputs; no generator is drawn from. Call contract: docs/defenses.md, "Objective"."""

    def __call__(self, model: nn.Module, x: Tensor, y: Tensor, *, generator: torch.Generator) -> Tensor:
        return F.cross_entropy(model(x), y, reduction="none")


@dataclass(frozen=True)
class AdversarialTraining:
    """Cross-entropy on adversarial inputs only (Madry et al., 2018, arXiv:1706.06083, eq. 2.1).

    Call contract: docs/defenses.md, "Objective"; the attack draws from the generator.

    Args:
        attack: the inner maximisation; it attacks the model in evaluation mode.
    """

    attack: Attack

    def __call__(self, model: nn.Module, x: Tensor, y: Tensor, *, generator: torch.Generator) -> Tensor:
        with frozen(model):
            x_adv = self.attack(model, x, y, generator=generator)
        return F.cross_entropy(model(x_adv), y, reduction="none")


@dataclass(frozen=True)
class TRADES:
    """Cross-entropy on clean inputs, plus beta times the divergence between clean and adversarial predictions.

    Zhang et al., 2019, arXiv:1901.08573, eq. 5. Call contract: docs/defenses.md, "Objective"; the attack draws from
    the generator.

    Args:
        attack: the inner maximisation; its loss is replaced by KL(f(x) || f(x')), and it never stops early.
        beta: weight of the divergence, at least 0.
    """

    attack: PGD
    beta: float = 6.0

    def __post_init__(self) -> None:
        if not self.beta >= 0:
            raise ValueError(f"beta weighs robustness against accuracy and cannot be negative, got {self.beta}")

    def __call__(self, model: nn.Module, x: Tensor, y: Tensor, *, generator: torch.Generator) -> Tensor:
        inner = replace(self.attack, loss=KullbackLeibler(), early_stop=False)
        with frozen(model):
            with torch.no_grad():
                clean = model(x).softmax(1)
            x_adv = inner(model, x, clean, generator=generator)
        logits, logits_adv = model(x), model(x_adv)
        divergence = F.kl_div(logits_adv.log_softmax(1), logits.log_softmax(1), reduction="none", log_target=True)
        return F.cross_entropy(logits, y, reduction="none") + self.beta * divergence.sum(1)


@dataclass(frozen=True)
class MART:
    """Misclassification-aware adversarial training (Wang et al., 2020, ICLR, eq. 11).

    Boosted cross-entropy on adversarial inputs, -log p_y - log(1 - max_{k != y} p_k), plus beta times the divergence
    between clean and adversarial predictions, weighted by 1 - p_y of the clean input. Call contract: docs/defenses.md,
    "Objective"; the attack draws from the generator.

    Args:
        attack: the inner maximisation.
        beta: weight of the divergence, at least 0; the paper's lambda.
    """

    attack: Attack
    beta: float = 5.0

    def __post_init__(self) -> None:
        if not self.beta >= 0:
            raise ValueError(f"beta weighs robustness against accuracy and cannot be negative, got {self.beta}")

    def __call__(self, model: nn.Module, x: Tensor, y: Tensor, *, generator: torch.Generator) -> Tensor:
        with frozen(model):
            x_adv = self.attack(model, x, y, generator=generator)
        clean, adversarial = model(x).log_softmax(1), model(x_adv).log_softmax(1)
        own = y[:, None]
        wrong = adversarial.scatter(1, own, -torch.inf).argmax(1, keepdim=True)
        others = adversarial.scatter(1, wrong, -torch.inf).logsumexp(1)  # log(1 - p_wrong), without cancellation
        boosted = -adversarial.gather(1, own).squeeze(1) - others
        divergence = F.kl_div(adversarial, clean, reduction="none", log_target=True).sum(1)
        return boosted + self.beta * divergence * (1 - clean.gather(1, own).exp().squeeze(1))
