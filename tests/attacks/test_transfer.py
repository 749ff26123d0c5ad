"""MI-FGSM, its input diversity and its kernel, each against a second way to say the same."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from scipy.ndimage import correlate
from torch import nn

from aisec_lab.attacks import L2, MIFGSM, PGD, Linf, Margin, Targeted
from aisec_lab.attacks.evasion.gradient.mifgsm import apply_affine, smooth_gradient
from aisec_lab.core import RowNoise


@pytest.mark.parametrize("decay", [0.0, 1.0])
@pytest.mark.parametrize("ball", [Linf(0.1), L2(0.4)], ids=repr)
def test_it_goes_the_whole_way_on_a_linear_model(ball, decay, linear, seed):
    """Momentum along a constant gradient is no detour; a row that has fallen goes on, for another model may stand."""
    x, y = 0.3 + 0.4 * torch.rand(20, 12, generator=seed(1), dtype=torch.float64), torch.arange(20) % 2
    model = linear(12)
    slope = (model[1].weight[1 - y] - model[1].weight[y]).detach()
    direction = slope.sign() if ball.name == "Linf" else slope / slope.norm(dim=1, keepdim=True)
    x_adv = MIFGSM(ball, decay=decay)(model, x, y, generator=seed(0))
    free = (x + ball.eps * direction - 0.5).abs().amax(1) < 0.5
    assert free.any()
    assert torch.allclose(x_adv[free], (x + ball.eps * direction)[free])


def test_without_momentum_it_is_pgd_from_the_row_itself(cnn, sample, seed):
    """On the margin the last point is not always PGD's highest, but as good as it on the whole."""
    x, y = sample
    plain = MIFGSM(Linf(0.08), decay=0.0, loss=Margin())(cnn, x, y, generator=seed(0))
    pgd = PGD(Linf(0.08), steps=10, random_start=False, loss=Margin(), early_stop=False)(cnn, x, y, generator=seed(0))
    assert (plain != pgd).flatten(1).any(1).double().mean() < 0.2


def test_the_kernel_is_a_gaussian_of_mass_one(seed):
    """Against SciPy, channel by channel, with zeros outside; size 1 changes nothing."""
    grad = torch.randn(2, 3, 9, 8, generator=seed(0), dtype=torch.float64)
    line = np.exp(-(np.linspace(-3, 3, 5) ** 2) / 2)
    kernel = np.outer(line, line) / np.outer(line, line).sum()
    expected = [[correlate(channel.numpy(), kernel, mode="constant") for channel in image] for image in grad]
    assert np.allclose(smooth_gradient(grad, 5).numpy(), np.array(expected))


def test_diversity_shrinks_an_image_to_whole_pixels_and_puts_it_inside(seed):
    """Each seen image is `F.interpolate` of the row, padded with zeros, at one of the sizes and places allowed."""
    x = 0.2 + 0.8 * torch.rand(60, 2, 10, 7, generator=seed(1), dtype=torch.float64)
    attack = MIFGSM(Linf(0.1), diversity=0.7, min_size=0.6)
    seen = apply_affine(x, attack._diversity_maps(x, RowNoise(x, seed(0)), 0))
    kinds = set()
    for row, image in zip(x, seen, strict=True):
        down, right = image[0].any(1).nonzero()[:, 0], image[0].any(0).nonzero()[:, 0]
        top, height, left, width = int(down[0]), len(down), int(right[0]), len(right)
        small = F.interpolate(row[None], (height, width), mode="bilinear", align_corners=False)[0]
        assert torch.allclose(image, F.pad(small, (left, 7 - left - width, top, 10 - top - height)))
        assert height >= 6
        kinds.add((top, height, left, width))
    whole = sum(torch.allclose(a, b) for a, b in zip(x, seen, strict=True))
    assert 8 <= whole <= 30  # 0.3 of 60 are not shrunk, and some of the others to their own size
    assert len(kinds) > 15


@pytest.mark.parametrize("settings", [{"diversity": 1.0}, {"kernel": 3}, {"diversity": 0.5, "kernel": 3}], ids=repr)
def test_what_makes_it_transfer_costs_little_on_the_surrogate(settings, cnn, sample, seed):
    """The gradient seen through it still finds most of the wins of the plain attack, and other points."""
    x, y = sample
    plain, changed = (MIFGSM(Linf(0.15), **s)(cnn, x, y, generator=seed(0)) for s in ({}, settings))
    wins = [(cnn(z).argmax(1) != y).double().mean() for z in (plain, changed)]
    assert not torch.equal(plain, changed)
    assert wins[1] > 0.75 * wins[0]


def test_a_target_is_approached(cnn, sample, seed):
    """With room enough, nearly every digit becomes the next one."""
    x, y = sample
    x_adv = MIFGSM(Linf(0.35), goal=Targeted())(cnn, x, (y + 1) % 10, generator=seed(0))
    assert (cnn(x_adv).argmax(1) == (y + 1) % 10).double().mean() > 0.8


def test_rows_without_a_gradient_stay(seed):
    """No direction is no reason for NaN."""
    model = nn.Sequential(nn.Flatten(), nn.Linear(4, 3)).eval()
    nn.init.zeros_(model[1].weight)
    x = torch.rand(2, 4, generator=seed(0))
    assert torch.equal(MIFGSM(Linf(0.1))(model, x, torch.tensor([0, 1]), generator=seed(0)), x)


@pytest.mark.parametrize(
    "settings",
    [{"steps": 0}, {"step_size": 0}, {"decay": -1}, {"diversity": 1.1}, {"min_size": 0}, {"kernel": 4}, {"kernel": 0}],
)
def test_impossible_settings_are_refused(settings):
    """When the attack is made, not when it runs."""
    with pytest.raises(ValueError, match="must be"):
        MIFGSM(Linf(0.1), **settings)


@pytest.mark.parametrize("settings", [{"diversity": 0.5}, {"kernel": 3}])
def test_tables_have_no_neighbourhoods(settings, linear, seed):
    """Momentum alone runs on them."""
    x, y = torch.full((2, 12), 0.5, dtype=torch.float64), torch.tensor([0, 1])
    with pytest.raises(ValueError, match="for images"):
        MIFGSM(Linf(0.1), **settings)(linear(12), x, y, generator=seed(0))
