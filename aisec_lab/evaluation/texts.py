"""What an attack does to a text classifier, by the share of words that may change, and what is proved of it."""

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
        attack: an attack on texts; against a model that draws it does not stop early.
        model: classifier of texts in evaluation mode.
        data: texts and their true classes.
        seed: of the attack's generator, and, moved by one, of the model's draws, if it makes any.
    """
    if any(hasattr(module, "generator") for module in model.modules()):
        attack = replace(attack, early_stop=False)  # type: ignore[type-var]  # attacks are dataclasses
    with seeded(model, torch.Generator().manual_seed(seed + 1)):
        return attack(model, data.texts, data.y, generator=torch.Generator().manual_seed(seed))


def word_curve(
    edited: TextAttackResult, model: nn.Module, data: Texts, levels: Iterable[float], /, *, seed: int, **cell: Any
) -> list[dict[str, Any]]:
    """Rows of the table: `robust_accuracy` at each share of words, in the judgement of fresh draws.

    Args:
        edited: what an attack found whose share is at least the largest level.
        model, data: what it attacked.
        levels: shares of words.
        seed: as it was for the attack; moved by two for the model's draws; a column of the table.
        cell: the other columns of the table.
    """
    clean = answers(model, data.texts, seed=seed + 2) == data.y
    return [
        rate(
            "robust_accuracy",
            int((clean & (answers(model, edited.within(level), seed=seed + 2) == data.y)).sum()),
            len(data),
            knob=KNOB,
            level=level,
            seed=seed,
            queries=edited.queries.double().mean().item(),
            **cell,
        )
        for level in levels
    ]


def answers(model: nn.Module, texts: Iterable[str], *, seed: int) -> Tensor:
    """The classes (N,) that a model gives to texts, its draws, if it makes any, seeded."""
    with seeded(model, torch.Generator().manual_seed(seed)):
        return text_logits(model, texts).argmax(1)


def certified_texts(
    certificate: WordCertificate, y: Tensor, levels: Iterable[float], **cell: Any
) -> list[dict[str, Any]]:
    """Rows of the table: `certified_accuracy` at each share of changed words; `cell` holds the other columns."""
    return [
        rate("certified_accuracy", int(certificate.holds(y, level).sum()), len(y), knob=KNOB, level=level, **cell)
        for level in levels
    ]


def word_bracket(certificate: WordCertificate, judged: WordCertificate, y: Tensor, level: float) -> pd.DataFrame:
    """The bracket of a masked classifier: certified accuracy below, accuracy under attack above; as `bracket`.

    Args:
        certificate: of the clean texts.
        judged: of the attacked texts, by the same masked classifier: a text is broken if its class there is another
            than the true one, and survives where the votes do not decide.
        y: true classes (N,).
        level: share of words that was changed, at most.
    """
    place = {"knob": KNOB, "level": level, "row": range(len(y))}
    broken = (judged.classes != y) & (judged.classes != ABSTAIN)
    return bracket(
        pd.DataFrame(place | {"certified": certificate.holds(y, level).numpy()}),
        pd.DataFrame(place | {"survives": (~broken).numpy()}),
        alpha=certificate.alpha + judged.alpha,
    )
