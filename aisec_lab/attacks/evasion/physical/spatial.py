"""Attacks that rotate and shift an image: by grid search, at random, or along the gradient."""

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from aisec_lab.attacks.evasion.attack import prepare_inputs, scored_model
from aisec_lab.attacks.evasion.physical.poses import RotationTranslation, check_images, rotate_translate
from aisec_lab.attacks.evasion.search.best import PASS_ROWS, LowestMargin
from aisec_lab.attacks.evasion.search.goals import Goal, Untargeted
from aisec_lab.attacks.evasion.search.losses import CrossEntropy, Loss
from aisec_lab.attacks.evasion.search.objectives import loss_and_gradient, signed_loss
from aisec_lab.core.row_noise import RowNoise
from aisec_lab.models.checked import checked_model

Proposals = Callable[[Tensor, int, int], Tensor]  # for rows (n,), poses first..first+k-1: (n, k, 3)


@dataclass(frozen=True, eq=False)
class SpatialResult:
    """The result of a spatial attack.

    Args:
        x_adv: images (N, C, H, W).
        pose: for each (N, 3) the angle in degrees, anticlockwise, and the shifts to the right and downwards in pixels;
            zeros where the image stayed as it was.
    """

    x_adv: Tensor
    pose: Tensor


class Spatial(ABC):
    """A search for the worst rotation and translation of each image (Engstrom et al., 2019, arXiv:1712.02779).

    Call contract: docs/evasion-attacks.md, for images (N, C, H, W). The threat model is a `RotationTranslation` in
    place of a ball; pixels from outside the image are zero. The call returns each row's first adversarial pose, or its
    pose of lowest margin, the unchanged image included.
    """

    def __call__(self, model: nn.Module, x: Tensor, y: Tensor, *, generator: torch.Generator) -> Tensor:
        return self.search(model, x, y, generator=generator).x_adv

    @abstractmethod
    def search(self, model: nn.Module, x: Tensor, y: Tensor, *, generator: torch.Generator) -> SpatialResult:
        """Attack, and also return the poses.

        Args:
            model: classifier in evaluation mode; images (N, C, H, W) to logits (N, K).
            x: clean images (N, C, H, W) in [0, 1].
            y: true classes (N,), int64; with the goal `Targeted`, the targets.
            generator: source of random poses.

        Returns:
            The images of the call, and their poses.

        Raises:
            ValueError: inputs that are no images, and what the call contract lists.
        """


@dataclass(frozen=True)
class SpatialGrid(Spatial):
    """Grid search over poses (Engstrom et al., 2019, arXiv:1712.02779).

    In the paper 31 angles and 5 shifts along each axis. Call contract: see `Spatial`.

    Args:
        threat: the largest angle and shift.
        angles: number of angles.
        shifts: number of shifts along each axis.
        goal: what makes a row adversarial.

    Raises:
        ValueError: angles or shifts below 1.
    """

    threat: RotationTranslation = RotationTranslation()
    angles: int = 31
    shifts: int = 5
    goal: Goal = Untargeted()

    def __post_init__(self) -> None:
        if min(self.angles, self.shifts) < 1:
            raise ValueError(f"angles and shifts must be positive: {self}")

    def poses(self) -> Tensor:
        """The grid (T, 3) without the pose that changes nothing, float64."""
        numbers = (self.angles, self.shifts, self.shifts)
        axes = [
            torch.linspace(-most, most, number, dtype=torch.float64).unique() if number > 1 else torch.zeros(1).double()
            for most, number in zip(self.threat.limits, numbers, strict=True)
        ]
        grid = torch.cartesian_prod(*axes)
        return grid[(grid != 0).any(1)]

    def search(self, model: nn.Module, x: Tensor, y: Tensor, *, generator: torch.Generator) -> SpatialResult:
        x = _prepare_images(model, x, y, generator)
        poses = self.poses().to(x)

        def grid_poses(rows: Tensor, first: int, k: int) -> Tensor:
            return poses[first : first + k].expand(len(rows), -1, -1)

        return _worst_pose(model, x, y, self.goal, grid_poses, len(poses))


@dataclass(frozen=True)
class WorstOfK(Spatial):
    """The worst of k random poses for each row (Engstrom et al., 2019, arXiv:1712.02779).

    In the paper k is 10. Call contract: see `Spatial`.

    Args:
        threat: the largest angle and shift.
        k: number of poses.
        goal: what makes a row adversarial.

    Raises:
        ValueError: k below 1.
    """

    threat: RotationTranslation = RotationTranslation()
    k: int = 10
    goal: Goal = Untargeted()

    def __post_init__(self) -> None:
        if self.k < 1:
            raise ValueError(f"k must be positive: {self}")

    def search(self, model: nn.Module, x: Tensor, y: Tensor, *, generator: torch.Generator) -> SpatialResult:
        x = _prepare_images(model, x, y, generator)
        noise, limits = RowNoise(x, generator), torch.tensor(self.threat.limits).to(x)

        def random_poses(rows: Tensor, first: int, k: int) -> Tensor:
            own = noise.select(rows)
            return limits * (2 * torch.stack([own.uniform((3,), first + i) for i in range(k)], 1) - 1)

        return _worst_pose(model, x, y, self.goal, random_poses, self.k)


@dataclass(frozen=True)
class SpatialPGD(Spatial):
    """First-order search: projected gradient ascent on angle and shifts, from a random pose.

    Engstrom et al., 2019, arXiv:1712.02779. Call contract: see `Spatial`. The paper finds it weaker than grid search,
    as the loss has many local maxima in the pose.

    Args:
        threat: the largest angle and shift.
        steps: iterations.
        step_size: in units of the largest angle and shift.
        loss: what is maximised; of logits (N, K) and `y`.
        goal: what makes a row adversarial.

    Raises:
        ValueError: steps or step_size not positive.
    """

    threat: RotationTranslation = RotationTranslation()
    steps: int = 100
    step_size: float = 0.1
    loss: Loss = CrossEntropy()
    goal: Goal = Untargeted()

    def __post_init__(self) -> None:
        if self.steps < 1 or not self.step_size > 0:
            raise ValueError(f"steps and step_size must be positive: {self}")

    def search(self, model: nn.Module, x: Tensor, y: Tensor, *, generator: torch.Generator) -> SpatialResult:
        x = _prepare_images(model, x, y, generator)
        limits = torch.tensor(self.threat.limits).to(x)
        share = 2 * RowNoise(x, generator).uniform((3,), 0) - 1
        pose = torch.zeros_like(share)
        with scored_model(model):
            best = LowestMargin(model, x, y, self.goal)
            rows = best.active_rows
            for _ in range(self.steps):
                if not len(rows):
                    break
                origin, objective = x[rows], signed_loss(self.loss, self.goal, y[rows])
                logits, _, grad = loss_and_gradient(
                    lambda share, origin=origin: model(rotate_translate(origin, limits * share)),  # type: ignore[misc]
                    share[rows],
                    objective,
                )
                here = share[rows]
                share[rows] = (here + self.step_size * grad.sign()).clamp(-1, 1)
                rows = _update(best, pose, rows, limits * here, rotate_translate(origin, limits * here), logits)
        return SpatialResult(best.x_adv, pose)


def _prepare_images(model: nn.Module, x: Tensor, y: Tensor, generator: torch.Generator) -> Tensor:
    """Check the arguments of a call; return the images, detached."""
    x = prepare_inputs(model, x, y, generator)
    check_images(x)
    return x


def _worst_pose(model: nn.Module, x: Tensor, y: Tensor, goal: Goal, propose: Proposals, number: int) -> SpatialResult:
    """Each row's first adversarial pose, or its pose of lowest margin, among `number` proposed ones."""
    with checked_model(model), torch.no_grad():
        best = LowestMargin(model, x, y, goal)
        pose, rows, tried = x.new_zeros(len(x), 3), best.active_rows, 0
        while tried < number and len(rows):
            k = min(max(1, PASS_ROWS // len(rows)), number - tried)  # poses of a pass
            poses = propose(rows, tried, k)
            z = rotate_translate(x[rows].repeat_interleave(k, 0), poses.flatten(0, 1))
            logits = model(z)
            margin = goal.margin(logits, y[rows].repeat_interleave(k)).view(-1, k)
            is_adv = (margin < 0).long()
            after_first = is_adv.cumsum(1) > is_adv  # poses after the first adversarial one
            chosen = margin.masked_fill(after_first, torch.inf).argmin(1)
            index = torch.arange(len(rows), device=x.device)
            rows = _update(best, pose, rows, poses[index, chosen], z[index * k + chosen], logits[index * k + chosen])
            tried += k
    return SpatialResult(best.x_adv, pose)


def _update(best: LowestMargin, pose: Tensor, rows: Tensor, new: Tensor, z: Tensor, logits: Tensor) -> Tensor:
    """Record images z in poses `new` (n, 3) where their margins are lower; return the rows that are not adversarial."""
    before = best.margin[rows]
    active = best.update(rows, z, logits)
    lower = best.margin[rows] < before
    pose[rows[lower]] = new[lower]
    return rows[active]
