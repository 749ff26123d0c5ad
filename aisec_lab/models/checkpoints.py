"""Checkpoints: weights, and a model card with architecture, data and hash."""

import json
import os
import platform
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import nn

from aisec_lab.core.files import sha256_of, write_json, written_beside
from aisec_lab.models.layers import Architecture

WEIGHTS, CARD = "model.safetensors", "card.json"


def save_checkpoint(
    directory: str | os.PathLike[str],
    model: nn.Module,
    architecture: Architecture,
    data: Mapping[str, Any],
    **facts: Any,
) -> None:
    """Write `model.safetensors`, then `card.json` with its sha256; loading detects a kill between the two.

    Args:
        directory: of the checkpoint; created if it is missing.
        model: a trained model that `architecture` built.
        architecture: stored on the card as its `repr`.
        data: card of the training data (`Splits.card`).
        facts: further entries of the card (configuration, seed, metrics), as JSON can hold them.
    """
    weights = Path(directory) / WEIGHTS
    weights.parent.mkdir(parents=True, exist_ok=True)
    with written_beside(weights) as beside:
        save_file({name: value.contiguous().cpu() for name, value in model.state_dict().items()}, beside)
    card = {
        "architecture": repr(architecture),
        "data": {"name": data["name"], "sha256": data["sha256"]},
        "weights_sha256": sha256_of(weights),
        "versions": {"python": platform.python_version()} | {name: version(name) for name in ("aisec_lab", "torch")},
    }
    write_json(Path(directory) / CARD, card | facts)


def load_checkpoint(
    directory: str | os.PathLike[str], architecture: Architecture, data: Mapping[str, Any]
) -> nn.Module:
    """Load a classifier that `save_checkpoint` wrote.

    Args:
        directory: of the checkpoint.
        architecture: must be the one on the card.
        data: card of the data (`Splits.card`); must be that of the training data.

    Returns:
        The classifier, in evaluation mode, on the CPU.

    Raises:
        FileNotFoundError: no checkpoint in the directory.
        ValueError: the card names another architecture or other data, or the weights are not those of the card.
    """
    weights, card_file = Path(directory) / WEIGHTS, Path(directory) / CARD
    for file in (weights, card_file):
        if not file.exists():
            raise FileNotFoundError(f"no checkpoint at {directory} ({file.name} is missing): run `aisec repro`")
    card = json.loads(card_file.read_text())
    mend = "train it again (`aisec repro`) or configure what it was trained with"
    if card["architecture"] != repr(architecture):
        raise ValueError(
            f"{directory} holds a {card['architecture']}, the configuration asks for {architecture}: {mend}"
        )
    if card["data"]["sha256"] != data["sha256"]:
        raise ValueError(f"{directory} was trained on {card['data']}, not on this {data['name']}: {mend}")
    if card["weights_sha256"] != sha256_of(weights):
        raise ValueError(f"{weights} does not have the sha256 on its card: it is damaged or half-written; {mend}")
    model = architecture(tuple(data["shape"]), len(data["classes"]), generator=torch.Generator())
    try:
        model.load_state_dict(load_file(weights))
    except (RuntimeError, SafetensorError) as error:
        raise ValueError(f"{weights} does not fit {architecture}: {' '.join(str(error).split())}; {mend}") from error
    return model.eval()
