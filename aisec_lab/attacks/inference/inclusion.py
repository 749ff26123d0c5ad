"""Which records each of many models is trained on."""

import torch
from torch import Tensor


def inclusion_mask(models: int, records: int, *, generator: torch.Generator) -> Tensor:
    """A fair coin for each model and record, independent of all others.

    So each record is a member of about half of the models, and what is inferred about one record of a model tells
    nothing about another: an audit of any one model may count its guesses as independent (Steinke et al., 2023,
    arXiv:2305.08846, algorithm 1).

    Args:
        models: K, at least 1.
        records: N, at least 1.
        generator: source of the coins.

    Returns:
        Whether a model is trained on a record (K, N), bool.

    Raises:
        ValueError: fewer than one model or record.
    """
    if models < 1 or records < 1:
        raise ValueError(f"coins need at least one model and one record, got {models} and {records}")
    return torch.rand(models, records, generator=generator) < 0.5
