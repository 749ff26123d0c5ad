"""Training for interval bounds, and what bounds say of a published network."""

import os
from pathlib import Path

import numpy as np
import pytest
import torch
from hydra.utils import instantiate
from omegaconf import OmegaConf
from sklearn.datasets import load_digits
from torch import nn

from aisec_lab.attacks import APGD, Linf
from aisec_lab.data import Dataset
from aisec_lab.defenses import IBP, IntervalLoss, crown_margin, ibp_margin
from aisec_lab.defenses.bounds.training import RadiusSchedule
from aisec_lab.evaluation import bracket, certified_by_bounds, security_curve, worst_case
from aisec_lab.models import Fit, StridedCNN
from tests.clone import ROOT


def seed(number):
    return torch.Generator().manual_seed(number)


@pytest.fixture(scope="module")
def digits():
    data = load_digits()
    x, y = torch.tensor(data.images, dtype=torch.float32)[:, None] / 16, torch.tensor(data.target, dtype=torch.int64)
    return Dataset(x, y, tuple("0123456789"), "digits")


@pytest.fixture(scope="module")
def certifiable(digits):
    """StridedCNN trained with IBP at Linf 0.05 on 1,000 digits."""
    model = StridedCNN()((1, 8, 8), 10, generator=seed(0))
    Fit(epochs=20)(model, digits.subset(torch.arange(1000)), IBP(Linf(0.05)), generator=seed(1))
    return model


def test_training_for_intervals_makes_them_certify(certifiable, digits):
    """More than half of the test digits, of which an untrained bound certifies none; and the bracket holds."""
    ball, test = Linf(0.05), digits.subset(torch.arange(1000, 1200))
    rows, _ = security_curve(APGD(ball, steps=20), certifiable, test, [0.02, 0.05], seed=0)
    stands = worst_case(rows.assign(attack="apgd_ce"), ["knob", "level"])
    accuracies = []
    for margin in (ibp_margin, crown_margin):
        records = certified_by_bounds(margin, certifiable, test, ball, [0.02, 0.05])
        accuracies.append(bracket(records, stands).set_index("level"))
    interval, crown = accuracies
    assert interval.certified_accuracy[0.05] > 0.5
    assert (interval.certified_accuracy <= crown.certified_accuracy).all()
    assert (crown.certified_accuracy <= crown.robust_accuracy).all()
    assert crown.robust_accuracy[0.05] > 0.7


def test_the_worst_case_loss_bounds_the_loss_under_attack(certifiable, digits):
    """At kappa = 0 it is above the cross-entropy of every adversarial input; at 1 it is that of the clean one."""
    x, y = digits.x[1200:1300], digits.y[1200:1300]
    x_adv = APGD(Linf(0.05), steps=20)(certifiable, x, y, generator=seed(0))
    worst = IntervalLoss(Linf(0.05), kappa=0.0)(certifiable, x, y, generator=seed(0))
    under_attack = nn.functional.cross_entropy(certifiable(x_adv), y, reduction="none")
    clean = nn.functional.cross_entropy(certifiable(x), y, reduction="none")
    assert (worst >= under_attack - 1e-5).all()
    torch.testing.assert_close(IntervalLoss(Linf(0.05), kappa=1.0)(certifiable, x, y, generator=seed(0)), clean)
    torch.testing.assert_close(
        IntervalLoss(Linf(0.0), kappa=0.0)(certifiable, x, y, generator=seed(0)), clean, rtol=1e-4, atol=1e-4
    )


def test_the_radius_rises_with_the_updates_and_a_resumed_run_goes_on_where_it_was(digits, tmp_path, monkeypatch):
    """From 0 to the goal in 60 % of them, then it stays; killed in the third epoch, the run ends at the same bits."""
    few, fit = digits.subset(torch.arange(100)), Fit(epochs=5, batch_size=50)
    shares, step = [], RadiusSchedule.step

    def watched(self, *args):
        losses = step(self, *args)
        shares.append(self.share)
        return losses

    monkeypatch.setattr(RadiusSchedule, "step", watched)
    models = [StridedCNN(4, 8)((1, 8, 8), 10, generator=seed(0)) for _ in range(3)]
    fit(models[0], few, IBP(Linf(0.1)), generator=seed(1))
    assert shares == pytest.approx([0, 1 / 6, 2 / 6, 3 / 6, 4 / 6, 5 / 6, 1, 1, 1, 1])

    def killed(self, *args):
        if self.share > 0.5:
            raise KeyboardInterrupt
        return watched(self, *args)

    monkeypatch.setattr(RadiusSchedule, "step", killed)
    with pytest.raises(KeyboardInterrupt):
        fit(models[1], few, IBP(Linf(0.1)), generator=seed(1), resume=tmp_path / "run")
    monkeypatch.setattr(RadiusSchedule, "step", watched)
    fit(models[2], few, IBP(Linf(0.1)), generator=seed(9), resume=tmp_path / "run")
    assert all(torch.equal(p, q) for p, q in zip(models[0].parameters(), models[2].parameters(), strict=True))


def test_configuration_and_its_limits():
    """`${ball}` is the study's threat model; kappa is a share."""
    cfg = OmegaConf.create({"ball": OmegaConf.load(ROOT / "configs/ball/linf.yaml")})
    cfg.objective = OmegaConf.load(ROOT / "configs/objective/ibp.yaml")
    assert instantiate(cfg.objective) == IBP(instantiate(cfg.ball))
    assert instantiate(OmegaConf.load(ROOT / "configs/model/strided_cnn.yaml")) == StridedCNN()
    with pytest.raises(ValueError, match=r"kappa .* in \[0, 1\], got 1.5"):
        IBP(Linf(0.1), kappa=1.5)


@pytest.mark.mirror
def test_a_published_network_is_certified_as_published_and_no_attack_breaks_it():
    """Wong & Kolter (2018): certified error 5.8 % on MNIST at Linf 0.1, on all 10,000; here on the first 50."""
    if "AISEC_MIRROR" not in os.environ:
        pytest.skip("AISEC_MIRROR names no directory")
    mirror = Path(os.environ["AISEC_MIRROR"])
    model = nn.Sequential(*list(StridedCNN()((1, 28, 28), 10, generator=seed(0)))[1:])
    weights = torch.load(mirror / "models/convex_adversarial/mnist_0_1.pth", weights_only=True, map_location="cpu")
    model.load_state_dict(weights)
    with np.load(mirror / "mnist/mnist.npz") as arrays:
        x, y = torch.tensor(arrays["x_test"][:50]), torch.tensor(arrays["y_test"][:50], dtype=torch.int64)
    test = Dataset(x[:, None].float() / 255, y, tuple("0123456789"), "mnist")
    rows, _ = security_curve(APGD(Linf(0.1)), model.eval(), test, [0.1], seed=0)
    records = certified_by_bounds(crown_margin, model, test, Linf(0.1), [0.1])
    (level,) = bracket(records, worst_case(rows.assign(attack="apgd_ce"), ["knob", "level"])).itertuples()
    assert level.certified_accuracy >= 1 - 0.058 - 0.02
