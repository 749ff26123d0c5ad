"""One spelling for what looks the same."""

import unicodedata
from dataclasses import dataclass

import torch
from torch import nn

from aisec_lab.attacks.text.homoglyphs import LOOKALIKES
from aisec_lab.data import TextSplits
from aisec_lab.defenses.text.defense import Sanitised
from aisec_lab.models.text import TextTraining

FOLD = {ord(twin): letter for letter, twins in LOOKALIKES.items() for twin in twins}
FOLD |= {ord(chr(code).upper()): letter.upper() for code, letter in FOLD.items()}


def normalised(word: str) -> str:
    """A word without invisible characters, twins of Latin letters made Latin, in Unicode's form NFKC.

    Args:
        word: without whitespace, not empty.

    Returns:
        As much; the word itself where nothing visible would be left.
    """
    visible = "".join(character for character in word if unicodedata.category(character) != "Cf")
    composed = unicodedata.normalize("NFKC", visible.translate(FOLD))  # before it: NFKC makes other letters of some
    return "".join(composed.translate(FOLD).split()) or word


@dataclass(frozen=True)
class Normalisation:
    """Fold homoglyphs before the model sees the text (Boucher et al., 2022, arXiv:2106.09898, section VIII).

    It knows the very letters that `Homoglyphs` puts in; twins that are not on that list pass. Texts that are written
    in Greek, Cyrillic or Armenian it would spoil. Called as `TextDefense` says.
    """

    def __call__(
        self, model: nn.Module, *, data: TextSplits, training: TextTraining, generator: torch.Generator
    ) -> nn.Module:
        return Sanitised(normalised, model).eval()
