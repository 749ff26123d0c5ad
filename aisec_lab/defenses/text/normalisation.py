"""Normalisation of texts: one spelling for words that look the same."""

import unicodedata
from dataclasses import dataclass

import torch
from torch import nn

from aisec_lab.attacks.text.homoglyphs import LOOKALIKES
from aisec_lab.data import TextSplits
from aisec_lab.defenses.text.defense import SanitizedTextModel
from aisec_lab.defenses.text.displayed import displayed
from aisec_lab.models.text import TextTraining

FOLD = {ord(twin): letter for letter, twins in LOOKALIKES.items() for twin in twins}
FOLD |= {ord(chr(code).upper()): letter.upper() for code, letter in FOLD.items()}


def normalise_word(word: str) -> str:
    """A word as it is displayed, with homoglyphs replaced by Latin letters, in Unicode's form NFKC.

    Args:
        word: without whitespace, not empty.

    Returns:
        A word without whitespace, not empty; `word` itself where nothing visible would be left.
    """
    latin = displayed(word).translate(FOLD)  # before NFKC, which maps some homoglyphs to other letters
    composed = unicodedata.normalize("NFKC", latin)
    return "".join(composed.translate(FOLD).split()) or word


@dataclass(frozen=True)
class Normalisation:
    """Classify texts as they are displayed (Boucher et al., 2022, arXiv:2106.09898, section VIII).

    It removes invisible characters, applies reorderings and deletions, and replaces the homoglyphs that `Homoglyphs`
    inserts, but no others. It would destroy texts in Greek, Cyrillic or Armenian, or in a right-to-left script. Call
    contract: docs/defenses.md, "Text defense"; it does not retrain.
    """

    def __call__(
        self, model: nn.Module, *, data: TextSplits, training: TextTraining, generator: torch.Generator
    ) -> nn.Module:
        return SanitizedTextModel(normalise_word, model).eval()
