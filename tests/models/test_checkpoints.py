"""Checkpoints that fit, and those that do not."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from aisec_lab.models import CNN, MLP, load_checkpoint, save_checkpoint

DATA: dict[str, Any] = {"name": "digits", "sha256": "ab" * 32, "shape": [1, 8, 8], "classes": list("0123456789")}
ARCHITECTURE = CNN(width=4)


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    model = ARCHITECTURE((1, 8, 8), 10, generator=torch.Generator().manual_seed(0))
    save_checkpoint(tmp_path / "m", model, ARCHITECTURE, DATA, seed=0, metrics={"clean_accuracy": 0.5})
    return tmp_path / "m"


def test_a_checkpoint_comes_back_as_it_was(checkpoint: Path) -> None:
    """The same weights, in evaluation mode, and a card that says what they are."""
    model = load_checkpoint(checkpoint, ARCHITECTURE, DATA)
    original = ARCHITECTURE((1, 8, 8), 10, generator=torch.Generator().manual_seed(0))
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), original.parameters(), strict=True))
    assert not model.training
    card = json.loads((checkpoint / "card.json").read_text())
    assert card["architecture"] == repr(ARCHITECTURE)
    assert card["seed"] == 0
    assert set(card["versions"]) == {"python", "torch", "aisec_lab"}


def damage(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)


def claim_other_weights(folder: Path) -> None:
    """A card whose sha256 is right, over weights of another network."""
    other = CNN(width=8)((1, 8, 8), 10, generator=torch.Generator())
    save_checkpoint(folder, other, ARCHITECTURE, DATA)


@pytest.mark.parametrize(
    ("change", "architecture", "data", "error", "message"),
    [
        (lambda f: None, MLP(), DATA, ValueError, r"holds a CNN\(width=4, .*asks for MLP\("),
        (
            lambda f: None,
            ARCHITECTURE,
            DATA | {"sha256": "cd" * 32},
            ValueError,
            "was trained on .* not on this digits",
        ),
        (lambda f: damage(f / "model.safetensors"), ARCHITECTURE, DATA, ValueError, "damaged or half-written"),
        (claim_other_weights, ARCHITECTURE, DATA, ValueError, "does not fit CNN"),
        (lambda f: (f / "card.json").unlink(), ARCHITECTURE, DATA, FileNotFoundError, "run `aisec repro`"),
        (lambda f: (f / "model.safetensors").unlink(), ARCHITECTURE, DATA, FileNotFoundError, "run `aisec repro`"),
    ],
)
def test_a_checkpoint_that_does_not_fit_says_so(
    checkpoint: Path,
    change: Callable[[Path], object],
    architecture: CNN | MLP,
    data: dict[str, Any],
    error: type[Exception],
    message: str,
) -> None:
    """Another architecture, other data, damaged or foreign weights, a missing file: one line with the mend."""
    change(checkpoint)
    with pytest.raises(error, match=message) as caught:
        load_checkpoint(checkpoint, architecture, data)
    assert "\n" not in str(caught.value)
