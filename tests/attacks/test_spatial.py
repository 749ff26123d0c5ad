"""Rotations and translations: geometry, the worst of a grid against brute force, and what is refused."""

import copy

import pytest
import scipy.ndimage
import torch

from aisec_lab.attacks import (
    Oracle,
    RotationTranslation,
    SpatialGrid,
    SpatialPGD,
    Targeted,
    WorstOfK,
    rotate_translate,
)
from aisec_lab.data import Dataset
from aisec_lab.evaluation import run_attack, security_curve

THREAT = RotationTranslation(30, 2)
ATTACKS = [SpatialGrid(THREAT, 5, 3), WorstOfK(THREAT, 12), SpatialPGD(THREAT, 8)]


def posed(x, *pose):
    return rotate_translate(x, torch.tensor([pose], dtype=x.dtype).expand(len(x), -1))


@pytest.fixture
def images(seed):
    return torch.rand(4, 3, 7, 10, generator=seed(0), dtype=torch.float64)


def test_whole_pixels_and_quarter_turns_move_pixels_and_leave_zeros(images):
    """To the right and downwards; anticlockwise; nothing is sheared where the image is no square."""
    shifted = torch.zeros_like(images)
    shifted[..., 2:, 3:] = images[..., :-2, :-3]
    assert torch.allclose(posed(images, 0, 3, 2), shifted, atol=1e-12)
    assert torch.allclose(posed(images, 0, 0, 0), images, atol=1e-12)
    square = images[..., :7]
    assert torch.allclose(posed(square, 90, 0, 0), square.rot90(1, (2, 3)), atol=1e-12)
    assert torch.allclose(posed(images, 180, 0, 0), images.flip(2, 3), atol=1e-12)
    assert torch.equal(posed(images, 0, 10, 0), torch.zeros_like(images))


@pytest.mark.parametrize("pose", [(17.0, 0.0, 0.0), (-30.0, 1.5, -0.75), (123.0, -2.2, 3.1)])
def test_interpolation_is_that_of_scipy(images, pose):
    """`scipy.ndimage.affine_transform`, linear, zero outside, on an image with a border of zeros."""
    x = torch.nn.functional.pad(images, (4, 4, 4, 4))
    angle = torch.deg2rad(torch.tensor(pose[0], dtype=torch.float64))
    back = torch.tensor([[angle.cos(), angle.sin()], [-angle.sin(), angle.cos()]])  # of (down, right)
    middle = (torch.tensor(x.shape[2:]) - 1).double() / 2
    offset = middle - back @ (middle + torch.tensor([pose[2], pose[1]], dtype=torch.float64))
    for mine, image in zip(posed(x, *pose).flatten(0, 1), x.flatten(0, 1), strict=True):
        moved = scipy.ndimage.affine_transform(image.numpy(), back.numpy(), offset.numpy(), order=1)
        assert torch.allclose(mine[1:-1, 1:-1], torch.from_numpy(moved)[1:-1, 1:-1], atol=1e-9)


def test_the_gradient_in_the_pose_is_right(images):
    """Against finite differences, away from whole pixels."""
    pose = torch.tensor([[11.3, 0.37, -0.61]], dtype=torch.float64).requires_grad_()
    assert torch.autograd.gradcheck(lambda p: rotate_translate(0.1 + 0.8 * images[:1, :1], p), (pose,))


def test_the_worst_of_a_grid_is_that_of_brute_force(cnn, sample, seed):
    """The same rows won; of those that are not, the image of the lowest margin over all poses, and its pose."""
    model, x, y = copy.deepcopy(cnn).double(), sample[0][:40].double(), sample[1][:40]
    attack = SpatialGrid(RotationTranslation(8, 0.25), 5, 3)
    oracle = Oracle(model)
    found = attack.search(oracle, x, y, generator=seed(0))
    poses = [
        (angle, right, down) for angle in (-8, -4, 0, 4, 8) for right in (-0.25, 0, 0.25) for down in (-0.25, 0, 0.25)
    ]
    with torch.no_grad():
        views = torch.stack([posed(x, *pose) for pose in poses])  # (T, N, ...)
        logits = torch.stack([model(view) for view in views])
        own = logits.gather(2, y.expand(len(poses), -1)[:, :, None]).squeeze(2)
        margin = own - logits.scatter(2, y.expand(len(poses), -1)[:, :, None], -torch.inf).amax(2)
        won = (margin < 0).any(0)
        assert torch.equal(model(found.x_adv).argmax(1) != y, won)
    worst = margin.argmin(0)
    stands = (~won).nonzero().squeeze(1)
    assert 5 < len(stands) < 35
    assert torch.allclose(found.x_adv[stands], views[worst[stands], stands], atol=1e-12)
    assert torch.allclose(found.pose[stands], torch.tensor(poses).double()[worst[stands]])
    assert torch.allclose(rotate_translate(x, found.pose), found.x_adv, atol=1e-12)
    alone = Oracle(model)
    attack(alone, x[stands[:1]], y[stands[:1]], generator=seed(0))
    assert alone.queries == len(poses) == 1 + len(attack.poses())
    assert oracle.queries <= 40 * len(poses)


@pytest.mark.parametrize("attack", ATTACKS, ids=repr)
def test_poses_are_inside_the_threat_and_give_the_images(attack, cnn, sample, seed):
    """Rows that are wrong as they are stay; the input too; another order, other batches, the same poses."""
    model, x, y = copy.deepcopy(cnn).double(), sample[0][:40].double(), sample[1][:40]
    y = torch.where(torch.arange(40) < 3, (y + 1) % 10, y)
    before = x.clone()
    found = attack.search(model, x, y, generator=seed(0))
    assert torch.equal(x, before)
    assert torch.equal(found.x_adv[:3], x[:3])
    assert (found.pose[:3] == 0).all()
    assert (found.pose.abs() <= torch.tensor([30.0, 2.0, 2.0])).all()
    assert found.pose.abs().amax(0).min() > 0
    assert torch.allclose(rotate_translate(x, found.pose), found.x_adv, atol=1e-12)
    assert torch.equal(attack(model, x, y, generator=seed(0)), found.x_adv)
    order = torch.randperm(40, generator=seed(2))
    parts = [attack.search(model, x[rows], y[rows], generator=seed(0)) for rows in order.split(7)]
    assert torch.allclose(torch.cat([part.pose for part in parts]), found.pose[order], atol=1e-9)


def test_random_poses_are_uniform_and_as_many_as_asked_for(cnn, sample, seed):
    """k and one untouched for each row that stands; never found worse by more poses."""

    class Sure(torch.nn.Module):
        def forward(self, x):
            return torch.stack([x.flatten(1).sum(1), torch.full((len(x),), -9.0)], 1)

    x = 0.5 + 0.5 * sample[0][:200]
    oracle = Oracle(Sure().eval())
    found = WorstOfK(THREAT, 1).search(oracle, x, torch.zeros(200, dtype=torch.int64), generator=seed(0))
    assert oracle.queries == 400
    share = found.pose / torch.tensor([30.0, 2.0, 2.0])
    assert (share.mean(0).abs() < 0.2).all()  # the worst of one pose and none: nearly always the pose
    assert ((share.std(0) - 3**-0.5).abs() < 0.08).all()
    x, y = sample
    standing = [
        (cnn(WorstOfK(THREAT, k)(cnn, x, y, generator=seed(0))).argmax(1) == y).sum().item() for k in (1, 5, 25)
    ]
    assert standing == sorted(standing, reverse=True)
    assert standing[2] < standing[0]


def test_the_gradient_lowers_the_margin_and_a_target_is_reached(cnn, sample, seed):
    """Below the random pose that it starts from; towards a class as well as away from one."""
    x, y = sample[0][:60], sample[1][:60]
    standing = [
        (cnn(SpatialPGD(THREAT, steps)(cnn, x, y, generator=seed(0))).argmax(1) == y).sum().item() for steps in (1, 25)
    ]
    assert standing[1] < standing[0]
    target = (y + 1) % 10
    untouched = (cnn(x).argmax(1) == target).sum()
    for attack in (SpatialGrid(THREAT, 9, 5, goal=Targeted()), SpatialPGD(THREAT, 25, goal=Targeted())):
        assert (cnn(attack(cnn, x, target, generator=seed(0))).argmax(1) == target).sum() > untouched


def test_accuracy_is_judged_by_attacked_and_a_curve_over_radii_is_refused(cnn, sample):
    """A spatial threat has no radius."""
    dataset = Dataset(sample[0][:20], sample[1][:20], tuple("0123456789"), "digits")
    x_adv, passes = run_attack(ATTACKS[0], cnn, dataset, seed=0)
    assert x_adv.shape == dataset.x.shape
    assert passes.backward_passes == 0
    with pytest.raises(ValueError, match="SpatialGrid has none: .* use `run_attack`"):
        security_curve(ATTACKS[0], cnn, dataset, [], seed=0)


@pytest.mark.parametrize("attack", ATTACKS, ids=repr)
def test_what_is_no_image_is_refused_in_one_line(attack, linear, seed):
    """Tables; no rows are no work."""
    y = torch.tensor([0, 1])
    for shape in ((2, 12), (2, 3, 4), (0, 12)):
        with pytest.raises(ValueError, match="only images .* can be turned") as raised:
            attack(linear(12), torch.full(shape, 0.5, dtype=torch.float64), y[: shape[0]], generator=seed(0))
        assert "\n" not in str(raised.value)
    none = torch.zeros(0, 1, 3, 4, dtype=torch.float64)
    assert attack(linear(12), none, y[:0], generator=seed(0)).shape == none.shape


def test_impossible_settings_are_refused():
    """When they are made."""
    for settings in ({"angle": -1}, {"angle": 181}, {"shift": -1}, {"shift": float("inf")}, {"angle": float("nan")}):
        with pytest.raises(ValueError, match="angle must lie in"):
            RotationTranslation(**settings)
    for make in (lambda: SpatialGrid(angles=0), lambda: WorstOfK(k=0), lambda: SpatialPGD(step_size=0)):
        with pytest.raises(ValueError, match="must be positive"):
            make()
    assert len(SpatialGrid(RotationTranslation(0, 0)).poses()) == 0
    assert len(SpatialGrid(THREAT, 31, 5).poses()) == 31 * 25 - 1
