"""Sanitizers and ensembles: what they do to an image, whose noise it is, and who sees through them."""

from functools import partial

import pytest
import torch
import torch.nn.functional as F

from aisec_lab.attacks import BPDA, PGD, Adaptive, Linf
from aisec_lab.defenses import JPEG, AveragedModel, BitDepth, Ensemble, RandomResizing, Standard, TotalVariation
from aisec_lab.defenses.preprocessing.randomised import ResizeAndPad
from aisec_lab.defenses.preprocessing.total_variation import divergence, gradient, tv_denoised
from aisec_lab.models import MLP, Fit, logits_of, seeded


def seed(number):
    return torch.Generator().manual_seed(number)


def right(model, x, y):
    return (logits_of(model, x).argmax(1) == y).double().mean().item()


@pytest.mark.parametrize("defense", [BitDepth(4), JPEG(75)], ids=repr)
def test_bpda_breaks_what_plain_gradients_do_not(defense, classifier, splits):
    """A gradient of zero hides the model from PGD, not from PGD that takes the layer for the identity."""
    x, y = splits.test.x[:100], splits.test.y[:100]
    model = defense(classifier)
    plain = PGD(Linf(0.15), steps=20)(model, x, y, generator=seed(0))
    adaptive = Adaptive(Linf(0.15), partial(PGD, steps=20), BPDA())(model, x, y, generator=seed(0))
    assert right(model, plain, y) > 0.8
    assert right(model, adaptive, y) < 0.3


RANDOM = [RandomResizing(0.5), TotalVariation(0.1, dropped=0.5, steps=20)]


@pytest.mark.parametrize("defense", RANDOM, ids=repr)
def test_noise_is_the_generators_and_the_rows(defense, classifier, splits):
    """The same seed, the same answer, in any order and batch; another seed, another answer; none, none at all."""
    x, model = splits.test.x[:50].double(), defense(classifier)
    washed = model[0]
    order = torch.randperm(50, generator=seed(7))
    answers = []
    for number, rows in [(1, None), (1, None), (2, None), (1, order), (1, slice(20, 30))]:
        with seeded(model, seed(number)):
            answers.append(washed(x if rows is None else x[rows]))
    first, again, other, shuffled, part = answers
    assert torch.equal(first, again)
    assert ((first - other).flatten(1).abs().amax(1) > 0.01).double().mean() > 0.8
    assert torch.equal(shuffled, first[order])
    assert torch.equal(part, first[20:30])
    assert first.min() >= 0
    assert first.max() <= 1
    with pytest.raises(ValueError, match=r"no generator is bound: use `with seeded\(model, generator\):`"):
        model(x.float())


def test_an_image_is_shrunk_and_put_on_black():
    """Each row is one of the images that interpolation and padding make of it; sizes and places all occur."""
    side, x = 6, torch.rand(1, 1, 6, 6, dtype=torch.float64, generator=seed(0))
    rows = x + 1e-9 * torch.arange(400).view(-1, 1, 1, 1)  # alike, but with a noise of their own
    layer = ResizeAndPad(0.5)
    with seeded(layer, seed(1)):
        found = layer(rows)
    possible = {}
    for size in range(3, side + 1):
        small = F.interpolate(x, (size, size), mode="bilinear", align_corners=False)
        for down in range(side - size + 1):
            for across in range(side - size + 1):
                margins = (across, side - size - across, down, side - size - down)
                possible[size, down, across] = F.pad(small, margins)[0]
    places = [[key for key, image in possible.items() if torch.allclose(row, image, atol=1e-6)] for row in found]
    assert all(len(place) == 1 for place in places)
    sizes = [place[0][0] for place in places]
    assert all(60 < sizes.count(size) < 140 for size in range(3, side + 1))  # 100 expected of each
    assert len({place[0] for place in places if place[0][0] == 4}) == 9


def test_images_may_be_oblong():
    """Each axis keeps its own side."""
    layer = ResizeAndPad(0.5)
    with seeded(layer, seed(0)):
        found = layer(1 - 1e-3 * torch.rand(50, 1, 4, 8, generator=seed(1)))
    heights, widths = ((found.amax(axis) > 0).sum(2).flatten() for axis in (3, 2))
    assert sorted(set(heights.tolist())) == [2, 3, 4]
    assert sorted(set(widths.tolist())) == [4, 5, 6, 7, 8]


def test_divergence_is_minus_the_adjoint_of_the_gradient():
    """<gradient z, p> = -<z, divergence p>."""
    z = torch.randn(2, 3, 5, 4, dtype=torch.float64, generator=seed(0))
    p = torch.randn(2, 3, 2, 5, 4, dtype=torch.float64, generator=seed(1))
    torch.testing.assert_close((gradient(z) * p).sum(), -(z * divergence(p)).sum())


def test_total_variation_meets_the_closed_form_of_a_step():
    """Two flat halves approach each other by 2 weight / width on either side; a flat image stays as it is."""
    x = torch.full((1, 1, 6, 8), 0.3, dtype=torch.float64)
    x[..., 4:] = 0.7
    kept = torch.ones_like(x)
    expected = x + torch.where(x < 0.5, 1, -1) * 2 * 0.1 / 8
    torch.testing.assert_close(tv_denoised(x, kept, 0.1, 500), expected, atol=1e-4, rtol=0)
    torch.testing.assert_close(tv_denoised(x[..., :4], kept[..., :4], 0.1, 500), x[..., :4])


def test_total_variation_minimises_its_objective():
    """No small change of the solution lowers it, with a third of the pixels dropped."""
    x = 0.3 + 0.4 * torch.rand(1, 1, 8, 8, dtype=torch.float64, generator=seed(0))
    kept = (torch.rand(1, 1, 8, 8, generator=seed(1)) > 0.33).double()

    def objective(z):
        return 0.5 * (kept * (z - x) ** 2).sum() + 0.1 * gradient(z).square().sum(2).sqrt().sum()

    z = tv_denoised(x, kept, 0.1, 3000)
    lowest = objective(z)
    assert lowest < 0.9 * objective(x)
    for number in range(200):
        change = 0.01 * torch.randn(z.shape, dtype=z.dtype, generator=seed(number))
        assert objective(z + change) > lowest - 1e-6


def test_total_variation_is_differentiable():
    """The gradient through all steps, against finite differences."""
    x = torch.rand(1, 1, 4, 4, dtype=torch.float64, generator=seed(0)).requires_grad_()
    kept = torch.ones_like(x)
    assert torch.autograd.gradcheck(lambda x: tv_denoised(x, kept, 0.1, 15), (x,))


def test_an_ensemble_averages_probabilities(classifier, splits):
    """Against the mean of softmaxes; still a number where all members are sure."""
    x = splits.test.x[:20]
    other = MLP((8,))((1, 8, 8), 10, generator=seed(0)).eval()
    both = AveragedModel([classifier, other])
    torch.testing.assert_close(both(x).exp(), (classifier(x).softmax(1) + other(x).softmax(1)) / 2)
    assert not both.training
    sure = torch.nn.Linear(1, 3)
    with torch.no_grad():
        sure.weight.copy_(torch.tensor([[500.0], [0.0], [-500.0]]))
        assert AveragedModel([sure, sure])(torch.ones(1, 1)).isfinite().all()
    with pytest.raises(ValueError, match="at least one member"):
        AveragedModel([])


def test_an_ensemble_trains_its_other_members(classifier, splits):
    """Of other architectures, by their seed alone; what breaks the first member breaks the ensemble less often."""
    x, y = splits.test.x[:200], splits.test.y[:200]
    defense = Ensemble([MLP((64,)), MLP((32, 32))], Fit(epochs=8, learning_rate=0.01), Standard())
    model, again = defense(classifier, data=splits), defense(classifier, data=splits)
    assert torch.equal(logits_of(model, x), logits_of(again, x))
    assert [type(member[1]).__name__ for member in model.members] == ["Conv2d", "Flatten", "Flatten"]
    assert right(model, x, y) > 0.9
    x_adv = PGD(Linf(0.1), steps=20)(classifier, x, y, generator=seed(0))
    assert right(model, x_adv, y) > right(classifier, x_adv, y) + 0.2
    with pytest.raises(ValueError, match="data=splits"):
        defense(classifier)


@pytest.mark.parametrize(
    "make",
    [
        lambda: RandomResizing(1.0),
        lambda: RandomResizing(0.0),
        lambda: TotalVariation(weight=0),
        lambda: TotalVariation(dropped=1.0),
        lambda: TotalVariation(steps=0),
    ],
)
def test_impossible_settings_are_refused(make):
    """When the defense is made."""
    with pytest.raises(ValueError, match="must be|between 0 and 1"):
        make()


@pytest.mark.parametrize("defense", RANDOM, ids=repr)
def test_tables_are_refused(defense):
    """With the shape that was given."""
    model = defense(MLP((4,))((5,), 2, generator=seed(0)))
    with seeded(model, seed(0)), pytest.raises(ValueError, match=r"takes images .* got shape \(3, 5\)"):
        model(torch.rand(3, 5))
