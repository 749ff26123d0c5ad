"""DP-SGD on a stack: cut and noisy as row by row, with a q that the coins do not move."""

import pytest
import torch
import torch.nn.functional as F

from aisec_lab.attacks.inference.inclusion import inclusion_mask
from aisec_lab.data import Dataset
from aisec_lab.models import MLP, Fit
from aisec_lab.models.training.fit_stack import ModelStack
from aisec_lab.privacy.clipping import FlatClipping, GhostClipping, PerLayerClipping
from aisec_lab.privacy.dp_sgd import DPSGD
from aisec_lab.privacy.stacked import fit_private_stack, member_mechanism, poisson_steps, private_stack_step

ARCHITECTURE = MLP(hidden=(6, 5))
FIT = Fit(epochs=3, batch_size=20, momentum=0.0, learning_rate=0.1, weight_decay=0.0)


def seed(number):
    return torch.Generator().manual_seed(number)


def seeds(first, count):
    return [seed(first + k) for k in range(count)]


@pytest.fixture(scope="module")
def rows():
    x = torch.rand(100, 4, generator=seed(0))
    return Dataset(x, (3 * x[:, 0]).long().clamp(max=2), ("low", "middle", "high"), "table")


def by_hand(member, x, y, norm):
    """The sum of a member's cut gradients, row by row through autograd, in the stack's layout."""
    weights = list(member.parameters())
    totals = [torch.zeros_like(weight) for weight in weights]
    lengths = []
    for row, label in zip(x, y, strict=True):
        gradient = torch.autograd.grad(F.cross_entropy(member(row[None]), label[None]), weights)
        lengths.append(torch.stack([part.norm() for part in gradient]).norm())
        for total, part in zip(totals, gradient, strict=True):
            total += part * (norm / lengths[-1]).clamp(max=1)
    return totals, torch.stack(lengths)


@pytest.mark.parametrize("norm", [0.3, 1.5, 1e6])
def test_the_gradient_is_the_sum_of_cut_ones(norm, rows):
    """Row by row; batches of different sizes, one of them empty; padding has no part in it."""
    stack = ModelStack(ARCHITECTURE, rows.shape, 3, seeds(10, 3)).double()
    sizes, expected, cut = (7, 4, 0), 5.0, []
    x, y = rows.x[:21].view(3, 7, 4).double(), rows.y[:21].view(3, 7)
    there = torch.arange(7) < torch.tensor(sizes)[:, None]
    private_stack_step(stack, x, y, there, norm=norm, noise=0.0, expected=expected, generators=seeds(0, 3))
    for k, size in enumerate(sizes):
        totals, lengths = by_hand(stack.unstacked(k).double(), x[k, :size], y[k, :size], norm) if size else ([], None)
        cut += [] if lengths is None else (lengths > norm).tolist()
        for place in range(len(stack.weights)):
            weight, bias = stack.weights[place].grad[k], stack.biases[place].grad[k, 0]
            mine = (totals[2 * place].T, totals[2 * place + 1]) if size else (0 * weight, 0 * bias)
            assert torch.allclose(weight * expected, mine[0], atol=1e-5)
            assert torch.allclose(bias * expected, mine[1], atol=1e-5)
    assert {0.3: all(cut), 1.5: any(cut) and not all(cut), 1e6: not any(cut)}[norm]


def test_the_noise_has_its_size_and_is_each_members_own(rows):
    """Standard deviation noise / expected in every weight and bias, from the member's generator alone."""
    stack = ModelStack(MLP(hidden=(80,)), rows.shape, 3, seeds(10, 3))
    nobody = torch.zeros(3, 1, dtype=torch.bool)
    drawn = []
    for generators in (seeds(0, 3), seeds(0, 3), [seed(9), seed(1), seed(2)]):
        x, y = rows.x[:3, None], rows.y[:3, None]
        private_stack_step(stack, x, y, nobody, norm=1.0, noise=6.0, expected=4.0, generators=generators)
        drawn.append(torch.cat([parameter.grad.flatten(1) for parameter in stack.parameters()], dim=1))
    assert torch.equal(drawn[0], drawn[1])
    assert torch.equal(drawn[0][1:], drawn[2][1:])
    assert not torch.equal(drawn[0][0], drawn[2][0])
    n = drawn[0][0].numel()
    for first, second in ((0, 1), (1, 2)):
        assert abs(torch.corrcoef(drawn[0])[first, second]) < 4 / n**0.5
    assert (drawn[0] / 1.5).std(dim=1).tolist() == pytest.approx([1] * 3, abs=4 / (2 * n) ** 0.5)


def test_q_and_steps_do_not_follow_the_coins(rows):
    """They are those of DPSGD on half the rows, and the sampler keeps to them for members of any size."""
    mechanism = member_mechanism(DPSGD(noise_multiplier=1.3), FIT, 100)
    assert (mechanism.q, mechanism.sigma, mechanism.steps) == (0.4, 1.3, 9)
    for size in (30, 50, 70):
        steps, draws = poisson_steps(FIT, size, seed(0), mechanism=mechanism)
        assert steps == len(list(draws)) == 9


def test_every_row_joins_by_a_chance_of_its_own():
    """Over many steps: the share of joins is q, sizes spread as a binomial, no row is drawn twice in a step."""
    mechanism = member_mechanism(DPSGD(noise_multiplier=1.0), Fit(epochs=2000, batch_size=10), 100)
    _, draws = poisson_steps(FIT, 60, seed(0), mechanism=mechanism)
    draws = list(draws)
    sizes = torch.tensor([len(each) for each in draws], dtype=torch.float64)
    assert all(len(each.unique()) == len(each) for each in draws[:100])
    steps, variance = len(draws), 60 * 0.2 * 0.8
    assert sizes.mean().item() == pytest.approx(12, abs=4 * (variance / steps) ** 0.5)
    assert sizes.var().item() == pytest.approx(variance, rel=4 * (2 / steps) ** 0.5)
    joins = torch.cat(draws).bincount(minlength=60) / steps
    assert (joins - 0.2).abs().max() < 5 * (0.16 / steps) ** 0.5


def test_a_member_does_not_depend_on_its_neighbours(rows):
    included = inclusion_mask(4, 100, generator=seed(1))
    outcomes = []
    for chosen in ([3], [0, 1, 2, 3]):
        stack = ModelStack(ARCHITECTURE, rows.shape, 3, [seed(10 + k) for k in chosen])
        generators = [seed(20 + k) for k in chosen]
        fit_private_stack(stack, rows, included[chosen], DPSGD(noise_multiplier=1.0), fit=FIT, generators=generators)
        outcomes.append(torch.cat([p.detach().flatten() for p in stack.unstacked(len(chosen) - 1).parameters()]))
    assert torch.allclose(*outcomes, atol=1e-5)


def test_it_learns_with_clipping_alone_and_loses_it_to_noise(rows):
    included = inclusion_mask(4, 100, generator=seed(1))
    loss = {}
    for sigma in (0.0, 50.0):
        stack = ModelStack(ARCHITECTURE, rows.shape, 3, seeds(10, 4))
        private = DPSGD(noise_multiplier=sigma, clipping=FlatClipping(1.0))
        fit = Fit(epochs=60, batch_size=20, learning_rate=0.02)
        loss[sigma] = fit_private_stack(stack, rows, included, private, fit=fit, generators=seeds(20, 4))
    assert (loss[0.0] < 0.5).all()
    assert (loss[50.0] > 0.8).all()


def test_what_a_stack_cannot_do_is_refused(rows):
    stack, included = ModelStack(ARCHITECTURE, rows.shape, 3, seeds(10, 2)), inclusion_mask(2, 100, generator=seed(1))
    for private in (
        DPSGD(noise_multiplier=1.0, clipping=PerLayerClipping()),
        DPSGD(noise_multiplier=1.0, clipping=GhostClipping(), release=True),
    ):
        with pytest.raises(ValueError, match="FlatClipping or GhostClipping and not for release"):
            fit_private_stack(stack, rows, included, private, fit=FIT, generators=seeds(0, 2))
    with pytest.raises(ValueError, match="needs at least batch_size = 60 rows, got 50"):
        member_mechanism(DPSGD(noise_multiplier=1.0), Fit(batch_size=60), 100)
    with pytest.raises(ValueError, match="below 1/50 rows, got 0.02"):
        member_mechanism(DPSGD(epsilon=1.0, delta=0.02), FIT, 100)
