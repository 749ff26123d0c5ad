"""Self-training: use the pool's inputs that were never queried, with labels by surrogates."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from aisec_lab.models.passes import logits_of


@dataclass(frozen=True)
class SelfTraining:
    """Surrogates label the rest of the pool, and a new surrogate learns from the victim's outputs and these labels.

    Semi-supervised extraction (Jagielski et al., 2020, arXiv:1909.01838, section 5) costs no query. Here it is
    self-training with soft labels: the mean of the teachers' probabilities. It costs training time: each round trains
    for the full number of epochs on the whole pool.

    Args:
        teachers: surrogates that label the rest in the first round, at least 1; in later rounds the last surrogate
            does.
        rounds: how often the rest is labelled and a new surrogate trained, at least 1.
    """

    teachers: int = 1
    rounds: int = 1

    def __post_init__(self) -> None:
        if self.teachers < 1 or self.rounds < 1:
            raise ValueError(f"teachers and rounds must be at least 1: {self}")

    def __call__(
        self, train: Callable[[Tensor, Tensor], nn.Module], x: Tensor, answers: Tensor, rest: Tensor
    ) -> nn.Module:
        """Train a surrogate on queried and other inputs.

        Args:
            train: from inputs and probabilities (N, K) to a new surrogate.
            x: queries (N, *input).
            answers: published probabilities for them (N, K).
            rest: inputs (M, *input) that were not queried; M may be 0.

        Returns:
            The last surrogate; if M is 0, one trained on the published probabilities alone.
        """
        if not len(rest):
            return train(x, answers)
        copies = [train(x, answers) for _ in range(self.teachers)]
        for _ in range(self.rounds):
            guessed = torch.stack([logits_of(copy, rest).softmax(1) for copy in copies]).mean(0)
            copies = [train(torch.cat([x, rest]), torch.cat([answers, guessed]))]
        return copies[0]
