"""Robust and certified accuracy of text classifiers, by the share of words that may change."""

from collections.abc import Iterable
from dataclasses import replace
from typing import Any

import pandas as pd
import torch
from torch import Tensor, nn

from aisec_lab.attacks.text.attack import TextAttack, TextAttackResult
from aisec_lab.data import Texts
from aisec_lab.defenses.certification.smoothing_certificate import ABSTAIN
from aisec_lab.defenses.text.masking_certificate import WordCertificate
from aisec_lab.evaluation.certified import bracket
from aisec_lab.evaluation.table import rate
from aisec_lab.models import seeded
from aisec_lab.models.text import text_logits

KNOB = "share of words"


def attack_texts(attack: TextAttack, model: nn.Module, data: Texts, *, seed: int) -> TextAttackResult:
    """Attack every text of a dataset.

    Args:
        attack: an attack on texts. If the model is random, it does not stop early.
        model: classifier of texts in evaluation mode.
        data: texts and their true classes.
        seed: seed of the attack's generator; a random model's draws have seed + 1.

    Returns:
        The adversarial texts, with the edits by which they were made.
    """
    if any(hasattr(module, "generator") for module in model.modules()):
        attack = replace(attack, early_stop=False)  # type: ignore[type-var]  # attacks are dataclasses
    with seeded(model, torch.Generator().manual_seed(seed + 1)):
        return attack(model, data.texts, data.y, generator=torch.Generator().manual_seed(seed))


def word_curve(
    result: TextAttackResult, model: nn.Module, data: Texts, levels: Iterable[float], /, *, seed: int, **cell: Any
) -> list[dict[str, Any]]:
    """Robust accuracy at each share of words. A random model is scored with new draws.

    Args:
        result: result of `attack_texts`, for an attack whose share of words is at least the largest level.
        model: the attacked classifier.
        data: the attacked texts.
        levels: shares of words, in [0, 1].
        seed: the seed that the attack had; a random model's draws have seed + 2.
        cell: other columns of the table (docs/evaluation.md).

    Returns:
        Rows of the table: `robust_accuracy` at each level, with its interval.
    """
    clean = predict_texts(model, data.texts, seed=seed + 2) == data.y
    return [
        rate(
            "robust_accuracy",
            int((clean & (predict_texts(model, result.within(level), seed=seed + 2) == data.y)).sum()),
            len(data),
            knob=KNOB,
            level=level,
            seed=seed,
            queries=result.queries.double().mean().item(),
            **cell,
        )
        for level in levels
    ]


def predict_texts(model: nn.Module, texts: Iterable[str], *, seed: int) -> Tensor:
    """Predicted classes of texts.

    Args:
        model: classifier of texts in evaluation mode.
        texts: N texts.
        seed: seed of a random model's draws.

    Returns:
        Classes (N,), int64.
    """
    with seeded(model, torch.Generator().manual_seed(seed)):
        return text_logits(model, texts).argmax(1)


def certified_texts(
    certificate: WordCertificate, y: Tensor, levels: Iterable[float], **cell: Any
) -> list[dict[str, Any]]:
    """Certified accuracy at each share of changed words.

    Args:
        certificate: of N texts.
        y: their true classes (N,).
        levels: shares of words, in [0, 1].
        cell: other columns of the table (docs/evaluation.md).

    Returns:
        Rows of the table: `certified_accuracy` at each level, with its interval.
    """
    return [
        rate("certified_accuracy", int(certificate.holds(y, level).sum()), len(y), knob=KNOB, level=level, **cell)
        for level in levels
    ]


def word_bracket(certificate: WordCertificate, attacked: WordCertificate, y: Tensor, level: float) -> pd.DataFrame:
    """Certified accuracy and accuracy under attack of a masked classifier, on the same texts.

    Args:
        certificate: of the clean texts.
        attacked: of the attacked texts, by the same masked classifier. A text is misclassified if its class there is
            another than the true one. If the votes do not decide, it counts as robust.
        y: true classes (N,).
        level: largest share of words that was changed.

    Returns:
        As `bracket`: one row with `certified_accuracy`, `robust_accuracy`, `crossings` and `n`.

    Raises:
        AssertionError: more certified texts are misclassified than chance explains.
    """
    place = {"knob": KNOB, "level": level, "row": range(len(y))}
    misclassified = (attacked.classes != y) & (attacked.classes != ABSTAIN)
    return bracket(
        pd.DataFrame(place | {"certified": certificate.holds(y, level).numpy()}),
        pd.DataFrame(place | {"survives": (~misclassified).numpy()}),
        alpha=certificate.alpha + attacked.alpha,
    )
