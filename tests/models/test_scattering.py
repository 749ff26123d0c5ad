"""Scattering coefficients, and the linear classifier of them."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from kymatio.scattering2d.filter_bank import filter_bank
from sklearn.datasets import load_digits
from torch import Tensor, nn

from aisec_lab.attacks import FGSM, Linf
from aisec_lab.data import Dataset
from aisec_lab.models import CNN, Fit, load_checkpoint, logits_of, save_checkpoint
from aisec_lab.models.scattering import Scattering, ScatteringLinear, ThroughScattering, scattered
from aisec_lab.privacy.clipping import GhostClipping
from aisec_lab.privacy.dp_sgd import DPSGD

SHAPE = (1, 8, 8)


def seed(value: int) -> torch.Generator:
    return torch.Generator().manual_seed(value)


@pytest.fixture(scope="module")
def digits() -> Dataset:
    data = load_digits()
    x = torch.tensor(data.images, dtype=torch.float32)[:, None] / 16
    return Dataset(x, torch.tensor(data.target), tuple("0123456789"), "digits")


def by_hand(image: np.ndarray, scales: int, angles: int) -> np.ndarray:
    """The cascade of moduli at full resolution: (paths, H / 2^J, W / 2^J), with nothing thrown away before the end."""
    margin = 2**scales
    padded = np.pad(image, margin, mode="reflect")
    bank = filter_bank(*padded.shape, scales, angles)
    through = lambda signal, wave: np.fft.ifft2(np.fft.fft2(signal) * wave)  # noqa: E731
    first = [(wave["j"], np.abs(through(padded, wave["levels"][0]))) for wave in bank["psi"]]
    second = [
        np.abs(through(signal, wave["levels"][0])) for j, signal in first for wave in bank["psi"] if wave["j"] > j
    ]
    signals = [padded, *(signal for _, signal in first), *second]
    means = [through(signal, bank["phi"]["levels"][0]).real for signal in signals]
    return np.stack([mean[margin:-margin:margin, margin:-margin:margin] for mean in means])


def test_it_is_the_cascade_of_moduli() -> None:
    """Against a second implementation without the short cuts in frequency, and channel by channel in its order."""
    x = torch.rand(2, 3, 16, 16, generator=seed(0))
    coefficients = Scattering(16, 16, scales=2, angles=4)(x).unflatten(1, (3, 25))
    for row in range(2):
        for channel in range(3):
            expected = by_hand(x[row, channel].numpy().astype(np.float64), 2, 4)
            np.testing.assert_allclose(coefficients[row, channel].numpy(), expected, atol=0.01)
            assert np.abs(coefficients[row, channel].numpy() - expected).mean() < 0.002


def test_wavelets_see_no_mean() -> None:
    """A flat image is its own low pass and nothing else; the negative of an image differs in the low pass alone."""
    transform = Scattering(8, 8)
    flat = transform(torch.full((1, 1, 8, 8), 0.3))
    torch.testing.assert_close(flat[:, 0], torch.full((1, 2, 2), 0.3), rtol=0, atol=1e-4)
    assert flat[:, 1:].abs().max() < 1e-5
    x = torch.rand(5, 1, 8, 8, generator=seed(0))
    there, back = transform(x), transform(1 - x)
    torch.testing.assert_close(back[:, 0], 1 - there[:, 0], rtol=0, atol=1e-4)
    torch.testing.assert_close(back[:, 1:], there[:, 1:], rtol=0, atol=1e-5)


def extremes() -> Tensor:
    """Images with pixels of 0 and 1 only: stripes of all widths in both directions, a checkerboard, one edge, noise."""
    side = torch.arange(28)
    stripes = [(side // width % 2).float().expand(28, 28) for width in (1, 2, 3, 4, 7, 14)]
    board = ((side[:, None] + side) % 2).float()
    noise = (torch.rand(20, 28, 28, generator=seed(0)) < 0.5).float()
    return torch.cat([torch.stack([*stripes, *(each.T for each in stripes), board, 1 - board]), noise])[:, None]


def test_coefficients_stay_in_the_unit_interval() -> None:
    """Before the clamp, too, up to the low pass's swing: no wavelet has an L1 norm above 1."""
    transform = Scattering(28, 28)
    raw, clamped = transform.transform(extremes()).flatten(1, 2), transform(extremes())
    assert (raw - clamped).abs().max() < 1e-3
    assert clamped.min() >= 0
    assert clamped.max() <= 1
    side = transform.transform.psi[0]["levels"][0].shape
    for wave in filter_bank(*side, 2)["psi"]:
        assert np.abs(np.fft.ifft2(wave["levels"][0])).sum() < 1


def test_gradients_reach_the_pixels() -> None:
    """Against finite differences, in float64."""
    transform = Scattering(8, 8, angles=3).double()
    x = torch.rand(1, 1, 8, 8, dtype=torch.float64, generator=seed(0)) * 0.5 + 0.25
    assert torch.autograd.gradcheck(transform, x.requires_grad_())


@pytest.fixture(scope="module")
def trained(digits: Dataset) -> nn.Sequential:
    """Trained with its privacy stated, on coefficients computed once."""
    model = ScatteringLinear()(SHAPE, 10, generator=seed(0))
    fit = Fit(epochs=15, batch_size=512, learning_rate=4, weight_decay=0, momentum=0.9)
    recipe = ThroughScattering(DPSGD(epsilon=8, delta=1e-4, clipping=GhostClipping(0.1)))
    fit(model, digits, recipe, generator=seed(0))
    return model


def test_it_is_trained_through_its_coefficients(trained: nn.Sequential, digits: Dataset) -> None:
    """The layers trained on coefficients are the pixel classifier's: same logits, and it answers right."""
    assert not any(part.training for part in trained.modules())
    logits = logits_of(trained, digits.x)
    torch.testing.assert_close(logits_of(trained[1:].eval(), scattered(trained, digits).x), logits, rtol=0, atol=1e-4)
    assert (logits.argmax(1) == digits.y).float().mean() > 0.9


def test_an_attack_sees_through_it(trained: nn.Sequential, digits: Dataset) -> None:
    """A step along the gradient costs far more right answers than a random step of the same size."""
    few = digits.subset(torch.arange(200))
    x_adv = FGSM(Linf(0.15))(trained, few.x, few.y, generator=seed(0))
    x_random = (few.x + 0.15 * torch.randn(few.x.shape, generator=seed(1)).sign()).clamp(0, 1)
    robust, noisy = ((logits_of(trained, x).argmax(1) == few.y).float().mean() for x in (x_adv, x_random))
    assert robust < noisy - 0.2


def test_what_a_row_shows_depends_on_no_other(digits: Dataset) -> None:
    """So that transform and normalisation cost no privacy: a row alone gives the same normalised coefficients."""
    model = ScatteringLinear()(SHAPE, 10, generator=seed(0)).double()
    x = digits.x[:6].double()
    alone = torch.cat([model[:-1](row[None]) for row in x])
    torch.testing.assert_close(model[:-1](x), alone, rtol=1e-9, atol=1e-12)


def test_groups_are_normalised_by_themselves(digits: Dataset) -> None:
    """Each group of three paths has mean 0 and variance v / (v + 1e-5) over its places."""
    model = ScatteringLinear()(SHAPE, 10, generator=seed(0))
    coefficients = model[0](digits.x[:20]).view(20, 27, -1)
    normalised = model[:2](digits.x[:20]).view(20, 27, -1)
    variance = coefficients.var(2, unbiased=False)
    assert normalised.mean(2).abs().max() < 1e-4
    torch.testing.assert_close(normalised.var(2, unbiased=False), variance / (variance + 1e-5), rtol=1e-3, atol=1e-4)


def test_a_checkpoint_holds_the_linear_layer_alone(trained: nn.Sequential, digits: Dataset, tmp_path: Path) -> None:
    """Wavelets are fixed; what comes back gives the same logits."""
    card = {"name": "digits", "sha256": "0", "shape": SHAPE, "classes": digits.classes}
    save_checkpoint(tmp_path, trained, ScatteringLinear(), card)
    assert set(trained.state_dict()) == {"3.weight", "3.bias"}
    back = load_checkpoint(tmp_path, ScatteringLinear(), card)
    assert torch.equal(logits_of(back, digits.x[:50]), logits_of(trained, digits.x[:50]))


@pytest.mark.parametrize("shape", [(30,), (1, 3, 8)], ids=repr)
def test_a_shape_that_does_not_fit_is_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"takes images .* from 4x4 up, got shape .*: use MLP"):
        ScatteringLinear()(shape, 10, generator=seed(0))


def test_groups_that_do_not_divide_are_refused() -> None:
    with pytest.raises(ValueError, match="81 channels of coefficients do not fall into 10 groups: take a divisor"):
        ScatteringLinear(groups=10)(SHAPE, 10, generator=seed(0))


def test_another_model_has_nothing_to_scatter(digits: Dataset) -> None:
    model = CNN()(SHAPE, 10, generator=seed(0))
    with pytest.raises(ValueError, match="behind Scattering, got Normalised: build a ScatteringLinear"):
        scattered(model, replace(digits, x=digits.x[:5], y=digits.y[:5]))
