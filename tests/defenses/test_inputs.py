"""Sanitizers: what they do to pixels, and that a defended model is still a model."""

from io import BytesIO
from typing import Protocol

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from scipy.ndimage import median_filter
from torch import Tensor, nn

from aisec_lab.attacks import PGD, Linf, Square
from aisec_lab.data import Splits
from aisec_lab.defenses import JPEG, BitDepth, MedianFilter, Undefended
from aisec_lab.defenses.preprocessing.transforms import JPEGCodec, MedianSmoothing, Rounding
from aisec_lab.models import CNN


class Defense(Protocol):
    """A defense of a model."""

    def __call__(self, model: nn.Module, *, data: Splits | None = None) -> nn.Module: ...


DEFENSES = [Undefended(), BitDepth(), BitDepth(1), MedianFilter(), MedianFilter(5), JPEG(), JPEG(10)]


def seed(value: int) -> torch.Generator:
    return torch.Generator().manual_seed(value)


def images(channels: int = 1, height: int = 8, width: int = 8) -> Tensor:
    """Smooth random images in [0, 1], with full black and full white in them."""
    coarse = torch.rand(6, channels, 4, 4, generator=seed(0))
    return nn.functional.interpolate(coarse, (height, width), mode="bilinear").mul(3).sub(1).clamp(0, 1)


@given(st.integers(1, 8), st.lists(st.floats(0, 1, width=32), min_size=1, max_size=20))
def test_bit_depth_rounds_to_the_nearest_level_and_then_no_further(bits: int, pixels: list[float]) -> None:
    """At most `2 ** bits` values, black and white among them, none farther than half a step; twice is once."""
    x, levels = torch.tensor([pixels]), 2**bits - 1
    once = Rounding(bits)(x)
    assert (once - x).abs().max() <= 0.5 / levels + 1e-6
    assert {round(value * levels, 4) for value in once.flatten().tolist()} <= set(range(levels + 1))
    assert torch.equal(Rounding(bits)(once), once)
    assert Rounding(bits)(torch.tensor([0.0, 1.0])).tolist() == [0, 1]


@pytest.mark.parametrize("size", [3, 5])
@pytest.mark.parametrize("shape", [(1, 8, 8), (3, 9, 6)], ids=str)
def test_median_is_that_of_scipy_with_a_mirrored_border(size: int, shape: tuple[int, int, int]) -> None:
    """Image by image and channel by channel."""
    x = torch.rand(4, *shape, generator=seed(1))
    expected = median_filter(x.numpy(), size=(1, 1, size, size), mode="mirror")
    assert (MedianSmoothing(size)(x).numpy() == expected).all()


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("quality", [20, 75, 95])
def test_jpeg_is_what_the_codec_gives_back(channels: int, quality: int) -> None:
    """Image by image; the finer the quality, the nearer to the original."""
    x = images(channels, 16, 12)
    found = JPEGCodec(quality)(x)
    for image, decoded in zip(x, found, strict=True):
        file = BytesIO()
        pixels = (image.permute(1, 2, 0).numpy() * 255).round().astype(np.uint8)
        Image.fromarray(pixels if channels == 3 else pixels[..., 0]).save(file, "JPEG", quality=quality)
        expected = np.asarray(Image.open(file), dtype=np.float32).reshape(16, 12, channels) / 255
        assert (decoded.permute(1, 2, 0).numpy() == expected).all()
    assert (found != x).any()
    assert (JPEGCodec(95)(x) - x).abs().mean() < (JPEGCodec(20)(x) - x).abs().mean()


@pytest.mark.parametrize("level", [0.0, 0.4, 1.0])
@pytest.mark.parametrize("channels", [1, 3])
def test_an_even_image_passes_every_sanitizer(level: float, channels: int) -> None:
    """To half a grey level: there is no detail to lose."""
    x = torch.full((2, channels, 8, 8), level)
    for sanitizer in (Rounding(8), MedianSmoothing(3), JPEGCodec(75)):
        assert (sanitizer(x) - x).abs().max() <= 0.51 / 255


def test_jpeg_keeps_the_order_of_the_channels() -> None:
    """Red stays red, to two grey levels: the codec works in another colour space."""
    x = torch.eye(3).view(3, 3, 1, 1).expand(3, 3, 8, 8)
    assert (JPEGCodec(95)(x) - x).abs().max() <= 2 / 255


def model(channels: int = 1) -> nn.Module:
    return CNN(width=4)((channels, 8, 8), 10, generator=seed(0))


@pytest.mark.parametrize("training", [True, False], ids=["training", "evaluation"])
@pytest.mark.parametrize("defense", DEFENSES, ids=repr)
def test_a_defended_model_is_a_model_in_the_mode_of_the_model(defense: Defense, training: bool) -> None:
    """Logits of the washed input; the parameters are those of the model; what was given is not changed."""
    inner, x = model().train(training), images()
    before = x.clone()
    defended = defense(inner, data=None)
    assert {module.training for module in defended.modules()} == {training}
    assert list(defended.parameters()) == list(inner.parameters())
    logits = defended(x)
    assert logits.shape == (6, 10)
    assert torch.equal(x, before)
    if isinstance(defense, Undefended):
        assert defended is inner
    else:
        assert torch.equal(logits, inner(defended[0](x)))
        assert not torch.equal(logits, inner(x))


@pytest.mark.parametrize("defense", DEFENSES, ids=repr)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_row_does_not_see_its_batch(defense: Defense, dtype: torch.dtype) -> None:
    """Nor need there be a row: an attack may ask about none, once all are won."""
    sanitizer, x = defense(nn.Identity()), images().to(dtype)
    whole = sanitizer(x)
    assert whole.dtype == dtype
    assert torch.equal(torch.cat([sanitizer(row[None]) for row in x]), whole)
    assert sanitizer(x[:0]).shape == x[:0].shape
    assert whole.min() >= 0
    assert whole.max() <= 1


def gradient(defense: Defense) -> Tensor:
    """Of the sum of the washed pixels, each weighed by a random number."""
    x = images().requires_grad_()
    weights = torch.rand(x.shape, generator=seed(3))
    (found,) = torch.autograd.grad((defense(nn.Identity())(x) * weights).sum(), x)
    return found


@pytest.mark.parametrize("defense", [BitDepth(), BitDepth(8), JPEG(), JPEG(95)], ids=repr)
def test_piecewise_constant_sanitizers_have_no_gradient(defense: Defense) -> None:
    """The true one, zero; a gradient attack is told nothing, which is not robustness."""
    assert (gradient(defense) == 0).all()


def test_the_median_passes_the_gradient_of_the_pixel_it_chose() -> None:
    """Each output is one of the inputs, so the gradient is the weights, moved to where they were taken from."""
    found = gradient(MedianFilter())
    weights = torch.rand(found.shape, generator=seed(3))
    torch.testing.assert_close(found.sum(), weights.sum())
    assert (found != 0).any()


@pytest.mark.parametrize("defense", [BitDepth(3), JPEG(50)], ids=repr)
def test_without_a_gradient_only_a_score_based_attack_tells_the_truth(defense: Defense) -> None:
    """PGD finds no way from where it starts; Square breaks what it left standing."""
    x = images()
    defended = defense(model().eval())
    with torch.no_grad():
        y = defended(x).argmax(1)
        pgd = PGD(Linf(0.2), steps=10, random_start=False)(defended, x, y, generator=seed(0))
        square = Square(Linf(0.2), queries=200)(defended, x, y, generator=seed(0))
        assert torch.equal(pgd, x)
        assert (defended(square).argmax(1) != y).any()


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: BitDepth(0), "bits must be from 1 to 8, got 0"),
        (lambda: BitDepth(9), "bits must be from 1 to 8, got 9"),
        (lambda: MedianFilter(1), "size must be odd and at least 3, got 1"),
        (lambda: MedianFilter(4), "size must be odd and at least 3, got 4"),
        (lambda: JPEG(0), "quality must be from 1 to 95, got 0"),
        (lambda: JPEG(96), "quality must be from 1 to 95, got 96"),
        (lambda: JPEG()(nn.Identity())(torch.rand(2, 30)), r"JPEG takes images .*got shape \(2, 30\): use BitDepth"),
        (lambda: MedianFilter()(nn.Identity())(torch.rand(2, 2, 8, 8)), r"takes images .*got shape \(2, 2, 8, 8\)"),
        (lambda: MedianFilter(17)(nn.Identity())(images()), r"a median over 17x17 pixels does not fit \(8, 8\)"),
    ],
)  # fmt: skip
def test_what_makes_no_sense_is_refused(make: object, message: str) -> None:
    """With what was given and what is accepted."""
    assert callable(make)
    with pytest.raises(ValueError, match=message):
        make()
