"""Randomised smoothing against the classifier whose smoothed radius is known: for a line, the distance to it."""

import numpy as np
import pytest
import torch
from hydra.utils import instantiate
from omegaconf import OmegaConf
from scipy.stats import binom, norm
from sklearn.datasets import load_digits
from torch import nn

from aisec_lab.attacks import L2, PGD
from aisec_lab.core import RowNoise
from aisec_lab.core.binomial import lower_bound
from aisec_lab.data import Dataset
from aisec_lab.defenses import (
    ABSTAIN,
    GaussianNoise,
    SmoothAdv,
    Smoothed,
    Smoothing,
    Standard,
    certify,
    max_certifiable_radius,
    predict,
)
from aisec_lab.models import Fit, StridedCNN, seeded
from tests.clone import ROOT

SIZE, SIGMA = 6, 0.5


def seed(number):
    return torch.Generator().manual_seed(number)


@pytest.fixture(scope="module")
def line():
    """Two classes on either side of a hyperplane through the middle of the box, float64; its normal and offset."""
    layer = nn.Linear(SIZE, 2, dtype=torch.float64)
    with torch.no_grad():
        layer.weight.copy_(torch.randn(2, SIZE, generator=seed(0), dtype=torch.float64))
        normal = layer.weight[1] - layer.weight[0]
        layer.bias.copy_(torch.stack([normal.sum() / 2, torch.zeros((), dtype=torch.float64)]))
    return layer.eval(), normal, -normal.sum() / 2


def inputs(number, rows):
    return torch.rand(rows, SIZE, generator=seed(number), dtype=torch.float64)


def distances(line, x):
    """Signed distance (N,) to the line, positive on the side of class 1, without the code under test."""
    _, normal, offset = line
    return (x @ normal + offset) / normal.norm()


@pytest.mark.parametrize(("n", "alpha"), [(200, 0.05), (1000, 0.01)])
def test_a_certificate_claims_too_much_no_more_often_than_alpha(line, n, alpha):
    """The smoothed line is the line itself, so a row's true radius is its distance; and the bound is not idle."""
    x = inputs(1, 4000)
    certificate = certify(line[0], x, sigma=SIGMA, n0=20, n=n, alpha=alpha, generator=seed(2))
    truth = distances(line, x)
    given = certificate.classes != ABSTAIN
    wrong = given & ((certificate.classes != (truth > 0)) | (certificate.radius > truth.abs()))
    assert binom.sf(int(wrong.sum()) - 1, len(x), alpha) > 1e-4
    assert wrong.sum() > alpha * len(x) / 4  # a bound that is never wrong gives away radius
    assert (certificate.radius[given] > 0).all()
    assert (certificate.radius[~given] == 0).all()


def test_a_class_is_given_wrongly_no_more_often_than_alpha(line):
    """Rows on the line have no class, so each that is given one is a mistake; far from it all are given theirs."""
    _, normal, _ = line
    x = inputs(1, 3000)
    on_the_line = x - distances(line, x)[:, None] * normal / normal.norm()
    on_the_line = on_the_line[((on_the_line >= 0) & (on_the_line <= 1)).all(1)]
    given = int((predict(line[0], on_the_line, sigma=SIGMA, n=100, alpha=0.1, generator=seed(2)) != ABSTAIN).sum())
    assert binom.sf(given - 1, len(on_the_line), 0.1) > 1e-4
    assert given > 0.1 * len(on_the_line) / 4
    far = x[distances(line, x).abs() > SIGMA]
    assert torch.equal(predict(line[0], far, sigma=SIGMA, n=500, generator=seed(2)), (distances(line, far) > 0).long())


def test_certify_is_the_pseudocode(line):
    """Against a naive version of the paper's, one row at a time, that draws all samples before it counts them."""
    x = inputs(3, 60)
    model, n0, n, alpha = line[0], 30, 350, 0.01
    got = certify(model, x, sigma=SIGMA, n0=n0, n=n, alpha=alpha, generator=seed(4))
    generator = seed(4)
    selecting, estimating = RowNoise(x, generator), RowNoise(x, generator)

    def counts(noise, row, total):
        blocks = [noise.normal((min(100, total - start), SIZE), start // 100)[row] for start in range(0, total, 100)]
        return model(x[row] + SIGMA * torch.cat(blocks)).argmax(1).bincount(minlength=2)

    for row in range(len(x)):
        choice = int(counts(selecting, row, n0).argmax())
        p_lower = lower_bound(int(counts(estimating, row, n)[choice]), n, alpha)
        assert got.classes[row] == (choice if p_lower > 0.5 else ABSTAIN)
        assert got.radius[row].item() == pytest.approx(max(0.0, SIGMA * norm.ppf(p_lower)), rel=1e-12)
    assert 0 < (got.classes == ABSTAIN).sum() < len(x)


@pytest.mark.parametrize("function", [certify, predict])
def test_neither_the_batch_nor_the_order_changes_a_row(line, function):
    """Noise is keyed by row; in float64 the logits do not depend on the batch either."""
    x = inputs(5, 40)
    order = torch.randperm(40, generator=seed(6))

    def run(rows, batch):
        answer = function(line[0], rows, sigma=SIGMA, n=250, batch=batch, generator=seed(7))
        return torch.stack([answer.classes.double(), answer.radius]) if function is certify else answer[None]

    whole = run(x, 1000)
    assert torch.equal(run(x[order], 100), whole[:, order])
    assert torch.equal(run(x[:1], 7), whole[:, :1])


def test_the_number_of_samples_limits_the_radius():
    """If all fall into one class, it is sigma Phi^-1(alpha^(1/n)); too few samples certify nothing."""
    always = nn.Linear(SIZE, 3, dtype=torch.float64).eval()
    with torch.no_grad():
        always.bias.copy_(torch.tensor([0.0, 100.0, 0.0]))
    got = certify(always, inputs(0, 3), sigma=SIGMA, n=500, alpha=0.001, generator=seed(0))
    assert got.classes.tolist() == [1, 1, 1]
    assert got.radius.tolist() == [max_certifiable_radius(SIGMA, 500, 0.001)] * 3
    assert max_certifiable_radius(SIGMA, 500, 0.001) == pytest.approx(SIGMA * norm.ppf(0.001 ** (1 / 500)), rel=1e-12)
    assert certify(always, inputs(0, 3), sigma=SIGMA, n=9, generator=seed(0)).classes.tolist() == [ABSTAIN] * 3
    assert got.holds(torch.tensor([1, 1, 0]), got.radius[0].item() - 1e-9).tolist() == [True, True, False]
    assert not got.holds(torch.ones(3), got.radius[0].item()).any()


def test_scores_are_shares_of_the_counts(line):
    """On a line the share of class 1 is Phi(distance / sigma); the top class of the scores is that of the counts."""
    x = inputs(8, 300)
    model = Smoothed(line[0], SIGMA, samples=2000).eval()
    with seeded(model, seed(0)), torch.no_grad():
        share = model(x)[:, 1].exp().numpy()
    expected = norm.cdf(distances(line, x) / SIGMA)
    errors = (share - expected) / np.sqrt(expected * (1 - expected) / 2000)
    assert np.abs(errors).max() < 5
    assert 0.8 < errors.std() < 1.2


def test_attacks_go_through_the_noise(line):
    """With fresh noise, rows nearer to the line than eps are misclassified, and no certified row is."""
    ball = L2(0.2)
    x = 0.2 + 0.6 * inputs(9, 200)  # so that the box is out of reach
    y = (distances(line, x) > 0).long()
    model = Smoothed(line[0], SIGMA, samples=200).eval()
    with seeded(model, seed(0)):
        x_adv = PGD(ball, steps=10, step_size=1.0, early_stop=False)(model, x, y, generator=seed(1))
    judged = predict(line[0], x_adv, sigma=SIGMA, n=5000, generator=seed(2))
    misclassified = (judged != y) & (judged != ABSTAIN)
    near = distances(line, x).abs() < 0.75 * ball.eps
    certified = certify(line[0], x, sigma=SIGMA, n=5000, generator=seed(3)).holds(y, ball.eps)
    assert near.sum() > 20
    assert certified.sum() > 20
    assert misclassified[near].double().mean() > 0.95
    assert not misclassified[certified].any()


def test_smooth_adv_is_cross_entropy_under_the_noise_that_its_attack_saw(line):
    """Averaged over its copies: at radius 0 that of the noisy rows, else that of the rows eps nearer to the line."""
    x = 0.3 + 0.4 * inputs(10, 50)
    y = (distances(line, x) > 0).long()
    noise = SIGMA * RowNoise(x, seed(0)).normal((4, SIZE), 0)

    def by_hand(z):
        losses = [nn.functional.cross_entropy(line[0](z + noise[:, copy]), y, reduction="none") for copy in range(4)]
        return torch.stack(losses).mean(0)

    still = SmoothAdv(PGD(L2(0.0), steps=1), SIGMA, samples=4)(line[0], x, y, generator=seed(0))
    torch.testing.assert_close(still, by_hand(x))
    attack = PGD(L2(0.2), steps=60, step_size=0.5)
    moved = SmoothAdv(attack, SIGMA, samples=4)(line[0], x, y, generator=seed(0))
    towards = line[1] / line[1].norm() * (1 - 2 * y[:, None])
    torch.testing.assert_close(moved, by_hand(x + 0.2 * towards), rtol=1e-6, atol=1e-6)
    single = GaussianNoise(SIGMA)(line[0], x, y, generator=seed(0))
    copy = SIGMA * RowNoise(x, seed(0)).normal((SIZE,), 0)
    torch.testing.assert_close(single, nn.functional.cross_entropy(line[0](x + copy), y, reduction="none"))


def test_training_under_noise_is_what_makes_smoothing_worth_it():
    """On digits more rows are certified at radius 0.4 than with a network that never saw noise."""
    data = load_digits()
    x, y = torch.tensor(data.images, dtype=torch.float32)[:, None] / 16, torch.tensor(data.target, dtype=torch.int64)
    train, shares = Dataset(x[:1000], y[:1000], tuple("0123456789"), "digits"), []
    for objective in (Standard(), GaussianNoise(0.25), SmoothAdv(PGD(L2(0.25), steps=2, step_size=0.7), 0.25)):
        model = StridedCNN()((1, 8, 8), 10, generator=seed(0))
        Fit(epochs=8)(model, train, objective, generator=seed(1))
        certificate = certify(model, x[1000:1200], sigma=0.25, n0=50, n=400, generator=seed(2))
        shares.append(certificate.holds(y[1000:1200], 0.4).double().mean().item())
    standard, noise, adversarial = shares
    assert noise > standard + 0.1
    assert adversarial > standard + 0.1


@pytest.mark.parametrize("name", ["defense/smoothing", "objective/gaussian_noise", "objective/smooth_adv"])
def test_configurations_make_what_they_say(name, line):
    """Each is called in the way of its kind."""
    made = instantiate(OmegaConf.load(ROOT / "configs" / f"{name}.yaml"))
    if isinstance(made, Smoothing):
        assert isinstance(made(line[0]), Smoothed)
        return
    x = inputs(0, 5)
    assert made(line[0], x, torch.ones(5, dtype=torch.int64), generator=seed(0)).shape == (5,)


def test_what_cannot_be_certified_is_refused(line):
    """With what was given and the mend; a model that answers NaN would have its noise samples counted for one class."""
    x = inputs(0, 2)
    with pytest.raises(ValueError, match="sigma, the noise .* must be positive, got 0"):
        certify(line[0], x, sigma=0, generator=seed(0))
    with pytest.raises(ValueError, match=r"alpha, .* must lie in \(0, 1\), got 1"):
        predict(line[0], x, sigma=1, alpha=1, generator=seed(0))
    with pytest.raises(ValueError, match="n0 counts noisy copies .* at least 1, got 0"):
        certify(line[0], x, sigma=1, n0=0, generator=seed(0))
    with pytest.raises(ValueError, match="training mode"):
        certify(nn.Sequential(line[0]).train(), x, sigma=1, generator=seed(0))
    line[0].eval()
    with pytest.raises(ValueError, match=r"inputs must lie in \[0, 1\]"):
        certify(line[0], 2 * x + 1, sigma=1, generator=seed(0))
    with pytest.raises(ValueError, match="logits are NaN"):
        certify(nn.Sequential(line[0], nn.Softplus(), Nothing()).eval(), x, sigma=1, generator=seed(0))
    with pytest.raises(ValueError, match="no generator is bound"):
        Smoothed(line[0], 1.0).eval()(x)


class Nothing(nn.Module):
    def forward(self, x):
        return x * torch.nan
