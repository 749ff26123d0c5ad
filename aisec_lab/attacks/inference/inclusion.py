"""Random training sets for many models, as membership inference and audits use them."""

import torch
from torch import Tensor


def inclusion_mask(models: int, records: int, *, generator: torch.Generator) -> Tensor:
    """Decide by independent fair coins which records each model is trained on.

    Each record is a member of about half of the models. Guesses about different records of one model are independent,
    which an audit of that model may rely on (Steinke et al., 2023, arXiv:2305.08846, algorithm 1).

    Args:
        models: K, at least 1.
        records: N, at least 1.
        generator: source of the coins.

    Returns:
        Whether model k is trained on record i (K, N), bool.

    Raises:
        ValueError: fewer than one model or record.
    """
    if models < 1 or records < 1:
        raise ValueError(f"an inclusion mask needs at least one model and one record, got {models} and {records}")
    return torch.rand(models, records, generator=generator) < 0.5
