"""Attacks of the reference libraries behind one call: model, images, classes and a seed to adversarial images."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import foolbox
import numpy as np
import torch
import torchattacks
from art.attacks import EvasionAttack
from art.estimators.classification import PyTorchClassifier
from torch import Tensor, nn

from aisec_lab.attacks import Ball

Peer = Callable[[nn.Module, Tensor, Tensor, int], Tensor]
NORM = {"Linf": np.inf, "L2": 2, "L1": 1}  # as ART spells them


@contextmanager
def seeded_globally(seed: int) -> Iterator[None]:
    """Seed the global generators, which the libraries use, and restore their state afterwards."""
    state = np.random.get_state()
    try:
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            np.random.seed(seed)
            yield
    finally:
        np.random.set_state(state)


def of_torchattacks(name: str, ball: Ball, **settings: Any) -> Peer:
    """An attack of torchattacks; its step sizes are in pixels."""

    def attack(model: nn.Module, x: Tensor, y: Tensor, seed: int) -> Tensor:
        method = getattr(torchattacks, name)(model, eps=ball.eps, **settings)
        method.seed = seed  # by which APGD, APGDT and Square seed the global generator once more
        with seeded_globally(seed):
            return method(x, y)

    return attack


def of_foolbox(method: foolbox.Attack, ball: Ball) -> Peer:
    """An attack of foolbox; its step sizes are in units of eps.

    Where a minimum-norm attack finds nothing within eps, x is returned. For the others, points are scaled back into the
    ball, since `SparseL1DescentAttack` leaves it by some per cent.
    """

    def attack(model: nn.Module, x: Tensor, y: Tensor, seed: int) -> Tensor:
        smallest = isinstance(method, foolbox.attacks.base.MinimizationAttack)
        with seeded_globally(seed):
            _, x_adv, _ = method(foolbox.PyTorchModel(model, (0, 1)), x, y, epsilons=None if smallest else ball.eps)
        return torch.where((ball.norm(x_adv - x) <= ball.eps)[:, None, None, None], x_adv, x) if smallest else x_adv

    return attack


def of_art(method: type[EvasionAttack], ball: Ball, **settings: Any) -> Peer:
    """An attack of ART; its step sizes are in pixels. All rows are one batch, as they are for the others."""

    def attack(model: nn.Module, x: Tensor, y: Tensor, seed: int) -> Tensor:
        loss = nn.CrossEntropyLoss(reduction="sum")  # the mean's gradient drowns in what ART adds against 0 / 0
        classifier = PyTorchClassifier(model, loss, x.shape[1:], 10, clip_values=(0, 1), device_type="cpu")
        made = method(classifier, norm=NORM[ball.name], eps=ball.eps, batch_size=len(x), **settings)
        with seeded_globally(seed):
            return torch.from_numpy(made.generate(x.numpy(), y.numpy()))

    return attack
