"""Noise keyed by row: good noise, and the same for a row wherever it stands."""

import pytest
import torch
from scipy.stats import chisquare, kstest, norm

from aisec_lab.core import RowNoise

ROWS, COLUMNS = 2000, 50


@pytest.fixture
def noise(seed):
    x = torch.rand(ROWS, 3, 4, generator=seed(1))
    return RowNoise(x, seed(0))


def test_noise_follows_its_distributions(noise):
    """Kolmogorov-Smirnov for the continuous ones, chi-square for the integers, at a level of 0.1 %."""
    uniform, normal = noise.uniform((COLUMNS,), 0), noise.normal((COLUMNS,), 1)
    assert uniform.min() >= 0
    assert uniform.max() < 1
    assert kstest(uniform.flatten().numpy(), "uniform").pvalue > 0.001
    assert kstest(normal.flatten().double().numpy(), norm.cdf).pvalue > 0.001
    counts = noise.integers(3, 10, (COLUMNS,), 2).flatten().bincount()
    assert not counts[:3].any()
    assert len(counts) == 10
    assert chisquare(counts[3:]).pvalue > 0.001


def test_rows_columns_and_counters_are_independent(noise):
    """No correlation beyond 5 standard errors, between neighbours in any direction or between counters."""
    first, second = noise.normal((COLUMNS,), 0).double(), noise.normal((COLUMNS,), 1).double()
    pairs = {
        "rows": (first[1:], first[:-1]),
        "columns": (first[:, 1:], first[:, :-1]),
        "counters": (first, second),
        "row against counter": (first[1:], second[:-1]),
    }
    for name, (a, b) in pairs.items():
        for power in (1, 2):  # of the values, and of their sizes
            a_c, b_c = a**power - (a**power).mean(), b**power - (b**power).mean()
            correlation = (a_c * b_c).mean() / (a_c.std() * b_c.std())
            assert abs(correlation) < 5 / a.numel() ** 0.5, (name, power)


def test_rows_that_differ_in_one_bit_get_unrelated_noise(seed):
    """A row differs from its neighbour by the last bit of one number, or by the order of its numbers."""
    row = torch.tensor([0.25, 0.5, 0.75])
    nearly = torch.tensor([0.25, 0.5, torch.nextafter(torch.tensor(0.75), torch.tensor(1.0))])
    noise = RowNoise(torch.stack([row, nearly, row.flip(0)]), seed(0)).normal((10_000,), 0)
    correlations = torch.corrcoef(noise).fill_diagonal_(0)
    assert correlations.abs().max() < 0.05


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_noise_goes_with_the_row(seed, dtype):
    """Neither order, nor company, nor a row's leaving the batch changes its noise; the generator's state does."""
    x = torch.rand(20, 5, generator=seed(1), dtype=dtype)
    order = torch.randperm(20, generator=seed(2))
    whole = RowNoise(x, seed(0))
    draws = [
        lambda n: n.uniform((2, 3), 4),
        lambda n: n.normal((7,), 0),
        lambda n: n.integers(0, 9, (5,), 2**40),
        lambda n: torch.stack([torch.randn(6, generator=own) for own in n.generators(3)]),
    ]
    for draw in draws:
        assert torch.equal(draw(RowNoise(x[order], seed(0))), draw(whole)[order])
        assert torch.equal(draw(RowNoise(x[:1], seed(0))), draw(whole)[:1])
        assert torch.equal(draw(whole.select(order[:4])), draw(whole)[order[:4]])
        assert not torch.equal(draw(RowNoise(x, seed(1))), draw(whole))
    assert whole.uniform((3,), 0).dtype == whole.normal((3,), 0).dtype == dtype


def test_generator_moves_on_by_the_same_amount_for_any_batch(seed):
    """What is drawn next from the generator does not depend on the batch."""
    states = []
    for rows in (1, 7):
        generator = seed(0)
        RowNoise(torch.rand(rows, 3), generator)
        states.append(generator.get_state())
    assert torch.equal(*states)
