"""Passes whose chance is seeded, and what they may have left behind in a model."""

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
def same_chance(model: nn.Module, seed: int, cuda: list[torch.device]) -> Iterator[torch.Generator]:
    """All chance that a pass may draw comes from a seed; afterwards the global generators are as they were."""
    state = random.getstate(), np.random.get_state(), torch.get_rng_state(), [torch.cuda.get_rng_state(d) for d in cuda]
    generator = torch.Generator().manual_seed(seed)
    try:
        with seeded(model, generator):
            random.seed(seed)
            np.random.seed(seed)
            torch.default_generator.manual_seed(seed)  # torch.manual_seed is slow where CUDA has not been asked for yet
            if cuda:
                torch.cuda.manual_seed_all(seed)
            yield generator
    finally:
        random.setstate(state[0])
        np.random.set_state(state[1])
        torch.set_rng_state(state[2])
        for device, kept in zip(cuda, state[3], strict=True):
            torch.cuda.set_rng_state(kept, device)


def cuda_of(model: nn.Module) -> list[torch.device]:
    """The GPUs that hold weights of a model."""
    return sorted({weight.device for weight in model.parameters() if weight.is_cuda}, key=str)


def state_of(model: nn.Module, besides: Iterable[Tensor] = ()) -> dict[str, bytes]:
    """All that `state_dict` and buffers hold, by name, as bytes; of the weights `besides` no more than the name."""
    shared = {id(weight) for weight in besides}
    entries = dict(model.named_buffers()) | dict(model.state_dict(keep_vars=True))
    return {name: b"" if id(value) in shared else _bytes(value) for name, value in entries.items()}


def refuse_changes(before: dict[str, bytes], after: dict[str, bytes]) -> None:
    """ValueError where a state is not what it was before a pass."""
    for name in before | after:
        if before.get(name) != after.get(name):
            raise ValueError(
                f"{name} changes in a forward pass, so that it could carry rows out of the training, past the "
                "noise: compute it from the weights alone, or take it out of the model"
            )


def _bytes(value: Any) -> bytes:
    if not isinstance(value, Tensor):
        return pickle.dumps(value)
    found: bytes = value.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes()
    return found
