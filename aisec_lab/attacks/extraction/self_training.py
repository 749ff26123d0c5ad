"""What a thief makes of the inputs that it owns and never asked about: its own copies answer them."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from aisec_lab.models.passes import logits_of


@dataclass(frozen=True)
class SelfTraining:
    """Copies label the rest of the pool, and a new copy learns from victim and copies alike.

    Semi-supervised extraction (Jagielski et al., 2020, arXiv:1909.01838, section 5) costs no query. Here it is
    self-training with soft labels: the answers for the rest are the mean of the teachers' probabilities. It costs
    passes instead: each round trains for as many epochs as ever, on the whole pool.

    Args:
        teachers: copies that answer in the first round; later rounds have the last copy for their only teacher.
        rounds: how many times the rest is answered and a new copy trained.

    Args of the call:
        train: makes a new copy from inputs and probabilities (N, K).
        x, answers: queries (N, *input) and what was published for them (N, K).
        rest: inputs (M, *input) that nobody asked about.

    Returns:
        The last copy; where the rest is empty, one trained on the answers alone.
    """

    teachers: int = 1
    rounds: int = 1

    def __post_init__(self) -> None:
        if self.teachers < 1 or self.rounds < 1:
            raise ValueError(f"teachers and rounds must be at least 1: {self}")

    def __call__(
        self, train: Callable[[Tensor, Tensor], nn.Module], x: Tensor, answers: Tensor, rest: Tensor
    ) -> nn.Module:
        if not len(rest):
            return train(x, answers)
        copies = [train(x, answers) for _ in range(self.teachers)]
        for _ in range(self.rounds):
            guessed = torch.stack([logits_of(copy, rest).softmax(1) for copy in copies]).mean(0)
            copies = [train(torch.cat([x, rest]), torch.cat([answers, guessed]))]
        return copies[0]
