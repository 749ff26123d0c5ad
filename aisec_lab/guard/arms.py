"""Detection rates over kinds of threats: a detection counts only if every attack of the kind is detected."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from aisec_lab.attacks import Attack
from aisec_lab.data import Dataset
from aisec_lab.evaluation import run_attack
from aisec_lab.guard.filters import Filter
from aisec_lab.models import logits_of


@dataclass(frozen=True, eq=False)
class Arm:
    """A kind of threat: what several attacks made of the same N rows (Granese et al., 2022, arXiv:2206.15415).

    Args:
        inputs: by the attack's name, (N, *input); at least one.
        succeeded: by the attack's name, whether it reached its aim on the model without a guard, (N,), bool.

    Raises:
        ValueError: no attack, other names or other numbers of rows.
    """

    inputs: Mapping[str, Tensor]
    succeeded: Mapping[str, Tensor]

    def __post_init__(self) -> None:
        sizes = {len(each) for each in [*self.inputs.values(), *self.succeeded.values()]}
        if not self.inputs or self.inputs.keys() != self.succeeded.keys() or len(sizes) > 1:
            raise ValueError(
                "an arm has inputs and successes of the same rows for each of its attacks, at least one, got "
                f"{sorted(self.inputs)}, {sorted(self.succeeded)} and {sorted(sizes)} rows"
            )

    def __or__(self, other: "Arm") -> "Arm":
        """The arm of an attacker who has the attacks of both, on the same rows."""
        return Arm({**self.inputs, **other.inputs}, {**self.succeeded, **other.succeeded})

    def counts(self, rejects: Callable[[Tensor], Tensor]) -> tuple[int, int, int]:
        """Count detections by the worst attack on each row.

        Args:
            rejects: from inputs (N, *input) to which of them are rejected, (N,), bool.

        Returns:
            How many rows were attacked with success by any attack; on how many of these every success was rejected; on
            how many of all N rows no success went through.
        """
        attacked, missed = (torch.zeros(len(next(iter(self.inputs.values()))), dtype=torch.bool) for _ in range(2))
        for name, x in self.inputs.items():
            attacked |= self.succeeded[name]
            missed |= self.succeeded[name] & ~rejects(x)
        return int(attacked.sum()), int((attacked & ~missed).sum()), int((~missed).sum())


def evasion_arm(
    attacks: Mapping[str, Attack], target: nn.Module, model: nn.Module, dataset: Dataset, *, seed: int
) -> Arm:
    """Run evasion attacks, as one arm.

    Args:
        attacks: by name, at least one.
        target: what is attacked: the model, a guarded view of it, or an oracle.
        model: the bare classifier; an attack succeeds on a row that it misclassifies.
        dataset: N rows and their true classes.
        seed: of the attacks' generators.

    Returns:
        The arm, of N rows.
    """
    found = {name: run_attack(attack, target, dataset, seed=seed)[0] for name, attack in attacks.items()}
    return Arm(found, {name: logits_of(model, x).argmax(1) != dataset.y for name, x in found.items()})


def rejected_by(tested: Filter[Tensor]) -> Callable[[Tensor], Tensor]:
    """The rejections of a filter or a chain, as `Arm.counts` asks for them.

    Args:
        tested: a filter or a chain.

    Returns:
        A function from inputs (N, *input) to which of them are rejected, (N,), bool.
    """
    return lambda x: tested.check(x, client="study").rejected
