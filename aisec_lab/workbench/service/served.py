"""Loads a model for service: only the bytes that the ledger vouches for."""

import ast
import inspect
import json
import shutil
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import nn

import aisec_lab.models
from aisec_lab.models.checkpoints import CARD, load_checkpoint
from aisec_lab.models.layers import Architecture
from aisec_lab.trust import LedgerEntry, content_sha256
from aisec_lab.workbench.project_ledger import FOLDER
from aisec_lab.workbench.service.versions import read_versions


@dataclass(frozen=True)
class ServedModel:
    """A classifier in service.

    Args:
        name: of its folder, from the project's root.
        entry: of the ledger, which vouches for its bytes.
        card: its model card.
        shape: of one input.
        classes: their names, in the order of the logits.
        model: the classifier, in evaluation mode.
    """

    name: str
    entry: LedgerEntry
    card: dict[str, Any] = field(repr=False)
    shape: tuple[int, ...]
    classes: tuple[str, ...]
    model: nn.Module = field(repr=False)

    @property
    def digest(self) -> str:
        """The sha256 of its folder."""
        assert self.entry.after is not None
        return self.entry.after


def load_served(name: str, root: Path, public_key: Path | None = None) -> ServedModel:
    """Load the model whose digest the ledger vouches for.

    The folder is copied to a private place first, and the copy is hashed and then loaded: what is written into the
    folder meanwhile changes nothing.

    Args:
        name: of its folder, such as `models/cnn`.
        root: of the project, with `ledger/` and the data card that the model card names.
        public_key: the reader's own copy of the ledger's key; None for the one in the project.

    Returns:
        The model.

    Raises:
        FileNotFoundError: no such model, data card or ledger.
        ValueError: no entry vouches for these bytes, the ledger does not hold, or the checkpoint is damaged.
    """
    if not (root / name / CARD).is_file():
        raise FileNotFoundError(f"no model at {name} ({CARD} is missing): name its folder, such as models/standard-0")
    entry = read_versions(name, root / FOLDER, public_key).current
    with tempfile.TemporaryDirectory(prefix="aisec-") as private:
        copy = Path(private) / "model"
        shutil.copytree(root / name, copy)
        if (found := content_sha256(copy)) != entry.after:
            raise ValueError(f"{name} has the sha256 {found}, and the ledger vouches for {entry.after}: not served")
        card = json.loads((copy / CARD).read_bytes())
        data_card = root / "data" / card["data"]["name"] / CARD
        if not data_card.is_file():
            raise FileNotFoundError(f"no {data_card}, the card of the training data: run `aisec data`")
        data = json.loads(data_card.read_bytes())
        model = load_checkpoint(copy, parse_architecture(card["architecture"]), data)
    return ServedModel(name, entry, card, tuple(data["shape"]), tuple(map(str, data["classes"])), model)


def parse_architecture(text: str) -> Architecture:
    """The architecture that a model card names by its `repr`, without evaluating it.

    Args:
        text: such as `CNN(width=16, hidden=64)`: a public class of `aisec_lab.models`, its fields literals.

    Raises:
        ValueError: anything else.
    """
    try:
        call = ast.parse(text, mode="eval").body
        assert isinstance(call, ast.Call)
        assert isinstance(call.func, ast.Name)
        assert call.func.id in aisec_lab.models.__all__
        assert not call.args
        fields = {str(each.arg): ast.literal_eval(each.value) for each in call.keywords}
        architecture = getattr(aisec_lab.models, call.func.id)(**fields)
        assert repr(architecture) == text
        assert {"shape", "classes"} <= inspect.signature(architecture).parameters.keys()
    except (AssertionError, SyntaxError, TypeError, ValueError, RecursionError) as error:
        raise ValueError(f"the model card names no architecture of aisec_lab.models: {text[:80]!r}") from error
    return architecture
