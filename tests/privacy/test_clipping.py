"""Clipping rules: no row counts for more than its bound, and an adaptive bound pays for what it looks at."""

import math
import re

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import kstest

from aisec_lab.models import CNN
from aisec_lab.privacy.clipping import AdaptiveClipping, FlatClipping, GhostClipping, PerLayerClipping
from aisec_lab.privacy.gradients import layer_index

RULES = [FlatClipping, PerLayerClipping, AdaptiveClipping, GhostClipping]


def seed(number):
    return torch.Generator().manual_seed(number)


lengths = st.lists(st.lists(st.floats(0, 1e6, width=32), min_size=4, max_size=4), min_size=1, max_size=5)


@pytest.mark.parametrize("rule", RULES)
@given(norms=lengths, bound=st.floats(1e-3, 1e3))
def test_no_row_is_longer_than_the_bound(rule, norms, bound):
    """Over all weights together; what is cut keeps its direction within a layer, and nothing grows."""
    norms, layers = torch.tensor(norms).T, torch.tensor([0, 0, 1, 2])  # four weights of three layers
    factors = rule(bound).clip_factors(norms, layers, bound)
    assert factors.shape == norms.shape
    assert (factors >= 0).all()
    assert (factors <= 1).all()
    assert ((factors * norms).norm(dim=0) <= bound * (1 + 1e-5)).all()
    assert torch.equal(factors[0], factors[1])


def test_flat_cuts_over_all_weights():
    """3 and 4 make 5, cut to 1; a short one stays."""
    factors = FlatClipping().clip_factors(torch.tensor([[3.0, 0.3], [4.0, 0.4]]), torch.tensor([0, 1]), 1.0)
    torch.testing.assert_close(factors, torch.tensor([[0.2, 1.0], [0.2, 1.0]]))


def test_per_layer_cuts_each_layer_to_its_part():
    """C / sqrt(2) for each of two layers: the first, weights 3 and 4, is cut from 5; the second, 0.5, stays."""
    factors = PerLayerClipping().clip_factors(torch.tensor([[3.0], [4.0], [0.5]]), torch.tensor([0, 0, 1]), 1.0)
    torch.testing.assert_close(factors, torch.tensor([[0.2 / 2**0.5], [0.2 / 2**0.5], [1.0]]), rtol=1e-5, atol=0)


def test_layers_are_the_modules_that_own_weights():
    """Convolutions without bias have one weight, all others two; a frozen one is not counted."""
    model = CNN()((1, 8, 8), 10, generator=seed(0))
    assert layer_index(model).tolist() == [0, 1, 1, 2, 3, 3, 4, 5, 5, 6, 6, 7, 7]
    model[1].weight.requires_grad_(False)
    assert layer_index(model).tolist() == [0, 0, 1, 2, 2, 3, 4, 4, 5, 5, 6, 6]


@given(sigma=st.floats(0.3, 5), batch=st.integers(100, 5000), count_noise=st.floats(0.03, 0.5))
def test_gradient_and_count_together_are_the_mechanism_that_is_accounted(sigma, batch, count_noise):
    """Gaussian mechanisms compose by mu^2 = sum (sensitivity / deviation)^2; the count has a sensitivity of 1/2."""
    z = AdaptiveClipping(count_noise=count_noise).gradient_noise_multiplier(sigma, batch)
    assert z > sigma
    assert math.hypot(1 / z, 0.5 / (count_noise * batch)) == pytest.approx(1 / sigma)


@given(norms=st.lists(st.floats(0, 100), max_size=30), extra=st.floats(0, 100), bound=st.floats(0.01, 50))
def test_a_row_moves_the_count_by_a_half(norms, extra, bound):
    """Whichever side of C it is on: one row more changes the released share by exactly 1/2 over the expected batch."""
    rule, few = AdaptiveClipping(rate=1.0), torch.tensor([norms], dtype=torch.float64)
    more = torch.cat([few, torch.tensor([[extra]], dtype=torch.float64)], 1)
    one, other = (rule.next_max_grad_norm(bound, rows, 40, seed(3)) for rows in (few, more))
    assert abs(math.log(one / other)) == pytest.approx(0.5 / 40)


def test_the_counts_noise_has_its_size():
    """log C moves by the noise over the expected batch: normal with deviation count_noise, in units of the rate."""
    rule, generator = AdaptiveClipping(quantile=0.3, rate=1.0, count_noise=0.07), seed(4)
    nobody = torch.zeros(1, 0)
    moves = [-math.log(rule.next_max_grad_norm(1.0, nobody, 50, generator)) for _ in range(2000)]
    assert kstest([(move + 0.3 - 0.5) / 0.07 for move in moves], "norm").pvalue > 0.001


def test_the_bound_finds_the_quantile():
    """Of norms that are uniform on [0, 8], 0.25 lie below 2; from far above and far below."""
    rule, generator = AdaptiveClipping(quantile=0.25), seed(5)
    for start in (0.05, 100.0):
        bound, seen = start, []
        for _ in range(300):
            bound = rule.next_max_grad_norm(bound, 8 * torch.rand(1, 200, generator=generator), 200, generator)
            seen.append(bound)
        assert sum(seen[-100:]) / 100 == pytest.approx(2, rel=0.1)


WRONG = [
    (lambda: FlatClipping(0), "max_grad_norm must be positive and finite, got 0"),
    (lambda: GhostClipping(math.inf), "max_grad_norm must be positive and finite, got inf"),
    (lambda: PerLayerClipping(math.nan), "max_grad_norm must be positive and finite, got nan"),
    (lambda: AdaptiveClipping(quantile=1), "quantile must lie between 0 and 1"),
    (lambda: AdaptiveClipping(count_noise=0), "count_noise be positive"),
    (lambda: AdaptiveClipping(rate=-1), "rate and count_noise be positive"),
    (lambda: AdaptiveClipping(count_noise=0.01).gradient_noise_multiplier(2, 50), "raise count_noise above 0.02"),
]


@pytest.mark.parametrize(("wrong", "message"), WRONG, ids=[message for _, message in WRONG])
def test_what_makes_no_sense_is_refused(wrong, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        wrong()
