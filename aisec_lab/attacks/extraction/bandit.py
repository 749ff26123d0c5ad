"""Adaptive sampling for Knockoff nets: a bandit chooses from which class of the pool to query next."""

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
    """A gradient bandit: preferences for actions that follow the expected reward (Orekondy et al., 2019, section 4).

    An action z with reward r changes the preferences by (r - mean) / N(z) * (one_hot(z) - pi). Here pi is the softmax
    of the preferences that z was drawn from, N(z) counts how often z was taken, and mean is that of the last rewards.

    Args:
        actions: number of actions.
        window: number of the last rewards that the mean is over, at least 1.
    """

    def __init__(self, actions: int, window: int) -> None:
        self.preferences = torch.zeros(actions, dtype=torch.float64)
        self.taken = torch.zeros(actions, dtype=torch.int64)
        self.window, self.rewards = window, torch.zeros(0, dtype=torch.float64)

    def pi(self, allowed: Tensor) -> Tensor:
        """Probabilities (actions,) of the actions; 0 where `allowed` (actions,), bool, is false."""
        return self.preferences.masked_fill(~allowed, -torch.inf).softmax(0)

    def learn(self, actions: list[int], rewards: Tensor, allowed: Tensor) -> None:
        """Update the preferences.

        Args:
            actions: n actions, in their order, all drawn from `pi(allowed)`.
            rewards: theirs (n,).
            allowed: which actions could be drawn (actions,), bool.
        """
        pi = self.pi(allowed)
        for action, reward in zip(actions, rewards.double(), strict=True):
            self.taken[action] += 1
            if len(self.rewards):  # the first reward is its own mean
                toward = F.one_hot(torch.tensor(action), len(pi)) - pi
                self.preferences += (reward - self.rewards.mean()) / self.taken[action] * toward
            self.rewards = torch.cat([self.rewards, reward[None]])[-self.window :]


@dataclass(frozen=True)
class BanditSampling:
    """The adaptive strategy of Knockoff nets: classes with larger rewards are queried more often.

    Orekondy et al., 2019, arXiv:1812.02766, section 4. The reward of an output is a weighted mean of three numbers in
    [0, 1]. Certainty is the difference of its two largest probabilities. Diversity is how far it exceeds the mean of
    the last outputs, sum_k max(0, y_k - mean_k). The loss is that of a surrogate that is trained along the way, as a
    share of the largest loss so far.

    Args:
        certainty, diversity, loss: weights, at least 0 and not all 0.
        block: rows that are queried at once, at least 1 (1 in the paper, more for speed); fewer when a class of the
            pool runs out.
        window: number of the last outputs and rewards that the means are over, at least 1.
        fit: how the surrogate is trained on each block.
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
        """The weights of certainty, diversity and loss."""
        return self.certainty, self.diversity, self.loss

    def __call__(
        self, oracle: Oracle, pool: Dataset, budget: int, architecture: Architecture, *, generator: torch.Generator
    ) -> QueryResult:
        """Spend a budget of queries.

        Args:
            oracle: the victim.
            pool: the attacker's inputs; their classes are the actions.
            budget: rows to query, at most those of the pool; no row is queried twice.
            architecture: of the surrogate.
            generator: source of the choices and of the surrogate.

        Returns:
            The queries that were answered, the published probabilities, and the rest of the pool.

        Raises:
            Exception: what the victim fails with before it has answered anything.
        """
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
        """Compute rewards.

        Args:
            answers: published probabilities (n, K).
            past: earlier ones (m, K); m may be 0.
            losses: the surrogate's losses (n,), divided by the largest so far.

        Returns:
            Rewards (n,), in [0, 1].
        """
        highest = answers.topk(2, dim=1).values
        usual = past.mean(0) if len(past) else answers.mean(0)
        parts = torch.stack([highest[:, 0] - highest[:, 1], (answers - usual).clamp(min=0).sum(1), losses])
        return torch.tensor(self.weights, dtype=parts.dtype) @ parts / sum(self.weights)


def _left(unasked: list[list[int]]) -> Tensor:
    """Which classes have rows that were not queried, bool."""
    return torch.tensor([len(rows) > 0 for rows in unasked])
