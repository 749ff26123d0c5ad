"""Return of a policy whose observations are attacked, over whole episodes."""

from collections.abc import Iterable
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from aisec_lab.core.intervals import bounded_mean
from aisec_lab.data.cartpole import observed
from aisec_lab.evaluation.robustness import BallAttack
from aisec_lab.models import logits_of


def episodes(policy: nn.Module, *, number: int, horizon: int, seed: int, attack: BallAttack | None = None) -> Tensor:
    """Play CartPole, all episodes in parallel, while an attack perturbs the observations of the policy.

    The policy is a classifier of observations into actions. At each step, the attack looks for an observation with
    another action than the policy would choose (Huang et al., 2017, arXiv:1702.02284, section 3).

    Args:
        policy: classifier of observations (N, 4), as `aisec_lab.data.observed` scales them, into the two actions.
        number: number of episodes, at least 1.
        horizon: number of steps after which an episode ends, at least 1.
        seed: seed of the initial states and of the attack.
        attack: an evasion attack; none by default.

    Returns:
        The return of each episode (number,): the number of steps, at most `horizon`, until the pole falls or the cart
        leaves its track.

    Raises:
        ValueError: no episode, or no step.
    """
    import gymnasium  # takes half a second, only where it is needed

    if number < 1 or horizon < 1:
        raise ValueError(f"number and horizon must be positive, got {number} and {horizon}")
    generator = torch.Generator().manual_seed(seed)
    world = gymnasium.make_vec(
        "CartPole-v1", num_envs=number, vectorization_mode="vector_entry_point", max_episode_steps=horizon
    )
    state, _ = world.reset(seed=seed)
    returns, up = torch.zeros(number), torch.ones(number, dtype=torch.bool)
    while up.any():
        x = observed(torch.from_numpy(state))
        action = logits_of(policy, x).argmax(1)
        if attack is not None:
            seen = attack(policy, x[up], action[up], generator=generator)
            action[up] = logits_of(policy, seen).argmax(1)
        state, _, fell, ended, _ = world.step(action.numpy())
        returns += up
        up &= ~torch.from_numpy(fell | ended)
    world.close()
    return returns


def return_curve(
    policy: nn.Module, attack: BallAttack, levels: Iterable[float], *, number: int, horizon: int, seed: int, **cell: Any
) -> list[dict[str, Any]]:
    """The mean return under attack at each budget, over episodes with the same initial states.

    Args:
        policy: classifier of observations (N, 4) into the two actions.
        attack: an evasion attack; the radius of its ball is set to each level in turn.
        levels: radii eps, in the units of the ball, over observations in [0, 1].
        number: number of episodes, at least 1.
        horizon: number of steps after which an episode ends, at least 1.
        seed: seed of the initial states and of the attack.
        cell: other columns of the table (docs/evaluation.md).

    Returns:
        Rows of the table: `mean_return` in steps, with a 95 % interval that is valid for any distribution of returns.

    Raises:
        ValueError: no episode, or no step.
    """
    rows = []
    for level in levels:
        at = replace(attack, ball=replace(attack.ball, eps=level))  # type: ignore[type-var]
        returns = episodes(policy, number=number, horizon=horizon, seed=seed, attack=at)
        low, high = bounded_mean(returns.tolist(), 0, horizon)
        where = {"knob": attack.ball.name, "level": float(level), "seed": seed}
        rows.append(
            {"metric": "mean_return", "value": returns.mean().item(), "low": low, "high": high, "n": number}
            | where
            | cell
        )
    return rows
