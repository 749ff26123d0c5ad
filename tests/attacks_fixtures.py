"""Models and inputs that the tests of attacks share."""

from collections.abc import Callable

import pytest
import torch
from sklearn.datasets import load_digits
from torch import Tensor, nn

from tests.odd_models import small_model, small_rows


@pytest.fixture(scope="session")
def seed() -> Callable[[int], torch.Generator]:
    """A new generator for a number."""
    return lambda number: torch.Generator().manual_seed(number)


@pytest.fixture(scope="session")
def digits() -> tuple[Tensor, Tensor]:
    """All 1,797 digits in random order: float32 (N, 1, 8, 8) in [0, 1] and classes."""
    data = load_digits()
    order = torch.randperm(len(data.target), generator=torch.Generator().manual_seed(0))
    x = torch.tensor(data.images, dtype=torch.float32)[:, None] / 16
    return x[order], torch.tensor(data.target, dtype=torch.int64)[order]


@pytest.fixture(scope="session")
def cnn(digits: tuple[Tensor, Tensor]) -> nn.Module:
    """A small CNN trained for some seconds on all digits but the first 200."""
    x, y = digits[0][200:], digits[1][200:]
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = nn.Sequential(
            nn.Conv2d(1, 8, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(8, 16, 3, stride=2, padding=1),
            nn.ReLU(),
            nn.Flatten(),
            nn.Linear(256, 10),
        )
    optimizer = torch.optim.Adam(model.parameters(), lr=0.005)
    for epoch in range(8):
        for rows in torch.randperm(len(x), generator=torch.Generator().manual_seed(epoch)).split(64):
            optimizer.zero_grad()
            nn.functional.cross_entropy(model(x[rows]), y[rows]).backward()
            optimizer.step()
    optimizer.zero_grad()
    return model.eval()


@pytest.fixture(scope="session")
def sample(digits: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
    """The 200 digits that the CNN was not trained on."""
    return digits[0][:200], digits[1][:200]


@pytest.fixture
def linear() -> Callable[..., nn.Module]:
    """Makes a linear classifier of `size` inputs into `classes` classes, float64, with random weights."""

    def make(size: int = 12, classes: int = 2, number: int = 0) -> nn.Module:
        layer = nn.Linear(size, classes, dtype=torch.float64)
        generator = torch.Generator().manual_seed(number)
        with torch.no_grad():
            layer.weight.copy_(torch.randn(classes, size, generator=generator, dtype=torch.float64))
            layer.bias.copy_(torch.randn(classes, generator=generator, dtype=torch.float64) - layer.weight.mean(1))
        return nn.Sequential(nn.Flatten(), layer).eval()

    return make


@pytest.fixture(scope="module")
def plain():
    """The small network, for tests that wrap it."""
    return small_model()


@pytest.fixture(scope="module")
def rows(plain):
    """Six inputs with the classes that it gives them."""
    return small_rows(plain)
