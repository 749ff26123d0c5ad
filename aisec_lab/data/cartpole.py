"""A pole balanced on a cart (Barto, Sutton & Anderson, 1983): its states, and what the linear regulator does in them.

The constants are those of gymnasium's `CartPole-v1`.
"""

from functools import cache

import numpy as np
import torch
from scipy.linalg import solve_discrete_are
from torch import Tensor

from aisec_lab.data.dataset import Dataset

FEATURES = ("position", "velocity", "angle", "angular velocity")
ACTIONS = ("left", "right")
LIMITS = (2.4, 3.0, 0.21, 3.0)  # metres, radians, and each a second; an episode ends at the first and the third
GRAVITY, CART, POLE, HALF_LENGTH, TICK = 9.8, 1.0, 0.1, 0.5, 0.02


def observed(state: Tensor) -> Tensor:
    """States of the cart as inputs of a model.

    Args:
        state: (N, 4): position, speed, angle, and angular speed.

    Returns:
        float32 (N, 4) in [0, 1], 0.5 at rest; values beyond the limits are clipped.
    """
    return ((state / torch.tensor(LIMITS) + 1) / 2).clamp(0, 1).float()


@cache
def regulator() -> tuple[float, ...]:
    """Gains of the linear-quadratic regulator about the upright pole: it pushes right where gains . state > 0."""
    mass = CART + POLE
    turn = 1 / (HALF_LENGTH * (4 / 3 - POLE / mass))  # angular acceleration for each unit of the push on the pole
    tilt = POLE * HALF_LENGTH / mass  # what the pole's acceleration takes from the cart's
    drift = np.zeros((4, 4))
    drift[0, 1] = drift[2, 3] = 1.0
    drift[3, 2] = GRAVITY * turn
    drift[1, 2] = -tilt * drift[3, 2]
    push = np.array([[0.0], [(1 + tilt * turn) / mass], [0.0], [-turn / mass]])
    a, b = np.eye(4) + TICK * drift, TICK * push
    cost, effort = np.diag(1 / np.square(LIMITS)), np.eye(1) / 100
    p = solve_discrete_are(a, b, cost, effort)
    gains = -np.linalg.solve(effort + b.T @ p @ b, b.T @ p @ a)[0]
    return tuple(gains.tolist())


def demonstrations(n: int, *, generator: torch.Generator) -> Dataset:
    """States and what the regulator does in them, for a policy to imitate.

    Args:
        n: how many.
        generator: source of the states: everywhere within the limits, and the denser the nearer to rest.

    Returns:
        Rows (n, 4), as `observed`, whose classes are the actions.
    """
    direction = 2 * torch.rand(n, 4, generator=generator) - 1
    state = torch.tensor(LIMITS) * direction * torch.rand(n, 1, generator=generator)
    right = state @ torch.tensor(regulator()) > 0
    return Dataset(observed(state), right.long(), ACTIONS, "cartpole", FEATURES)
