"""Forward passes with a fixed seed, and a check that they change no state of the model."""

import pickle
import random
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from aisec_lab.models import seeded


@contextmanager
def seeded_pass(model: nn.Module, seed: int, cuda: list[torch.device]) -> Iterator[torch.Generator]:
    """Seed every source of randomness that a pass may draw from, and restore the global ones afterwards.

    Args:
        model: its parts with a `generator` draw from the seeded one.
        seed: of `random`, NumPy, torch and CUDA.
        cuda: devices whose generators are seeded too.

    Yields:
        A generator with the same seed.
    """
    state = random.getstate(), np.random.get_state(), torch.get_rng_state(), [torch.cuda.get_rng_state(d) for d in cuda]
    generator = torch.Generator().manual_seed(seed)
    try:
        with seeded(model, generator):
            random.seed(seed)
            np.random.seed(seed)
            torch.default_generator.manual_seed(seed)  # torch.manual_seed is slow before CUDA is initialised
            if cuda:
                torch.cuda.manual_seed_all(seed)
            yield generator
    finally:
        random.setstate(state[0])
        np.random.set_state(state[1])
        torch.set_rng_state(state[2])
        for device, kept in zip(cuda, state[3], strict=True):
            torch.cuda.set_rng_state(kept, device)


def cuda_devices(model: nn.Module) -> list[torch.device]:
    """The CUDA devices that hold weights of a model."""
    return sorted({weight.device for weight in model.parameters() if weight.is_cuda}, key=str)


def state_bytes(model: nn.Module, exclude: Iterable[Tensor] = ()) -> dict[str, bytes]:
    """All entries of `state_dict` and all buffers, as bytes by name; an excluded weight has an empty entry."""
    shared = {id(weight) for weight in exclude}
    entries = dict(model.named_buffers()) | dict(model.state_dict(keep_vars=True))
    return {name: b"" if id(value) in shared else _bytes(value) for name, value in entries.items()}


def refuse_changed_state(before: dict[str, bytes], after: dict[str, bytes]) -> None:
    """Refuse a model whose state a forward pass has changed.

    Args:
        before, after: `state_bytes` before and after the pass.

    Raises:
        ValueError: with the name of the first entry that differs.
    """
    for name in before | after:
        if before.get(name) != after.get(name):
            raise ValueError(
                f"{name} changes in a forward pass, so it could store training rows, where no noise protects them: "
                "compute it from the weights alone, or take it out of the model"
            )


def _bytes(value: Any) -> bytes:
    if not isinstance(value, Tensor):
        return pickle.dumps(value)
    raw: bytes = value.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes()
    return raw
