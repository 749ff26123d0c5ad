"""Membership inference: signals against exact arithmetic, attacks against closed forms, loops and TF Privacy."""

import json
import math
import subprocess

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from jupyter_client.kernelspec import KernelSpecManager
from mpmath import mp, mpf
from scipy.stats import norm

from aisec_lab.attacks import Oracle
from aisec_lab.attacks.inference.inclusion import inclusion_mask
from aisec_lab.attacks.inference.label_only import (
    FlipPerturbation,
    LabelOnly,
    NoisePerturbation,
    TranslationPerturbation,
)
from aisec_lab.attacks.inference.lira import LiRA, OfflineLiRA
from aisec_lab.attacks.inference.rmia import RMIA, OfflineRMIA
from aisec_lab.attacks.inference.shadow_classifier import ShadowClassifier
from aisec_lab.attacks.inference.signals import (
    ConfidenceSignal,
    EntropySignal,
    LossSignal,
    ModifiedEntropySignal,
    ScaledLogitSignal,
)
from aisec_lab.data import Dataset
from aisec_lab.models import MLP, Fit
from aisec_lab.models.training.fit_stack import ModelStack, fit_stack
from tests.odd_models import rows_of_logits

INSTALLED = "aisec-legacy" in KernelSpecManager().find_kernel_specs()
ATTACKS = [LiRA(), LiRA(pooled=0), OfflineLiRA(), OfflineLiRA(pooled=0), RMIA(), RMIA(2.0), OfflineRMIA(0.6)]
SIGNALS = [LossSignal(), ConfidenceSignal(), EntropySignal(), ModifiedEntropySignal(), ScaledLogitSignal()]


def exact(signal, row, y):
    """The signal of one row of logits, from the definition in the papers, with 400 digits."""
    with mp.workdps(400):
        powers = [mp.exp(mpf(value)) for value in row]
        p = [power / sum(powers) for power in powers]
        return float(
            {
                LossSignal: lambda: mp.log(p[y]),
                ConfidenceSignal: lambda: mp.log(max(p)),
                EntropySignal: lambda: sum(q * mp.log(q) for q in p),
                ModifiedEntropySignal: lambda: (
                    (1 - p[y]) * mp.log(p[y]) + sum(q * mp.log(1 - q) for i, q in enumerate(p) if i != y)
                ),
                ScaledLogitSignal: lambda: mp.log(p[y]) - mp.log(1 - p[y]),
            }[type(signal)]()
        )


@pytest.mark.parametrize("signal", SIGNALS, ids=lambda signal: type(signal).__name__)
@given(row=rows_of_logits(150, 5), y=st.integers(0, 4))
@settings(max_examples=60, deadline=None)
def test_a_signal_is_its_definition_however_confident_the_answer(signal, row, y):
    """Where 1 - p would round to 0, or p underflow in float32, too; for several models as for each."""
    y %= len(row)
    logits, label = torch.tensor([row], dtype=torch.float64), torch.tensor([y])
    expected = exact(signal, row, y)
    least = 1e-12 if isinstance(signal, ScaledLogitSignal) else 1e-200  # it alone may be 0 between two large logits
    alone, together = signal(logits, label), signal(logits[None].expand(3, -1, -1), label)
    assert alone.item() == pytest.approx(expected, rel=1e-9, abs=least)
    assert together.tolist() == [[pytest.approx(alone.item(), rel=1e-12, abs=least)]] * 3  # lanes round apart


def test_confident_answers_are_told_apart():
    """40, 60 and 90 nats of margin are one probability in float64, and three signals in order; wrong ones lie below."""
    logits, y = (
        torch.tensor([[-60.0, 0], [-5, 0], [5, 0], [40, 0], [60, 0], [90, 0]]),
        torch.zeros(6, dtype=torch.int64),
    )
    for signal in (LossSignal(), ModifiedEntropySignal(), ScaledLogitSignal()):
        scores = signal(logits, y)
        assert torch.isfinite(scores).all()
        assert (scores.diff() > 0).all()


@pytest.mark.parametrize(
    ("logits", "y", "message"),
    [
        (torch.zeros(3, 1), torch.zeros(3).long(), "with C >= 2"),
        (torch.zeros(3, 4), torch.zeros(2).long(), r"got \(3, 4\) and \(2,\)"),
        (torch.tensor([[0.0, -torch.inf]]), torch.zeros(1).long(), "must be finite"),
        (torch.tensor([[0.25, 0.75]]), torch.zeros(1).long(), "no logits"),
        (torch.zeros(1, 2), torch.tensor([2]), r"must lie in 0\.\.1, got 2\.\.2"),
    ],
)
def test_logits_that_a_signal_cannot_read_are_refused(logits, y, message):
    with pytest.raises(ValueError, match=message):
        ScaledLogitSignal()(logits, y)


def test_coins_are_fair_and_independent(seed):
    """Shares of heads, of pairs within a model and within a record; the same from the same seed."""
    coins = inclusion_mask(200, 300, generator=seed(0))
    assert torch.equal(coins, inclusion_mask(200, 300, generator=seed(0)))
    centred = 2 * coins.double() - 1
    for mean in (centred.mean(), (centred[1:] * centred[:-1]).mean(), (centred[:, 1:] * centred[:, :-1]).mean()):
        assert abs(mean) < 4 / 60_000**0.5
    with pytest.raises(ValueError, match="got 0 and 5"):
        inclusion_mask(0, 5, generator=seed(0))


def matrix(models=9, records=40, number=0, gap=1.5):
    """Signals that are logarithms of probabilities: normal for each record, higher by `gap` for members."""
    generator = torch.Generator().manual_seed(number)
    included = inclusion_mask(models, records, generator=generator)
    where, noise = (
        torch.randn(shape, generator=generator, dtype=torch.float64) for shape in (records, (models, records))
    )
    return -torch.nn.functional.softplus(-(where + noise + gap * included)), included


def by_hand(attack, signals, included, k):
    """Scores of model k from the others, record by record, from the papers' definitions."""
    shadows, coins, target = (np.delete(each.numpy(), k, axis=0) for each in (signals, included, included))
    target = signals[k].numpy()
    n = shadows.shape[1]
    values = np.exp(shadows) if isinstance(attack, RMIA | OfflineRMIA) else shadows
    sides = {}
    for name, side in (("in", coins), ("out", ~coins)):
        own = [values[side[:, j], j] for j in range(n)]
        usual = np.mean([part.mean() for part in own if len(part)])
        sides[name] = {
            "mean": np.array([part.mean() if len(part) else usual for part in own]),
            "own": np.array([part.var() if len(part) else 0 for part in own]),
            "pooled": np.concatenate([part - part.mean() for part in own if len(part)]).var(),
        }
    if isinstance(attack, RMIA | OfflineRMIA):
        outside = sides["out"]["mean"]
        marginal = (
            (sides["in"]["mean"] + outside) / 2
            if isinstance(attack, RMIA)
            else ((1 + attack.a) * outside + 1 - attack.a) / 2
        )
        ratio = np.exp(target) / marginal
        return [float(np.mean([ratio[x] / ratio[z] >= attack.gamma for z in range(n)])) for x in range(n)]
    which = "pooled" if attack.pooled else "own"
    spread = {name: np.sqrt(np.maximum(side[which], 1e-12)) for name, side in sides.items()}
    if isinstance(attack, OfflineLiRA):
        return (target - sides["out"]["mean"]) / spread["out"]
    density = {name: norm.logpdf(target, sides[name]["mean"], spread[name]) for name in sides}
    return density["in"] - density["out"]


@pytest.mark.parametrize("attack", ATTACKS, ids=repr)
@pytest.mark.parametrize("models", [4, 9])
def test_every_model_in_turn_is_the_loop_over_models(attack, models):
    """One by one, by hand, and all at once; with four, some records have no shadow model on one side."""
    signals, included = matrix(models)
    together = attack.leave_one_out(signals, included)
    for k in range(models):
        others = torch.arange(models) != k
        alone = attack(signals[k], signals[others], included[others])
        assert alone.numpy() == pytest.approx(np.array(by_hand(attack, signals, included, k)), rel=1e-6, abs=1e-9)
        assert together[k].numpy() == pytest.approx(alone.numpy(), rel=1e-6, abs=1e-9)


@pytest.mark.parametrize("attack", ATTACKS, ids=repr)
def test_a_target_is_scored_without_its_own_coins(attack):
    """What the target was trained on is the question: turning its coins changes the others' scores and not its own."""
    signals, included = matrix(9)
    turned = included.clone()
    turned[3] = ~turned[3]
    before, after = attack.leave_one_out(signals, included), attack.leave_one_out(signals, turned)
    assert torch.allclose(before[3], after[3])
    assert not torch.allclose(before[4], after[4])


def test_lira_is_the_exact_likelihood_ratio_and_its_curve_the_best_there_is():
    """Normal signals of known mean and variance: with many shadows the score is the exact log ratio, and the curve
    is that of the most powerful test, TPR = Phi(gap / sigma - Phi^-1(1 - FPR))."""
    generator, gap, sigma = torch.Generator().manual_seed(0), 2.0, 1.5
    models, records = 400, 300
    included = inclusion_mask(models, records, generator=generator)
    means = 3 * torch.randn(records, generator=generator, dtype=torch.float64)
    noise = sigma * torch.randn(models, records, generator=generator, dtype=torch.float64)
    signals = means + gap * included + noise
    exact_ratio = (gap * (signals - means) - gap**2 / 2) / sigma**2
    online, offline = (
        LiRA(pooled=models).leave_one_out(signals, included),
        OfflineLiRA(models).leave_one_out(signals, included),
    )
    assert (online - exact_ratio).abs().mean() < 0.1
    assert (offline - (signals - means) / sigma).abs().mean() < 0.1
    for scores in (online, offline):
        outside = scores[~included].sort(descending=True).values
        for fpr in (0.001, 0.01, 0.1):
            found = (scores[included] > outside[int(fpr * len(outside))]).double().mean().item()
            best = norm.cdf(gap / sigma - norm.isf(fpr))
            spread = math.sqrt(
                best * (1 - best) / 60_000
                + norm.pdf(gap / sigma - norm.isf(fpr)) ** 2 * fpr / 60_000 / norm.pdf(norm.isf(fpr)) ** 2
            )
            assert found == pytest.approx(best, abs=4 * spread + 0.006 * best)  # the last for estimated means


def test_few_shadows_share_a_variance():
    """Up to 64 of them; by default nothing but their number decides."""
    signals, included = matrix(8)
    assert torch.equal(LiRA().leave_one_out(signals, included), LiRA(pooled=7).leave_one_out(signals, included))
    assert torch.equal(LiRA(pooled=6).leave_one_out(signals, included), LiRA(pooled=0).leave_one_out(signals, included))
    assert not torch.equal(
        LiRA(pooled=7).leave_one_out(signals, included), LiRA(pooled=6).leave_one_out(signals, included)
    )


def test_gamma_does_not_reorder_the_records_of_a_target():
    """It matters only between targets: within one, the share of beaten records grows with the ratio."""
    signals, included = matrix(9)
    first, second = (RMIA(gamma).leave_one_out(signals, included)[0] for gamma in (1.0, 3.0))
    order = first.argsort()
    assert (second[order].diff() >= 0).all()
    assert second.max() < first.max() == 1


def test_an_offline_attack_needs_no_model_trained_on_the_records():
    """And does not look at those that are; an online one says that they are missing."""
    signals, included = matrix(9)
    out = torch.zeros_like(included)
    for attack in (OfflineLiRA(), OfflineRMIA()):
        assert torch.isfinite(attack(signals[0], signals[1:], out[1:])).all()
        shifted = torch.where(included, signals - 5, signals)
        assert torch.equal(attack(signals[0], signals[1:], included[1:]), attack(signals[0], shifted[1:], included[1:]))
    for attack in (LiRA(), RMIA()):
        with pytest.raises(ValueError, match="no shadow model on a side"):
            attack(signals[0], signals[1:], out[1:])


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda s, i: LiRA().leave_one_out(s, i.float()), "included bool of the same shape"),
        (lambda s, i: LiRA().leave_one_out(s / 0, i), "signals must be finite"),
        (lambda s, i: LiRA()(s[0, 1:], s, i), "a finite signal for each of the 40 records"),
        (lambda s, i: RMIA().leave_one_out(-s, i), "logarithms of probabilities"),
        (lambda s, i: RMIA(gamma=0.5), "gamma must be at least 1"),
        (lambda s, i: OfflineRMIA(a=1.5), r"a must lie in \[0, 1\]"),
    ],
)
def test_what_does_not_fit_is_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call(*matrix(5))


REFERENCE = """
import json, sys
import numpy as np
from tensorflow_privacy.privacy.privacy_tests.membership_inference_attack import advanced_mia as mia
given = json.load(sys.stdin)
logits, y, included = (np.array(given[name]) for name in ("logits", "y", "included"))
logits = logits.astype(np.float64)
signals = np.stack([mia.calculate_statistic(each.copy(), y, option="logit") for each in logits])
split = [[signals[1:][side[1:, j], j][:, None] for j in range(len(y))] for side in (included, ~included)]
scores = {
    f"{option} {fixed}": mia.compute_score_lira(
        signals[0][:, None], *split, option=option, fix_variance=fixed, median_or_mean="mean"
    ).tolist()
    for option in ("both", "out") for fixed in (True, False)
}
json.dump({"signals": signals.tolist(), "scores": scores}, open(sys.argv[1], "w"))
"""


@pytest.mark.legacy
@pytest.mark.skipif(not INSTALLED, reason="there is no kernel aisec-legacy: `make legacy` makes it")
def test_scores_are_those_of_tf_privacy(tmp_path):
    """The same logits through its signal and its LiRA, online and offline, with one variance and with many.

    Its offline score is the density of the out models, two-sided; ours is the distance in their deviations.
    """
    python = KernelSpecManager().get_kernel_spec("aisec-legacy").argv[0]
    generator = torch.Generator().manual_seed(0)
    logits = 4 * torch.randn(17, 60, 5, generator=generator, dtype=torch.float64)
    y = torch.randint(5, (60,), generator=generator)
    included = inclusion_mask(17, 60, generator=generator)
    logits[..., 0] += 3 * included * (y == 0)
    given = {"logits": logits.tolist(), "y": y.tolist(), "included": included.tolist()}
    subprocess.run([python, "-c", REFERENCE, str(tmp_path / "theirs")], input=json.dumps(given), text=True, check=True)
    theirs = json.loads((tmp_path / "theirs").read_text())
    signals = ScaledLogitSignal()(logits, y)
    assert signals.numpy() == pytest.approx(np.array(theirs["signals"]), rel=1e-9)
    for pooled, fixed in ((64, True), (0, False)):
        online = LiRA(pooled)(signals[0], signals[1:], included[1:])
        assert online.numpy() == pytest.approx(-np.array(theirs["scores"][f"both {fixed}"]), rel=1e-6)


def test_translations_are_all_of_their_length_and_leave_black_behind():
    """2 d (d + 1) of them; the image's mass that leaves is lost, and one pixel moves where it is sent."""
    x = torch.zeros(1, 1, 7, 7)
    x[0, 0, 3, 3] = 1
    copies = list(TranslationPerturbation(2)(x, generator=torch.Generator()))
    places = {tuple((copy[0, 0] == 1).nonzero()[0].tolist()) for copy in copies}
    assert places == {(3 + i, 3 + j) for i in range(-2, 3) for j in range(-2, 3) if 0 < abs(i) + abs(j) <= 2}
    assert len(copies) == 12
    edge = torch.ones(1, 1, 7, 7)
    assert {float(copy.sum()) for copy in TranslationPerturbation(1)(edge, generator=torch.Generator())} == {42.0}


def test_disturbances_have_their_size_and_belong_to_their_row(seed):
    """Deviation and rate as stated, inside [0, 1], the same for a row alone and among others."""
    x = torch.full((200, 50), 0.5)
    moved = torch.stack(list(NoisePerturbation(0.1, copies=3)(x, generator=seed(0))))
    assert (moved - 0.5).std().item() == pytest.approx(0.1, rel=0.03)
    bits = (torch.rand(200, 50, generator=seed(1)) < 0.5).float()
    turned = torch.stack(list(FlipPerturbation(0.2, copies=3)(bits, generator=seed(0))))
    assert (turned != bits).double().mean().item() == pytest.approx(0.2, abs=4 * (0.16 / 30_000) ** 0.5)
    assert set(turned.unique().tolist()) == {0, 1}
    dark = torch.stack(list(NoisePerturbation(3.0, copies=2)(x, generator=seed(0))))
    assert (dark.min(), dark.max()) == (0, 1)
    for perturbation in (NoisePerturbation(copies=2), FlipPerturbation(copies=2)):
        whole, part = (list(perturbation(rows, generator=seed(4))) for rows in (bits, bits[50:60]))
        assert all(torch.equal(a[50:60], b) for a, b in zip(whole, part, strict=True))


def test_label_only_counts_right_answers_near_a_boundary(linear, seed):
    """On a linear model under normal noise inside the box: the share is Phi(margin / (sigma |w|)). Labels will do."""
    model, sigma, copies = linear(12, 2), 0.05, 1500
    x = 0.5 + 0.02 * torch.randn(6, 12, generator=seed(3), dtype=torch.float64)
    margin = model(x).diff(dim=1)[:, 0].detach()
    y, length = torch.ones(6, dtype=torch.int64), model[1].weight.diff(dim=0).norm().item()
    attack = LabelOnly(NoisePerturbation(sigma, copies))
    share = attack(model, x, y, generator=seed(0))
    expected = norm.cdf(margin.numpy() / (sigma * length))
    assert np.abs(share.numpy() - expected).max() < 4 * 0.5 / copies**0.5 + 1 / copies
    assert torch.equal(attack(Oracle(model, labels_only=True).eval(), x, y, generator=seed(0)), share)
    with pytest.raises(ValueError, match="training mode"):
        attack(model.train(), x, y, generator=seed(0))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: NoisePerturbation(0), "sigma must be positive"),
        (lambda: FlipPerturbation(1.0), r"rate must lie in \(0, 1\)"),
        (lambda: TranslationPerturbation(0), "at least one pixel, got 0"),
        (lambda: list(TranslationPerturbation()(torch.zeros(3, 4), generator=torch.Generator())), "only images"),
    ],
)
def test_disturbances_that_make_no_sense_are_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()


@pytest.fixture(scope="module")
def shadows():
    """Sixteen networks that remember random classes of half of 150 points: their logits, the classes, the coins."""
    generator = torch.Generator().manual_seed(0)
    x, y = torch.rand(150, 10, generator=generator), torch.randint(3, (150,), generator=generator)
    rows, included = Dataset(x, y, ("a", "b", "c"), "noise"), inclusion_mask(16, 150, generator=generator)
    stack = ModelStack(MLP((64,)), rows.shape, 3, [generator] * 16)
    fit_stack(stack, rows, included, fit=Fit(epochs=40, batch_size=16, learning_rate=0.01), generators=[generator] * 16)
    return stack.logits(x), y, included, stack, x


def power(scores, included):
    """How often a member's score is above a non-member's, ties half."""
    inside, outside = scores[included].double(), scores[~included].double()
    return ((inside[:, None] > outside).double() + 0.5 * (inside[:, None] == outside).double()).mean().item()


def test_every_attack_finds_what_networks_remember(shadows, seed):
    """Members' classes are learned by heart and say nothing of the others': each attack is far better than a guess."""
    logits, y, included, stack, x = shadows
    found = {type(signal).__name__: power(signal(logits, y), included) for signal in SIGNALS}
    found |= {
        repr(attack): power(attack.leave_one_out(LossSignal()(logits, y), included), included) for attack in ATTACKS
    }
    found["shadows"] = power(ShadowClassifier().two_fold(logits, y, included, generator=seed(0)), included)
    labels = [LabelOnly(NoisePerturbation(0.05, 20))(stack.unstacked(k), x, y, generator=seed(k)) for k in range(16)]
    found["labels"] = power(torch.stack(labels), included)
    weak = ("ConfidenceSignal", "EntropySignal")
    assert all(value > 0.75 for name, value in found.items() if name not in weak), found
    assert min(found[name] for name in weak) > 0.55
    assert found[repr(LiRA())] > found["LossSignal"] - 0.01


def test_the_shadow_classifier_learns_from_the_shadows_coins_alone(shadows, seed):
    """Turned coins turn its answer; and with coins thrown anew there is nothing to learn."""
    logits, y, included, *_ = shadows
    attack = ShadowClassifier(fit=Fit(epochs=10, batch_size=64))
    right = attack(logits[0], y, logits[1:], included[1:], generator=seed(0))
    wrong = attack(logits[0], y, logits[1:], ~included[1:], generator=seed(0))
    anew = attack(logits[0], y, logits[1:], inclusion_mask(15, 150, generator=seed(9)), generator=seed(0))
    assert right.shape == (150,)
    assert power(right, included[0]) > 0.75
    assert power(wrong, included[0]) < 0.25
    assert 0.3 < power(anew, included[0]) < 0.7
    with pytest.raises(ValueError, match="logits must be"):
        attack(logits[0], y[:5], logits[1:], included[1:], generator=seed(0))
