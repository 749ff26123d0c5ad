"""Data-free extraction: a generator makes inputs on which the surrogate differs from the victim."""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.optim import Adam
from torch.optim.lr_scheduler import CosineAnnealingLR

from aisec_lab.attacks.extraction.result import (
    ExtractionResult,
    check_extraction,
    published_probabilities,
    warn_if_incomplete,
)
from aisec_lab.attacks.oracle import Oracle
from aisec_lab.data import Dataset
from aisec_lab.models.asked import asked
from aisec_lab.models.layers import Architecture, initialise, logarithms

SPREAD = 4.0  # standard deviation of a pixel before the sigmoid, so that images use the whole of [0, 1]


def logits_from_probabilities(probabilities: Tensor) -> Tensor:
    """Recover logits from probabilities.

    Args:
        probabilities: (N, K), in [0, 1].

    Returns:
        Logits (N, K) of mean 0 whose softmax gives the probabilities back; those near 0 are raised to a floor first.
    """
    logits = logarithms(probabilities)
    return logits - logits.mean(1, keepdim=True)


def finite_differences(value: Tensor, ahead: Tensor, u: Tensor, epsilon: float) -> Tensor:
    """Estimate gradients by forward differences along random directions.

    Args:
        value: of the function at N points, (N,).
        ahead: its values a step of length `epsilon` further along each direction, (m, N).
        u: the directions (m, N, d), independent and uniform on the unit sphere.
        epsilon: length of the step, positive.

    Returns:
        Gradients (N, d): the mean over m of d (ahead - value) / epsilon u, unbiased for a linear function.
    """
    return u.shape[2] * ((ahead - value) / epsilon)[:, :, None].mul(u).mean(0)


@dataclass(frozen=True)
class DataFree:
    """Data-free model extraction (Truong et al., 2021, arXiv:2011.14779).

    A generator of inputs and a surrogate play a game about the l1 distance between the surrogate's logits and the
    victim's, recovered from its probabilities. The surrogate minimises it. The generator maximises it, with a gradient
    that is estimated by forward differences of the published outputs, taken before the pixels' sigmoid. Beyond the
    paper, the surrogate also trains on earlier outputs again, which costs no query.

    Call contract: docs/extraction-attacks.md. The oracle has to publish probabilities. Of the pool only the shape of
    its inputs is used. Fewer than `budget` queries are made: what is left of an incomplete last round is not spent.

    Args:
        architecture: of the surrogate.
        budget: queries at most; at least one round.
        batch_size: inputs of a step, at least 2.
        copy_steps: of the surrogate on new inputs for each step of the generator, at least 1.
        replays: further steps of the surrogate on earlier outputs, at least 0.
        directions: m, of each estimated gradient, at least 1.
        epsilon: length of a forward difference, positive.
        copy_rate: peak learning rate of the surrogate, for Adam on half a cosine, positive.
        generator_rate: that of the generator; with 0 the generator stays random and costs no queries, a baseline.
        noise: dimension of the generator's input, at least 1.
        hidden: width of the generator's layers, at least 1.

    Raises:
        ValueError: settings out of range; on a call also a budget below one round, and an oracle that publishes labels.
    """

    architecture: Architecture
    budget: int = 30_000
    batch_size: int = 64
    copy_steps: int = 2
    replays: int = 7
    directions: int = 1
    epsilon: float = 1e-3
    copy_rate: float = 0.002
    generator_rate: float = 0.01
    noise: int = 32
    hidden: int = 128

    def __post_init__(self) -> None:
        counts = (self.batch_size - 1, self.copy_steps, self.directions, self.noise, self.hidden)
        rates = (self.epsilon, self.copy_rate)
        if min(counts) < 1 or not min(rates) > 0 or min(self.replays, self.generator_rate) < 0:
            raise ValueError(
                f"batches have at least 2 rows, replays and generator_rate are not negative, the rest positive: {self}"
            )

    def __call__(self, oracle: Oracle, pool: Dataset, *, generator: torch.Generator) -> ExtractionResult:
        if oracle.labels_only:
            raise ValueError(
                "DataFree needs probabilities, from which gradients are estimated, and this oracle publishes labels: "
                "take Knockoff"
            )
        climbing = 1 + self.directions if self.generator_rate else 0
        a_round = self.batch_size * (climbing + self.copy_steps)
        check_extraction(oracle, pool, self.budget, at_least=1 + a_round)
        rounds, before = (self.budget - 1) // a_round, oracle.queries
        with asked(oracle):
            classes = published_probabilities(oracle, torch.full((1, *pool.shape), 0.5)).shape[1]
            copy = self.architecture(pool.shape, classes, generator=generator).train()
            game = _Game(self, oracle, copy, pool.shape, rounds, generator)
            try:
                for _ in range(rounds):
                    game.round()
            except Exception as error:
                if error is not oracle.error or not game.memory:
                    raise
        queries = oracle.queries - before
        return ExtractionResult(copy.eval(), queries, warn_if_incomplete(oracle, queries))


class _Game:
    """The two networks, their optimizers, and what the victim has answered so far."""

    def __init__(
        self,
        settings: DataFree,
        oracle: Oracle,
        copy: nn.Module,
        shape: tuple[int, ...],
        rounds: int,
        generator: torch.Generator,
    ) -> None:
        self.settings, self.oracle, self.copy, self.shape, self.generator = settings, oracle, copy, shape, generator
        d, width = torch.Size(shape).numel(), settings.hidden
        self.player = nn.Sequential(
            *(nn.Linear(settings.noise, width), nn.BatchNorm1d(width), nn.ReLU()),
            *(nn.Linear(width, width), nn.BatchNorm1d(width), nn.ReLU()),
            *(nn.Linear(width, d), nn.BatchNorm1d(d, affine=False)),  # a pixel keeps its spread: not one image for all
        )
        initialise(self.player, generator)
        self.down = Adam(copy.parameters(), lr=settings.copy_rate)
        self.up = Adam(self.player.parameters(), lr=settings.generator_rate)
        steps = rounds * (settings.copy_steps + settings.replays)
        self.slower = CosineAnnealingLR(self.down, steps), CosineAnnealingLR(self.up, rounds)
        self.memory: list[tuple[Tensor, Tensor]] = []  # batches of inputs and recovered logits

    def round(self) -> None:
        """A step of the generator, and the surrogate's steps that go with it."""
        if self.settings.generator_rate:
            self.climb()
        for _ in range(self.settings.copy_steps):
            self.descend(*self.answered(self.drawn().detach()))
        for _ in range(self.settings.replays):
            self.descend(*self.remembered())

    def drawn(self) -> Tensor:
        """The generator's output (B, d) for random noise, before the sigmoid."""
        noise = torch.randn(self.settings.batch_size, self.settings.noise, generator=self.generator)
        made: Tensor = self.player(noise)
        return SPREAD * made

    def images(self, z: Tensor) -> Tensor:
        """Inputs (B, *shape) in [0, 1] from values before the sigmoid (B, d)."""
        return z.sigmoid().unflatten(1, self.shape)

    def answered(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """Query the victim: the inputs (B, *shape) and its logits (B, K), which are remembered."""
        x = self.images(z)
        self.memory.append((x, logits_from_probabilities(published_probabilities(self.oracle, x))))
        return self.memory[-1]

    def remembered(self) -> tuple[Tensor, Tensor]:
        """An earlier batch of inputs and logits, at random."""
        return self.memory[int(torch.randint(len(self.memory), (), generator=self.generator))]

    def descend(self, x: Tensor, logits: Tensor) -> None:
        """A step of the surrogate towards logits."""
        self.down.zero_grad(set_to_none=True)
        (self.copy(x) - logits).abs().mean().backward()
        self.down.step()
        self.slower[0].step()

    @torch.no_grad()
    def apart(self, x: Tensor, logits: Tensor) -> Tensor:
        """The mean absolute difference (B,) of the surrogate's logits from others."""
        return (self.copy(x) - logits).abs().mean(1)

    def climb(self) -> None:
        """A step of the generator towards larger differences."""
        z = self.drawn()
        start, epsilon = z.detach(), self.settings.epsilon
        shape = (self.settings.directions, *start.shape)
        u = F.normalize(torch.randn(shape, generator=self.generator), dim=2)
        here = self.apart(*self.answered(start))
        ahead = self.images((start + epsilon * u).flatten(0, 1))
        there = self.apart(ahead, logits_from_probabilities(published_probabilities(self.oracle, ahead))).unflatten(
            0, u.shape[:2]
        )
        self.up.zero_grad(set_to_none=True)
        z.backward(-finite_differences(here, there, u, epsilon) / len(z))
        self.up.step()
        self.slower[1].step()
