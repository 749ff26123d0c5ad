"""An attack on more rows than fit into one pass."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from aisec_lab.attacks.evasion.attack import Attack
from aisec_lab.attacks.evasion.minimum_norm.result import MinimumNormResult
from aisec_lab.attacks.evasion.minimum_norm.tracker import MinimumNormAttack


@dataclass(frozen=True)
class InBatches:
    """An attack on one batch of rows after the other, to save memory.

    Call contract: docs/evasion-attacks.md. The result is that of the attack: a tensor, or a `MinimumNormResult` for a
    minimum-norm attack. Each batch begins with the generator in the same state. Rows of different batches still have
    different noise, since noise is keyed by row (`RowNoise`).

    Args:
        attack: an evasion attack, or a minimum-norm one.
        batch_size: rows of a batch.

    Raises:
        ValueError: a batch_size below 1.
    """

    attack: Attack | MinimumNormAttack
    batch_size: int = 250

    def __post_init__(self) -> None:
        if self.batch_size < 1:
            raise ValueError(f"batch_size must be positive, got {self.batch_size}")

    def __call__(
        self, model: nn.Module, x: Tensor, y: Tensor, *, generator: torch.Generator
    ) -> Tensor | MinimumNormResult:
        parts, state = [], generator.get_state()
        for rows, classes in zip(x.split(self.batch_size), y.split(self.batch_size), strict=True):
            generator.set_state(state)
            parts.append(self.attack(model, rows, classes, generator=generator))
        results = [part for part in parts if isinstance(part, MinimumNormResult)]
        if results:
            return MinimumNormResult(
                torch.cat([part.x_adv for part in results]), torch.cat([part.distance for part in results])
            )
        return torch.cat([part for part in parts if isinstance(part, Tensor)])
