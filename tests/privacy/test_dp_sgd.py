"""DP-SGD: each row's gradient is cut, the noise has its size, and the model learns and comes back whole."""

import copy

import pytest
import torch
import torch.nn.functional as F
from opacus.grad_sample import GradSampleModule
from sklearn.datasets import load_digits
from torch import nn
from torch.optim import SGD

from aisec_lab.data import Dataset
from aisec_lab.models import CNN, Fit, logits_of
from aisec_lab.privacy.dp_sgd import DPSGD, clipped


def seed(number):
    return torch.Generator().manual_seed(number)


@pytest.fixture(scope="module")
def rows():
    data = load_digits()
    x = torch.tensor(data.images, dtype=torch.float32)[:, None] / 16
    return Dataset(x, torch.tensor(data.target), tuple("0123456789"), "digits")


def network():
    return CNN(width=8, hidden=32)((1, 8, 8), 10, generator=seed(0))


def change(rows, norm, noise, number=0):
    """What one step of SGD at rate 1 does to the weights, as one vector, and the rows' own gradients (N, D)."""
    model = network()
    before = nn.utils.parameters_to_vector(model.parameters()).detach().clone()
    own = []
    for x, y in zip(rows.x, rows.y, strict=True):
        loss = F.cross_entropy(model(x[None]), y[None])
        own.append(torch.cat([grad.flatten() for grad in torch.autograd.grad(loss, list(model.parameters()))]))
    GradSampleModule(model, loss_reduction="sum")
    losses = lambda: F.cross_entropy(model(rows.x), rows.y, reduction="none")  # noqa: E731
    DPSGD(noise, norm)._step(model.train(), SGD(model.parameters(), lr=1.0), losses, seed(number))
    return nn.utils.parameters_to_vector(model.parameters()).detach() - before, torch.stack(own)


@pytest.mark.parametrize("norm", [0.5, 1e6])
def test_a_step_is_the_mean_of_the_cut_gradients(norm, rows):
    """Row by row through a slow second implementation; some are cut, and with a huge bound none is."""
    few = rows.subset(torch.arange(12))
    moved, own = change(few, norm, noise=0)
    lengths = own.norm(dim=1)
    assert (lengths > norm).any() == (norm < 1)
    expected = (own * (norm / lengths).clamp(max=1)[:, None]).mean(0)
    assert torch.allclose(-moved, expected, atol=1e-5)


def test_the_noise_has_its_size(rows):
    """Standard deviation noise * norm / N in every weight, and none of it is a row's."""
    few = rows.subset(torch.arange(12))
    quiet, noisy = change(few, 0.5, 0)[0], change(few, 0.5, 3.0)[0]
    scaled = (noisy - quiet) * 12 / (3.0 * 0.5)
    assert abs(scaled.mean()) < 4 / len(scaled) ** 0.5
    assert scaled.std() == pytest.approx(1, abs=4 / (2 * len(scaled)) ** 0.5)
    assert not torch.equal(noisy, change(few, 0.5, 3.0, number=1)[0])


def test_no_row_counts_for_more_than_the_bound():
    """Over two weights together: 3 and 4 make 5, cut to 1; a short one stays."""
    sums = clipped([torch.tensor([[3.0], [0.3]]), torch.tensor([[4.0], [0.4]])], 1.0)
    assert torch.allclose(torch.cat(sums), torch.tensor([0.6 + 0.3, 0.8 + 0.4]), atol=1e-5)


def test_it_trains_in_place_and_leaves_no_trace(rows):
    """Better than chance by far, the same twice, a plain model afterwards that can be copied."""
    outcomes = []
    for _ in range(2):
        model = network()
        Fit(epochs=3, learning_rate=0.01)(model, rows, DPSGD(0.5), generator=seed(1))
        outcomes.append(logits_of(model, rows.x))
        assert not any(module._forward_hooks for module in model.modules())
        assert not any(hasattr(weight, "grad_sample") for weight in model.parameters())
        copy.deepcopy(model)
    assert torch.equal(*outcomes)
    assert (outcomes[0].argmax(1) == rows.y).double().mean() > 0.6


@pytest.mark.parametrize("settings", [{"noise_multiplier": -1}, {"max_grad_norm": 0}])
def test_what_makes_no_sense_is_refused(settings):
    with pytest.raises(ValueError, match="noise_multiplier must not be negative"):
        DPSGD(**settings)
