"""Detectors and the reject option: scores, thresholds, and the attacker who knows of them."""

import copy
from functools import partial

import pytest
import torch
from scipy.stats import beta

from aisec_lab.attacks import BPDA, PGD, Adaptive, DetectorAwareMargin, EvadeDetector, Linf
from aisec_lab.defenses import (
    LID,
    BitDepth,
    Energy,
    FeatureSqueezing,
    Mahalanobis,
    MedianFilter,
    NearestNeighbours,
    RejectingModel,
    RejectOption,
    calibrated,
    scores_of,
    threshold_at,
)
from aisec_lab.defenses.detection.detectors import features
from aisec_lab.models import frozen, logits_of

DETECTORS = [Energy(), FeatureSqueezing((BitDepth(3),)), Mahalanobis(), NearestNeighbours(), LID()]
EPS = 0.15


def seed(number):
    return torch.Generator().manual_seed(number)


@pytest.fixture(scope="module")
def guarded(splits, classifier):
    """Gives the classifier with a detector in front, calibrated on rows that neither has seen."""
    train, clean = splits.train, splits.splits["clean"]
    return lambda detector: calibrated(detector.fit(train.x, train.y, model=classifier), clean.x, fpr=0.05)


@pytest.fixture(scope="module")
def attacked(splits, classifier):
    """100 test digits, and the points that plain PGD finds."""
    x, y = splits.test.x[:100], splits.test.y[:100]
    return x, y, PGD(Linf(EPS))(classifier, x, y, generator=seed(0))


def wins(model, x, y):
    return (EvadeDetector().margin(logits_of(model, x), y) < 0).double().mean().item()


@pytest.mark.parametrize("detector", DETECTORS, ids=repr)
def test_plain_points_are_detected_and_the_attacker_who_knows_does_better(detector, guarded, attacked, splits):
    """At a false positive rate of 5 % plain points are rejected; against the whole the attacker wins more often."""
    x, y, x_adv = attacked
    model = guarded(detector)
    clean, plain = scores_of(model.fitted, splits.test.x), scores_of(model.fitted, x_adv)
    rejected, caught = ((scores > model.threshold).double().mean() for scores in (clean, plain))
    assert (plain[:, None] > clean).double().mean() > 0.7  # the area under the ROC curve
    assert rejected < 0.1
    assert caught > 2 * rejected
    view = BPDA() if isinstance(detector, FeatureSqueezing) else lambda model: model
    knowing = Adaptive(Linf(EPS), partial(PGD, loss=DetectorAwareMargin(), goal=EvadeDetector()), view)
    found = knowing(model, x, y, generator=seed(0))
    assert wins(model, found, y) > wins(model, x_adv, y) + 0.05
    assert (Linf(EPS).norm(found - x) <= EPS + 1e-6).all()


@pytest.mark.parametrize("detector", DETECTORS, ids=repr)
def test_rejected_means_above_the_threshold(detector, guarded, attacked):
    """Column K wins exactly there; the other columns are the model's, whatever the scale; the model stays as it was."""
    x, _, x_adv = attacked
    model = guarded(detector)
    z = torch.cat([x, x_adv])
    logits = logits_of(model, z)
    above = scores_of(model.fitted, z) > model.threshold
    assert logits.shape == (200, 11)
    assert torch.equal(logits.argmax(1) == 10, above)
    assert torch.equal(logits[:, :10], logits_of(model.fitted.model, z))
    assert 0 < above.sum() < 200
    other = RejectingModel(model.fitted, model.threshold, scale=7 * model.scale)
    assert torch.equal(logits_of(other, z).argmax(1), logits.argmax(1))
    assert not any(module.training for module in model.modules())


@pytest.mark.parametrize("detector", [d for d in DETECTORS if not isinstance(d, FeatureSqueezing)], ids=repr)
def test_the_score_has_a_gradient(detector, guarded, attacked):
    """The one by backpropagation points uphill: a small step along it raises nearly every score."""
    z = attacked[2].double()
    fitted = copy.deepcopy(guarded(detector).fitted).double()
    with frozen(fitted):
        moving = z.clone().requires_grad_()
        (grad,) = torch.autograd.grad(fitted.score(moving).sum(), moving)
        raised = fitted.score(z + 1e-5 * grad.sign()) > fitted.score(z)
    assert raised.double().mean() > 0.95


def test_feature_squeezing_is_its_formula(classifier, attacked):
    """The largest L1 distance of the softmaxes, over the squeezers."""
    x = attacked[2]
    squeezers = (BitDepth(2), MedianFilter())
    found = FeatureSqueezing(squeezers).fit(x[:1], attacked[1][:1], model=classifier).score(x)
    p = classifier(x).softmax(1)
    each = [(p - squeezer(classifier)(x).softmax(1)).abs().sum(1) for squeezer in squeezers]
    torch.testing.assert_close(found, torch.maximum(*each))


def test_energy_is_its_formula(classifier, attacked):
    """-T log sum exp(z / T)."""
    x, y, _ = attacked
    found = Energy(2.0).fit(x, y, model=classifier).score(x)
    torch.testing.assert_close(found, -2 * (classifier(x) / 2).exp().sum(1).log())


def test_mahalanobis_is_its_formula(classifier, splits, attacked):
    """(f - mu)' C^+ (f - mu) for the nearest mean, with one pooled covariance."""
    train, x = splits.train, attacked[0]
    with torch.no_grad():
        seen, new = features(classifier, train.x).double(), features(classifier, x).double()
        found = Mahalanobis().fit(train.x, train.y, model=classifier).score(x).double()
    means = [seen[train.y == c].mean(0) for c in range(10)]
    centred = torch.cat([seen[train.y == c] - means[c] for c in range(10)])
    precision = torch.linalg.pinv(centred.T @ centred / len(centred), rtol=1e-6, hermitian=True)
    each = torch.stack([((new - mean) @ precision * (new - mean)).sum(1) for mean in means])
    torch.testing.assert_close(found, each.amin(0), rtol=1e-3, atol=1e-3)


def test_neighbours_are_found_by_their_distances(classifier, splits, attacked):
    """kNN and LID against sorted lists of distances, row by row."""
    reference, x, y = splits.train.x[:60], attacked[0], splits.train.y[:60]
    with torch.no_grad():
        seen, new = features(classifier, reference).double(), features(classifier, x).double()
        nearest = NearestNeighbours(5).fit(reference, y, model=classifier).score(x)
        dimension = LID(5).fit(reference, y, model=classifier).score(x)
    for row in range(len(x)):
        unit = [(new[row] / new[row].norm() - other / other.norm()).norm().item() for other in seen]
        assert nearest[row].item() == pytest.approx(sorted(unit)[4], abs=1e-5)
        r = torch.tensor(sorted((new[row] - other).norm().item() for other in seen)[:5])
        assert dimension[row].item() == pytest.approx(-1 / (r / r[-1]).log().mean().item(), rel=1e-3)


def test_local_dimension_is_that_of_the_data():
    """Points spread over a plane have dimension 2, over a volume 3, whatever the space around them (k = 100)."""
    model = torch.nn.Linear(5, 2)  # its inputs are the features
    for dimension in (2, 3):
        x = torch.zeros(2000, 5)
        x[:, :dimension] = torch.rand(2000, dimension, generator=seed(dimension))
        middle = torch.zeros(50, 5)
        middle[:, :dimension] = 0.4 + 0.2 * torch.rand(50, dimension, generator=seed(9))
        found = LID(100).fit(x, torch.zeros(2000).long(), model=model).score(middle)
        assert found.mean().item() == pytest.approx(dimension, rel=0.1)


@pytest.mark.parametrize(("n", "fpr"), [(200, 0.05), (99, 0.1)])
def test_the_threshold_holds_its_rate(n, fpr):
    """Over 2,000 calibrations on uniform scores, the true rate is Beta(n + 1 - k, k) distributed, mean at most fpr."""
    scores = torch.rand(2000, n, generator=seed(0), dtype=torch.float64)
    rates = 1 - torch.tensor([threshold_at(row, fpr) for row in scores])
    above = int(fpr * (n + 1))  # scores at or above the threshold, of n
    law = beta(above, n + 1 - above)
    assert law.mean() <= fpr + 1e-12
    assert abs(rates.mean().item() - law.mean()) < 4 * law.std() / 2000**0.5
    assert abs((rates < law.median()).double().mean().item() - 0.5) < 4 * 0.5 / 2000**0.5


def test_the_option_is_made_from_the_training_rows(splits, classifier):
    """Three quarters for the detector, the others for the threshold: it is exceeded by 5 % of these and no more."""
    model = RejectOption(Mahalanobis(), fpr=0.05)(classifier, data=splits)
    again = RejectOption(Mahalanobis(), fpr=0.05)(classifier, data=splits)
    rejected = (logits_of(model, splits.train.x).argmax(1) == 10).double().mean()
    assert 0.01 < rejected < 0.06
    assert torch.equal(logits_of(model, splits.test.x), logits_of(again, splits.test.x))


def test_what_cannot_be_calibrated_or_measured_is_refused(classifier, splits):
    """Too few rows for the rate, rates and settings outside their range, no data, a model without features."""
    with pytest.raises(ValueError, match=r"0\.05 needs at least 19 rows: 18"):
        threshold_at(torch.rand(18), 0.05)
    assert threshold_at(torch.arange(19.0), 0.05) == 18
    for fpr in (0.0, 1.0):
        with pytest.raises(ValueError, match="must lie in"):
            threshold_at(torch.rand(50), fpr)
    with pytest.raises(ValueError, match="data=splits"):
        RejectOption(Energy())(classifier)
    with pytest.raises(ValueError, match=r"no nn\.Linear"):
        features(torch.nn.Flatten(), torch.rand(2, 3))
    with pytest.raises(ValueError, match="lower k"):
        LID(20).fit(splits.test.x[:20], splits.test.y[:20], model=classifier)
    makes = [lambda: Energy(0), lambda: LID(1), lambda: NearestNeighbours(0), lambda: FeatureSqueezing(())]
    for make in makes:
        with pytest.raises(ValueError, match="must be|at least one"):
            make()
