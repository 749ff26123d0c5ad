"""Patches, stickers, and the camera: geometry, gradients, and what they are worth."""

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F

from aisec_lab.attacks import EOT, AdversarialPatch, Patch, PhysicalTransform, TransformRanges
from aisec_lab.core import RowNoise
from aisec_lab.data import Dataset
from aisec_lab.models import logits_of, seeded

ANY = TransformRanges(angle=180, scale=(0.7, 1.3), shift=0.4, light=0.5, noise=0.2)


@pytest.fixture
def train(digits):
    x, y = digits
    return Dataset(x[200:], y[200:], tuple("0123456789"), "digits")


@pytest.fixture
def images(seed):
    return torch.rand(30, 3, 16, 16, generator=seed(0))


def over(patch, x, number):
    return patch.apply(x, RowNoise(x, torch.Generator().manual_seed(number)))


def test_a_print_that_lies_straight_replaces_exactly_its_pixels(images, seed):
    """A quarter of 16x16 at (0.25, 0.75): rows 10 to 13, columns 2 to 5; all else is untouched to the bit."""
    pixels = torch.rand(3, 4, 4, generator=seed(1))
    stamped = over(Patch(pixels, 0.25, (0.25, 0.75)), images, 0)
    assert torch.allclose(stamped[:, :, 10:14, 2:6], pixels.expand(30, -1, -1, -1), atol=1e-5)
    stamped[:, :, 10:14, 2:6] = images[:, :, 10:14, 2:6]
    assert torch.equal(stamped, images)


def test_turned_and_shifted_it_covers_a_disc_at_most_and_stays_a_colour(images, seed):
    """No changed pixel is farther from the others than the largest diagonal; each row has a place of its own."""
    patch = Patch(torch.rand(3, 4, 4, generator=seed(1)), 0.25, (0.5, 0.5), ANY)
    stamped = over(patch, images, 0)
    assert stamped.min() >= 0
    assert stamped.max() <= 1
    changed = (stamped != images).any(1)
    for mask in changed:
        where = mask.nonzero().double()
        if len(where) > 1:
            assert torch.cdist(where, where).max() <= 1.3 * 0.25 * 16 * 2**0.5 + 2
    assert 5 < changed.flatten(1).sum(1).double().mean() < 40
    assert len(changed.flatten(1).unique(dim=0)) > 25


def test_all_angles_occur():
    """One corner of the print is bright: over many rows it ends up in every quarter of the image, as often in each."""
    x, pixels = torch.zeros(400, 1, 8, 8), torch.tensor([[[1.0, 0], [0, 0]]])
    x[:, 0, 0, 0] = torch.linspace(0.001, 0.1, 400)  # so that each row draws its own angle
    stamped = over(Patch(pixels, 0.5, (0.5, 0.5), TransformRanges(angle=180)), x, 1)
    quarters = stamped[:, 0].view(400, 2, 4, 2, 4).mean((2, 4)).flatten(1)
    assert set(quarters.argmax(1).tolist()) == {0, 1, 2, 3}
    share = torch.bincount(quarters.argmax(1)) / 400
    assert (share > 0.15).all()


def test_placement_is_the_rows_own(cnn, images, seed):
    """The same in another order and batch; another generator, another place."""
    patch, y = Patch(torch.rand(3, 4, 4, generator=seed(1)), 0.25, placement=ANY), torch.zeros(30, dtype=torch.int64)
    whole = patch(cnn, images, y, generator=seed(5))
    order = torch.randperm(30, generator=seed(6))
    assert torch.equal(patch(cnn, images[order], y, generator=seed(5)), whole[order])
    assert torch.equal(patch(cnn, images[7:9], y[7:9], generator=seed(5)), whole[7:9])
    assert not torch.equal(patch(cnn, images, y, generator=seed(4)), whole)


def test_the_gradient_through_placement_and_view_is_right(seed):
    """Of the pixels of a print, against finite differences in float64, with every condition turned on."""
    x = 0.2 + 0.6 * torch.rand(3, 1, 8, 8, generator=seed(0), dtype=torch.float64)
    mild = TransformRanges(angle=30, scale=(0.8, 1.2), shift=0.1, light=0.2, noise=0.01)
    noise = RowNoise(x, seed(2))

    def seen(pixels):
        stamped = over(Patch(pixels, 0.4, placement=mild), x, 1)
        return mild.relight(F.grid_sample(stamped, mild.grid(x, noise), align_corners=False), noise)

    pixels = (0.3 + 0.3 * torch.rand(1, 3, 3, generator=seed(3), dtype=torch.float64)).requires_grad_()
    assert seen(pixels).var(0).max() > 0.01
    assert torch.autograd.gradcheck(seen, (pixels,))


def test_the_gradient_of_the_expectation_is_the_mean_of_gradients(cnn, sample, seed):
    """Through the camera, over the same draws."""
    x = sample[0][:10].clone().requires_grad_()
    camera = PhysicalTransform(TransformRanges(angle=20, scale=(0.9, 1.1), shift=0.1, light=0.2, noise=0.05))(cnn)
    with seeded(camera, seed(1)):
        (grad,) = torch.autograd.grad(EOT(4)(camera)(x)[:, 3].sum(), x)
    with seeded(camera, seed(1)):
        each = [torch.autograd.grad(camera(x)[:, 3].sum(), x)[0] for _ in range(4)]
    assert torch.stack(each).std(0).max() > 0.1
    assert torch.allclose(grad, torch.stack(each).mean(0), atol=1e-5)


def test_a_camera_at_rest_changes_nothing_and_moving_it_is_a_random_model(cnn, sample, seed):
    """EOT is the mean of its draws; without a generator it says what to do."""
    x = sample[0][:20]
    with seeded(PhysicalTransform(TransformRanges())(cnn), seed(0)) as still:
        assert torch.allclose(still(x), cnn(x), atol=1e-4)
    moving = PhysicalTransform(TransformRanges(angle=20, shift=0.1))(cnn)
    with pytest.raises(ValueError, match="no generator is bound"):
        moving(x)
    with seeded(moving, seed(1)):
        each = torch.stack([moving(x) for _ in range(4)])
    with seeded(moving, seed(1)):
        assert torch.allclose(EOT(4)(moving)(x), each.mean(0))
    assert each.std(0).min() > 0


@pytest.mark.parametrize("targeted", [True, False])
def test_a_learned_sticker_beats_random_ones_by_far(targeted, cnn, sample, train, seed):
    """Judged through fresh draws of the camera, on digits that it has not seen; targets count for other rows only."""
    x, y = sample
    camera = PhysicalTransform(TransformRanges(angle=15, scale=(0.9, 1.1), shift=0.05, light=0.2, noise=0.05))
    learn = AdversarialPatch(0.5, placement=TransformRanges(light=0.1), camera=camera, epochs=3)
    if targeted:
        learn = replace(learn, target=8)
        x, y = x[y != 8], y[y != 8]
    patch = learn(train, model=cnn, generator=seed(0))
    assert patch.pixels.min() >= 0
    assert patch.pixels.max() <= 1

    def success(pixels):
        z = replace(patch, pixels=pixels)(cnn, x, y, generator=seed(1))
        with seeded(camera(cnn), seed(2)) as seen:
            answer = logits_of(seen, z).argmax(1)
        return ((answer == 8) if targeted else (answer != y)).double().mean().item()

    by_chance = [success(torch.rand(patch.pixels.shape, generator=seed(number))) for number in range(5)]
    assert success(patch.pixels) > max(by_chance) + (0.3 if targeted else 0.1)
    again = learn(train, model=cnn, generator=seed(0))
    assert torch.equal(again.pixels, patch.pixels)


def test_what_is_wrong_is_refused(cnn, train, seed):
    """Settings, and images that are not square."""
    for conditions in ({"angle": -1}, {"scale": (0, 1)}, {"scale": (1.2, 1)}, {"light": 1.5}, {"noise": -0.1}):
        with pytest.raises(ValueError, match="angle, shift and noise"):
            TransformRanges(**conditions)
    for settings in ({"size": 0}, {"size": 2}, {"size": 0.5, "centre": (0.5, 1.5)}):
        with pytest.raises(ValueError, match="shares of the image's side"):
            AdversarialPatch(**settings)
    with pytest.raises(ValueError, match="must be positive"):
        AdversarialPatch(0.5, epochs=0)
    wide = replace(train, x=train.x[:, :, :4])
    with pytest.raises(ValueError, match="square images"):
        AdversarialPatch(0.5)(wide, model=cnn, generator=seed(0))
