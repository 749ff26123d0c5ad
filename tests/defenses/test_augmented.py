"""Strong augmentation: what it does to an image, and that its loss is mixup's."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from aisec_lab.attacks.extraction.augmentation import shift_images
from aisec_lab.core import RowNoise
from aisec_lab.defenses.training.augmentation import StrongAugmentation, cutout
from aisec_lab.models import logits_of


def seed(number):
    return torch.Generator().manual_seed(number)


class Watched(nn.Module):
    """A classifier that keeps what it was shown."""

    def __init__(self, model):
        super().__init__()
        self.model = model

    def forward(self, x):
        self.seen = x
        return self.model(x)


def test_a_shift_moves_pixels_and_lets_black_in():
    """By hand: one down and two to the left; none; in two channels."""
    x = torch.arange(1.0, 25.0).view(1, 2, 3, 4).repeat(2, 1, 1, 1)
    moved = shift_images(x, torch.tensor([[1, -2], [0, 0]]))
    expected = torch.zeros(2, 3, 4)
    expected[:, 1:, :2] = x[0, :, :2, 2:]
    assert torch.equal(moved[0], expected)
    assert torch.equal(moved[1], x[1])


def test_a_square_is_cut_out_anywhere():
    """Of side 3 on white: 9 black pixels inside, fewer over the edge, and every pixel is hit as often, edges less."""
    x = torch.ones(4000, 1, 8, 8) - torch.arange(4000)[:, None, None, None] * 1e-6  # each row its own noise
    gone = (cutout(x, 3, RowNoise(x, seed(0))) == 0)[:, 0]
    counts = gone.sum((1, 2))
    assert set(counts.tolist()) == {4, 6, 9}
    middle = gone.float().mean(0)[1:-1, 1:-1]
    assert torch.allclose(middle, torch.full_like(middle, 9 / 64), atol=0.03)
    assert torch.equal(cutout(x, 0, RowNoise(x, seed(0))), x)


def test_the_loss_is_the_mixed_cross_entropy(classifier, splits):
    """Without shift and cut the images and losses are mixup's, with the shares that the images show."""
    x, y = splits.test.x[:64], splits.test.y[:64]
    watched = Watched(classifier)
    losses = StrongAugmentation(0, 0, 0.5)(watched, x, y, generator=seed(3))
    generator = seed(3)
    share = 0.5 * RowNoise(x, generator).uniform((1,), 2)
    partner = torch.randperm(64, generator=generator)
    mixed = (1 - share[:, :, None, None]) * x + share[:, :, None, None] * x[partner]
    assert torch.equal(watched.seen, mixed)
    target = (1 - share) * F.one_hot(y, 10) + share * F.one_hot(y[partner], 10)
    assert torch.allclose(losses, F.cross_entropy(logits_of(classifier, mixed), target, reduction="none"), atol=1e-5)
    assert 0.15 < share.mean() < 0.35


def test_nothing_asked_for_nothing_done(classifier, splits):
    """All off, it is plain cross-entropy; by default images change, stay in the box, come out the same twice."""
    x, y = splits.test.x[:64], splits.test.y[:64]
    plain = F.cross_entropy(classifier(x), y, reduction="none")
    assert torch.allclose(StrongAugmentation(0, 0, 0.0)(classifier, x, y, generator=seed(0)), plain, atol=1e-6)
    watched, images = Watched(classifier), []
    for number in (0, 0, 1):
        StrongAugmentation()(watched, x, y, generator=seed(number))
        images.append(watched.seen)
    assert torch.equal(images[0], images[1])
    assert not torch.equal(images[0], images[2])
    assert (images[0] != x).flatten(1).any(1).all()
    assert 0 <= images[0].min() <= images[0].max() <= 1


@pytest.mark.parametrize("settings", [{"shift": -1}, {"cut": -1}, {"mix": 0.6}])
def test_what_makes_no_sense_is_refused(settings):
    with pytest.raises(ValueError, match="must not be negative, and mix"):
        StrongAugmentation(**settings)
