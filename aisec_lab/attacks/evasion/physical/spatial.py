"""Attacks that turn and shift an image: by a grid, at random, or along the gradient."""

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from aisec_lab.attacks.evasion.attack import prepare_inputs, scored
from aisec_lab.attacks.evasion.physical.poses import RotationTranslation, check_images, rotate_translate
from aisec_lab.attacks.evasion.search.best import TOGETHER, LowestMargin
from aisec_lab.attacks.evasion.search.goals import Goal, Untargeted
from aisec_lab.attacks.evasion.search.losses import CrossEntropy, Loss
from aisec_lab.attacks.evasion.search.objectives import loss_and_gradient, signed_loss
from aisec_lab.core.row_noise import RowNoise
from aisec_lab.models.asked import asked

Proposals = Callable[[Tensor, int, int], Tensor]  # for rows (n,), of numbers first..first+k-1: poses (n, k, 3)


@dataclass(frozen=True, eq=False)
class SpatialResult:
    """What a spatial attack finds.

    Args:
        x_adv: images (N, C, H, W) at the lowest margin seen.
        pose: of each the angle in degrees, anticlockwise, and the shifts to the right and downwards in pixels (N, 3);
            zeros where the image stayed as it was.
    """

    x_adv: Tensor
    pose: Tensor


class Spatial(ABC):
    """A search for the worst rotation and translation of each image (Engstrom et al., 2019, arXiv:1712.02779).

    It has a threat of its own in place of a ball: angles in degrees, shifts in pixels; what comes from outside the
    image is zero.

    Args of the call:
        model: classifier in evaluation mode; images in [0, 1], shape (N, C, H, W), to logits (N, K).
        x, y: clean images and their true classes (N,), int64; with the goal `Targeted`, the targets.
        generator: source of what is random.

    Returns:
        Images, shape of `x`, at the lowest margin seen, the untouched image included. A row leaves the search once it
        is won, with the first pose that wins, whatever rows share the batch.

    Raises:
        ValueError: inputs that are no images, and what `PGD` refuses.
    """

    def __call__(self, model: nn.Module, x: Tensor, y: Tensor, *, generator: torch.Generator) -> Tensor:
        return self.search(model, x, y, generator=generator).x_adv

    @abstractmethod
    def search(self, model: nn.Module, x: Tensor, y: Tensor, *, generator: torch.Generator) -> SpatialResult:
        """The worst images with their poses. Args, returns, raises: as for the call."""


@dataclass(frozen=True)
class SpatialGrid(Spatial):
    """Every pose of a grid: in the paper 31 angles, and 5 shifts along each axis. Args of the call: see `Spatial`."""

    threat: RotationTranslation = RotationTranslation()
    angles: int = 31
    shifts: int = 5
    goal: Goal = Untargeted()

    def __post_init__(self) -> None:
        if min(self.angles, self.shifts) < 1:
            raise ValueError(f"angles and shifts must be positive: {self}")

    def poses(self) -> Tensor:
        """All but the one that changes nothing (T, 3), float64: so often is each image seen, and once untouched."""
        numbers = (self.angles, self.shifts, self.shifts)
        axes = [
            torch.linspace(-most, most, number, dtype=torch.float64).unique() if number > 1 else torch.zeros(1).double()
            for most, number in zip(self.threat.limits, numbers, strict=True)
        ]
        grid = torch.cartesian_prod(*axes)
        return grid[(grid != 0).any(1)]

    def search(self, model: nn.Module, x: Tensor, y: Tensor, *, generator: torch.Generator) -> SpatialResult:
        x = _admitted(model, x, y, generator)
        poses = self.poses().to(x)

        def ahead(rows: Tensor, first: int, k: int) -> Tensor:
            return poses[first : first + k].expand(len(rows), -1, -1)

        return _worst(model, x, y, self.goal, ahead, len(poses))


@dataclass(frozen=True)
class WorstOfK(Spatial):
    """The worst of k random poses, each row's own: in the paper k is 10. Args of the call: see `Spatial`."""

    threat: RotationTranslation = RotationTranslation()
    k: int = 10
    goal: Goal = Untargeted()

    def __post_init__(self) -> None:
        if self.k < 1:
            raise ValueError(f"k must be positive: {self}")

    def search(self, model: nn.Module, x: Tensor, y: Tensor, *, generator: torch.Generator) -> SpatialResult:
        x = _admitted(model, x, y, generator)
        noise, limits = RowNoise(x, generator), torch.tensor(self.threat.limits).to(x)

        def drawn(rows: Tensor, first: int, k: int) -> Tensor:
            own = noise.select(rows)
            return limits * (2 * torch.stack([own.uniform((3,), first + i) for i in range(k)], 1) - 1)

        return _worst(model, x, y, self.goal, drawn, self.k)


@dataclass(frozen=True)
class SpatialPGD(Spatial):
    """First-order search: projected gradient descent on angle and shifts, from a random pose.

    The paper finds it weaker than a grid: the loss has many local maxima in the pose. Args of the call: see `Spatial`.
    """

    threat: RotationTranslation = RotationTranslation()
    steps: int = 100
    step_size: float = 0.1  # in units of the largest angle and shift
    loss: Loss = CrossEntropy()
    goal: Goal = Untargeted()

    def __post_init__(self) -> None:
        if self.steps < 1 or not self.step_size > 0:
            raise ValueError(f"steps and step_size must be positive: {self}")

    def search(self, model: nn.Module, x: Tensor, y: Tensor, *, generator: torch.Generator) -> SpatialResult:
        x = _admitted(model, x, y, generator)
        limits = torch.tensor(self.threat.limits).to(x)
        share = 2 * RowNoise(x, generator).uniform((3,), 0) - 1
        pose = torch.zeros_like(share)
        with scored(model):
            found = LowestMargin(model, x, y, self.goal)
            rows = found.active_rows
            for _ in range(self.steps):
                if not len(rows):
                    break
                origin, ascended = x[rows], signed_loss(self.loss, self.goal, y[rows])
                logits, _, grad = loss_and_gradient(
                    lambda share, origin=origin: model(rotate_translate(origin, limits * share)),  # type: ignore[misc]
                    share[rows],
                    ascended,
                )
                here = share[rows]
                share[rows] = (here + self.step_size * grad.sign()).clamp(-1, 1)
                rows = _keep(found, pose, rows, limits * here, rotate_translate(origin, limits * here), logits)
        return SpatialResult(found.x_adv, pose)


def _admitted(model: nn.Module, x: Tensor, y: Tensor, generator: torch.Generator) -> Tensor:
    """Images, outside any graph, that pass the door of every attack."""
    x = prepare_inputs(model, x, y, generator)
    check_images(x)
    return x


def _worst(model: nn.Module, x: Tensor, y: Tensor, goal: Goal, propose: Proposals, number: int) -> SpatialResult:
    """The first pose of each row that wins, or else the one of the lowest margin, of as many as are proposed."""
    with asked(model), torch.no_grad():
        found = LowestMargin(model, x, y, goal)
        pose, rows, tried = x.new_zeros(len(x), 3), found.active_rows, 0
        while tried < number and len(rows):
            k = min(max(1, TOGETHER // len(rows)), number - tried)  # poses a pass
            poses = propose(rows, tried, k)
            z = rotate_translate(x[rows].repeat_interleave(k, 0), poses.flatten(0, 1))
            logits = model(z)
            margin = goal.margin(logits, y[rows].repeat_interleave(k)).view(-1, k)
            won = (margin < 0).long()
            one = margin.masked_fill(won.cumsum(1) > won, torch.inf).argmin(1)  # none behind the first that wins
            at = torch.arange(len(rows), device=x.device)
            rows = _keep(found, pose, rows, poses[at, one], z[at * k + one], logits[at * k + one])
            tried += k
    return SpatialResult(found.x_adv, pose)


def _keep(found: LowestMargin, pose: Tensor, rows: Tensor, new: Tensor, z: Tensor, logits: Tensor) -> Tensor:
    """Note images z in poses `new` (n, 3), and the poses where margins are lower; the rows that are not yet won."""
    before = found.margin[rows]
    still = found.update(rows, z, logits)
    lower = found.margin[rows] < before
    pose[rows[lower]] = new[lower]
    return rows[still]
