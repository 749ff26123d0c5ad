"""What an attack on its observations does to a policy: the return of whole episodes."""

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
    """Play CartPole, all episodes side by side, while an attacker changes what the policy sees of it.

    The attacker takes the policy for a classifier of observations into actions and wants, at each step, another
    action than the policy would choose (Huang et al., 2017, arXiv:1702.02284, section 3).

    Args:
        policy: classifier of inputs (N, 4), as `aisec_lab.data.observed` makes them, into the two actions.
        number: of episodes.
        horizon: steps after which an episode ends by itself.
        seed: fixes how the episodes begin, and the attacker's draws.
        attack: an evasion attack; none by default.

    Returns:
        Returns (number,): the steps, at most `horizon`, before the pole fell or the cart left its track.

    Raises:
        ValueError: no episode, or no step.
    """
    import gymnasium  # half a second that nothing else should pay

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
    """The mean return under attack at each budget, of episodes that begin alike.

    Args:
        policy, attack, number, horizon, seed: as for `episodes`; the attack's ball is given each level in turn.
        levels: budgets eps, in the units of the ball over observations in [0, 1].
        cell: the other columns of the table.

    Returns:
        Rows of the table: `mean_return` in steps, with an interval that holds for any distribution of returns.
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
