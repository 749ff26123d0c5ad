"""The state of a training run, from which it can be resumed."""

import hashlib
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from aisec_lab.core.files import written_beside


class TrainingState:
    """The resumable state of a training run.

    Args:
        model: the model that is trained.
        optimizer: of its weights.
        schedule: of the learning rate.
        generator: source of randomness of the run.
        identity: settings and data of the run; only a run with the same ones can be resumed.
    """

    def __init__(
        self, model: nn.Module, optimizer: Optimizer, schedule: LRScheduler, generator: torch.Generator, identity: str
    ) -> None:
        self.parts: dict[str, Any] = {"model": model, "optimizer": optimizer, "schedule": schedule}
        self.generator = generator
        self.identity = identity
        self.history: list[dict[str, float]] = []

    def save(self, path: Path) -> None:
        """Write the state to a file, atomically."""
        state = {name: part.state_dict() for name, part in self.parts.items()}
        state |= {"generator": self.generator.get_state(), "history": self.history, "identity": self.identity}
        with written_beside(path) as beside:
            torch.save(state, beside)

    def restore(self, path: Path) -> None:
        """Load the state from a file.

        Raises:
            ValueError: the file belongs to a run with another identity.
        """
        state = torch.load(path, weights_only=True)
        if state["identity"] != self.identity:
            raise ValueError(f"{path} is of another run ({state['identity']}), not of {self.identity}: remove it")
        for name, part in self.parts.items():
            part.load_state_dict(state[name])
        self.generator.set_state(state["generator"])
        self.history = state["history"]


def content_of(*tensors: Tensor) -> str:
    """The first 16 hexadecimal digits of a sha256 over the dtypes, shapes and values of tensors."""
    content = hashlib.sha256()
    for tensor in tensors:
        content.update(f"{tensor.dtype} {tuple(tensor.shape)}".encode())
        content.update(tensor.detach().cpu().contiguous().numpy().data)
    return content.hexdigest()[:16]
