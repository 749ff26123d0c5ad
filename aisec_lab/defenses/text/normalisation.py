"""One spelling for what looks the same."""

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


def normalised(word: str) -> str:
    """A word as it is displayed, twins of Latin letters made Latin, in Unicode's form NFKC.

    Args:
        word: without whitespace, not empty.

    Returns:
        As much; the word itself where nothing visible would be left.
    """
    latin = displayed(word).translate(FOLD)  # before the next line: NFKC makes other letters of some
    composed = unicodedata.normalize("NFKC", latin)
    return "".join(composed.translate(FOLD).split()) or word


@dataclass(frozen=True)
class Normalisation:
    """Give the model what a reader sees of the text (Boucher et al., 2022, arXiv:2106.09898, section VIII).

    It drops invisible characters, resolves reorderings and deletions, and folds homoglyphs: the very letters that
    `Homoglyphs` puts in; twins that are not on that list pass. Texts that are written in Greek, Cyrillic or Armenian,
    or from right to left, it would spoil. Called as `TextDefense` says.
    """

    def __call__(
        self, model: nn.Module, *, data: TextSplits, training: TextTraining, generator: torch.Generator
    ) -> nn.Module:
        return SanitizedTextModel(normalised, model).eval()
