"""Which class of a thief's pool to ask about next: a bandit that is rewarded for answers worth having."""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from aisec_lab.attacks.extraction.result import published_until_error
from aisec_lab.attacks.extraction.surrogate import QueryResult, query_result
from aisec_lab.attacks.extraction.surrogate_training import fit_surrogate
from aisec_lab.attacks.oracle import Oracle
from aisec_lab.data import Dataset
from aisec_lab.models.layers import Architecture
from aisec_lab.models.passes import logits_of
from aisec_lab.models.training.fit import Fit


class GradientBandit:
    """Preferences for some actions, moved along the gradient of the expected reward (Orekondy et al., 2019, section 4).

    An action z with reward r moves the preferences by (r - mean) / N(z) * (one_hot(z) - pi), where pi is the softmax
    of the preferences that z was drawn from, N(z) how often z was taken, and the mean that of the last rewards.

    Args:
        actions: how many there are.
        window: how many of the last rewards the mean is over.
    """

    def __init__(self, actions: int, window: int) -> None:
        self.preferences = torch.zeros(actions, dtype=torch.float64)
        self.taken = torch.zeros(actions, dtype=torch.int64)
        self.window, self.rewards = window, torch.zeros(0, dtype=torch.float64)

    def pi(self, allowed: Tensor) -> Tensor:
        """Probabilities (actions,) of what may be taken, as `allowed` (actions,), bool, says."""
        return self.preferences.masked_fill(~allowed, -torch.inf).softmax(0)

    def learn(self, actions: list[int], rewards: Tensor, allowed: Tensor) -> None:
        """Learn from actions that were all drawn from `pi(allowed)`, in their order, and their rewards (n,)."""
        pi = self.pi(allowed)
        for action, reward in zip(actions, rewards.double(), strict=True):
            self.taken[action] += 1
            if len(self.rewards):  # the first reward is its own mean
                toward = F.one_hot(torch.tensor(action), len(pi)) - pi
                self.preferences += (reward - self.rewards.mean()) / self.taken[action] * toward
            self.rewards = torch.cat([self.rewards, reward[None]])[-self.window :]


@dataclass(frozen=True)
class BanditSampling:
    """Classes of the pool are asked about the more, the more their answers were worth.

    Orekondy et al., 2019, arXiv:1812.02766, section 4. An answer is worth a weighted mean of three numbers in [0, 1]:
    its certainty, the difference of its two largest probabilities; its diversity, how far it exceeds the mean of the
    last answers, sum_k max(0, y_k - mean_k); and the loss of a copy that learns as the answers come in, as a share of
    the largest loss so far.

    Args:
        certainty, diversity, loss: the weights.
        block: rows that are asked at once, the paper's 1 or more, for speed; fewer where a class of the pool runs out.
        window: how many of the last answers and rewards the means are over.
        fit: how the copy learns each block.

    Args of the call:
        oracle: the victim.
        pool: the attacker's rows; their classes are the actions.
        budget: rows to ask; no row is asked twice.
        architecture: of the copy.
        generator: source of the choices, and of the copy.

    Returns:
        The rows that were answered, their answers, and the rest of the pool.
    """

    certainty: float = 1.0
    diversity: float = 1.0
    loss: float = 1.0
    block: int = 16
    window: int = 25
    fit: Fit = Fit(epochs=1, learning_rate=0.01, momentum=0.9)

    def __post_init__(self) -> None:
        if min(self.weights) < 0 or not sum(self.weights) > 0 or self.block < 1 or self.window < 1:
            raise ValueError(f"weights must not be negative nor all zero, block and window at least 1: {self}")

    @property
    def weights(self) -> tuple[float, float, float]:
        """Of certainty, diversity and loss."""
        return self.certainty, self.diversity, self.loss

    def __call__(
        self, oracle: Oracle, pool: Dataset, budget: int, architecture: Architecture, *, generator: torch.Generator
    ) -> QueryResult:
        order, classes = torch.randperm(len(pool), generator=generator), pool.y.cpu()
        unasked = [order[classes[order] == label].tolist() for label in classes.unique()]
        bandit, worst = GradientBandit(len(unasked), self.window), torch.tensor(1e-12)  # a share of no loss is 0
        asked: list[int] = []
        known: Tensor | None = None
        while len(asked) < budget:
            there = _left(unasked)
            actions: list[int] = []
            rows: list[int] = []
            while len(rows) < min(self.block, budget - len(asked)) and torch.equal(_left(unasked), there):
                actions.append(int(torch.multinomial(bandit.pi(there), 1, generator=generator)))
                rows.append(unasked[actions[-1]].pop())
            known, asked = published_until_error(oracle, pool.x[rows], known).float(), asked + rows
            if len(known) < len(asked):
                break
            x, (past, told) = pool.x[rows], known.split([len(known) - len(rows), len(rows)])
            if not len(past):
                copy = architecture(pool.shape, told.shape[1], generator=generator).to(x.device)
            losses = F.cross_entropy(logits_of(copy, x), told, reduction="none")
            worst = torch.maximum(worst, losses.max())
            bandit.learn(actions, self.reward(told, past[-self.window :], losses / worst), there)
            fit_surrogate(copy, x, told, fit=self.fit, generator=generator, name="a block of answers")
        assert known is not None
        return query_result(pool, torch.tensor(asked), known)

    def reward(self, answers: Tensor, past: Tensor, losses: Tensor) -> Tensor:
        """Rewards (n,) of answers (n, K), after `past` ones (m, K), from the share that each loss is of the largest."""
        highest = answers.topk(2, dim=1).values
        usual = past.mean(0) if len(past) else answers.mean(0)
        parts = torch.stack([highest[:, 0] - highest[:, 1], (answers - usual).clamp(min=0).sum(1), losses])
        return torch.tensor(self.weights, dtype=parts.dtype) @ parts / sum(self.weights)


def _left(unasked: list[list[int]]) -> Tensor:
    """Which classes have rows that were not asked about."""
    return torch.tensor([len(rows) > 0 for rows in unasked])
