"""Square: scores only, within its budget of queries."""

import pytest
import torch
from torch import nn

from aisec_lab.attacks import L0, L1, L2, Linf, Square, Targeted
from aisec_lab.attacks.evasion.black_box.square_patterns import _bumps


class Counted(nn.Module):
    """A model without gradients that counts the rows of each call."""

    def __init__(self, model):
        super().__init__()
        self.model, self.batches = model, []

    @torch.no_grad()
    def forward(self, x):
        assert not x.requires_grad
        self.batches.append(len(x))
        return self.model(x).round(decimals=3)


@pytest.mark.parametrize("ball", [Linf(0.15), L2(1.0), L1(2.5)], ids=repr)
@pytest.mark.parametrize("queries", [2, 25, 80])
def test_no_row_is_seen_more_often_than_the_budget_allows(ball, queries, cnn, sample, seed):
    """No gradients are asked for; a won row is not looked at again; an unbroken one uses the whole budget."""
    x, y = sample[0][:60].clone(), sample[1][:60]
    counted = Counted(cnn)
    x_adv = Square(ball, queries=queries)(counted.eval(), x, y, generator=seed(0))
    with torch.no_grad():
        won = int((cnn(x_adv).argmax(1) != y).sum())
    assert counted.batches[0] == len(x)
    assert len(counted.batches) <= queries
    assert counted.batches == sorted(counted.batches, reverse=True)
    if len(counted.batches) == queries:
        assert counted.batches[-1] >= len(x) - won


@pytest.mark.parametrize(("ball", "left"), [(Linf(0.2), 0.2), (L2(1.2), 0.35), (L1(4.0), 0.35)], ids=repr)
def test_more_queries_win_more(ball, left, cnn, sample, seed):
    """Without a gradient, and on rounded scores, most rows fall; a longer search leaves no more standing."""
    x, y = sample
    standing = []
    for queries in (20, 300):
        x_adv = Square(ball, queries=queries)(Counted(cnn).eval(), x, y, generator=seed(0))
        standing.append((cnn(x_adv).argmax(1) == y).double().mean().item())
    assert standing[1] < standing[0]
    assert standing[1] < left


@pytest.mark.parametrize("shape", [(5, 3, 1, 1), (5, 1, 2, 3), (5, 3, 9, 4), (5, 2, 32, 32)])
@pytest.mark.parametrize("ball", [Linf(0.1), L2(0.5), L1(1.5)], ids=repr)
def test_images_of_any_shape_and_colour(ball, shape, linear, seed):
    """From one pixel up, not square, several channels."""
    x = torch.rand(shape, generator=seed(1), dtype=torch.float64)
    model = linear(x[0].numel(), classes=3)
    x_adv = Square(ball, queries=30)(model, x, model(x).argmax(1), generator=seed(0))
    assert (ball.norm(x_adv - x) <= ball.eps * (1 + 1e-6)).all()
    assert x_adv.min() >= 0
    assert x_adv.max() <= 1


@pytest.mark.parametrize("channels", [1, 3])
def test_no_query_is_spent_on_the_best_point_so_far(channels, seed):
    """In Linf each proposal differs from it, at the faces of the box too."""
    seen = []

    class Sum(nn.Module):
        def forward(self, z):
            seen.append(z)
            return torch.stack([1 + z.flatten(1).sum(1), torch.zeros(len(z))], dim=1)

    x = (2 * torch.rand(20, channels, 6, 6, generator=seed(1), dtype=torch.float64) - 0.5).clamp(0, 1)
    Square(Linf(0.1), queries=60)(Sum().eval(), x, torch.zeros(20, dtype=torch.int64), generator=seed(0))
    best = seen[1]
    for z in seen[2:]:
        assert (z != best).flatten(1).any(1).all()
        lower = z.flatten(1).sum(1) < best.flatten(1).sum(1)
        best = torch.where(lower[:, None, None, None], z, best)


@pytest.mark.parametrize("side", [3, 4, 7])
def test_a_bump_in_l1_is_that_of_the_reference(side):
    """Each of the rectangles around the middle adds 1/k^4, and half of the window has the other sign; length 1."""

    def half(height):
        bump = torch.zeros(height, side, dtype=torch.float64)
        for i in range(height):
            for j in range(side):
                first = max(abs(i - height // 2), abs(j - side // 2))
                bump[i, j] = sum((1 / (k + 1)) ** 4 for k in range(first, max(height // 2, side // 2) + 1))
        return bump

    expected = torch.cat([half(side // 2), -half(side - side // 2)])
    found = _bumps(side, torch.zeros(1, dtype=torch.float64), 1)
    assert torch.allclose(found, expected / expected.abs().sum())
    assert found.abs().sum().item() == pytest.approx(1)


def test_targeted_search_reaches_its_target(cnn, sample, seed):
    """Well above chance inside a wide ball; which digit it becomes is the attacker's choice."""
    x, y = sample
    target = (y + 1) % 10
    x_adv = Square(Linf(0.4), queries=300, goal=Targeted())(cnn, x, target, generator=seed(0))
    assert (cnn(x_adv).argmax(1) == target).double().mean() > 0.6


def test_another_ball_is_refused():
    """The authors know three."""
    with pytest.raises(ValueError, match="Linf, L2 and L1, not L0"):
        Square(L0(5))


def test_rows_that_are_no_images_are_refused(linear, seed):
    """Tables have no squares."""
    with pytest.raises(ValueError, match="squares of images"):
        Square(Linf(0.1))(linear(12), torch.full((2, 12), 0.5), torch.tensor([0, 1]), generator=seed(0))
