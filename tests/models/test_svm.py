"""Support vector machines: equal to those that scikit-learn trained, and attacked as far as a closed form says."""

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits
from sklearn.svm import SVC
from torch import Tensor

from aisec_lab.attacks import DDN, FMN, L2, MinimumNormAttack
from aisec_lab.models import SVM


def seed(value: int) -> torch.Generator:
    return torch.Generator().manual_seed(value)


def as_module(svc: SVC) -> SVM:
    """The arrays of a trained SVC, as they would come from another kernel."""
    gamma = svc._gamma if svc.kernel == "rbf" else None
    return SVM(svc.support_vectors_, svc.dual_coef_[0], svc.intercept_[0], gamma).eval()


@pytest.fixture(scope="module")
def digits() -> tuple[np.ndarray, np.ndarray]:
    """Digits 3 and 7, float64 (N, 64) in [0, 1], and which of them are a 7."""
    x, y = load_digits(return_X_y=True)
    chosen = np.isin(y, (3, 7))
    return x[chosen] / 16, (y[chosen] == 7).astype(int)


@pytest.mark.parametrize("kernel", ["linear", "rbf"])
def test_it_is_the_svm_that_scikit_learn_trained(kernel: str, digits: tuple[np.ndarray, np.ndarray]) -> None:
    """The lead of class 1 is the decision function, to the last digits of float64, whatever the shape of an input."""
    x, y = digits
    svc = SVC(kernel=kernel, C=0.1, gamma=0.5).fit(x[::2], y[::2])
    model, images = as_module(svc), torch.from_numpy(x).view(-1, 1, 8, 8)
    logits = model(images)
    assert logits.shape == (len(x), 2)
    assert np.abs((logits[:, 1] - logits[:, 0]).numpy() - svc.decision_function(x)).max() < 1e-12
    assert (logits.argmax(1).numpy() == svc.predict(x)).all()
    assert torch.equal(model(images.float()), logits.float()), "digits are exact in float32: the same function"


@pytest.mark.parametrize("gamma", [None, 0.7])
def test_it_can_be_differentiated(gamma: float | None) -> None:
    """As finite differences have it, at a support vector too."""
    s = torch.rand(5, 3, generator=seed(0), dtype=torch.float64)
    model = SVM(s, torch.randn(5, generator=seed(1)), 0.2, gamma).eval()
    x = torch.cat([s[:1], torch.rand(3, 3, generator=seed(2), dtype=torch.float64)]).requires_grad_()
    assert torch.autograd.gradcheck(model, (x,))


def to_the_hyperplane(x: Tensor, w: Tensor, b: Tensor) -> Tensor:
    """Distances of rows to w . x + b = 0 inside the box: the shortest way is min(t |w|, room), t by bisection."""
    f = x @ w + b
    rise = -f.sign()[:, None] * w
    room = torch.where(rise > 0, 1 - x, x)
    low, high = torch.zeros(len(x), 1, dtype=x.dtype), torch.full((len(x), 1), 1e6, dtype=x.dtype)
    for _ in range(200):
        middle = (low + high) / 2
        short = (rise.abs() * torch.minimum(middle * rise.abs(), room)).sum(1, keepdim=True) < f.abs()[:, None]
        low, high = torch.where(short, middle, low), torch.where(short, high, middle)
    return torch.minimum(low * rise.abs(), room).norm(dim=1)


@pytest.mark.parametrize("attack", [DDN(steps=300), FMN(L2(0), steps=200)], ids=lambda attack: type(attack).__name__)
def test_a_linear_svm_is_evaded_at_its_distance(
    attack: MinimumNormAttack, digits: tuple[np.ndarray, np.ndarray]
) -> None:
    """On digits, where the box binds almost everywhere, and never nearer than can be."""
    svc = SVC(kernel="linear", C=0.1).fit(*digits)
    x, y = torch.from_numpy(digits[0][::8]), torch.from_numpy(digits[1][::8])
    exact = to_the_hyperplane(x, torch.tensor(svc.coef_[0]), torch.tensor(svc.intercept_))
    distance = attack(as_module(svc), x, y, generator=seed(0)).distance
    assert (torch.from_numpy(svc.predict(x)) == y).all(), "else a distance is 0"
    assert (distance >= exact * (1 - 1e-9)).all()
    assert (distance <= exact * 1.01).all()


def test_an_rbf_svm_of_two_support_vectors_is_evaded_half_way() -> None:
    """Equally weighted, they are equally near on their bisector, whatever gamma is: a closed form for a curved f."""
    s = 0.4 + 0.2 * torch.rand(2, 6, generator=seed(0), dtype=torch.float64)
    model = SVM(s, torch.tensor([-1.0, 1.0]), 0.0, gamma=3.0).eval()
    x = 0.4 + 0.2 * torch.rand(40, 6, generator=seed(1), dtype=torch.float64)
    w, b = s[1] - s[0], ((s[0] ** 2).sum() - (s[1] ** 2).sum()) / 2
    y = (x @ w + b > 0).long()
    distance = FMN(L2(0), steps=200)(model, x, y, generator=seed(0)).distance
    exact = (x @ w + b).abs() / w.norm()
    assert (distance >= exact * (1 - 1e-9)).all()
    assert (distance <= exact * 1.01).all()


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ((torch.zeros(4, 2), torch.zeros(3), 0.0), r"got shapes \[\(4, 2\), \(3,\), \(\)\]"),
        ((torch.zeros(4, 2), torch.zeros(1, 4), torch.zeros(1)), "those of one pair of classes"),
        ((torch.zeros(4, 2), torch.zeros(4), 0.0, -0.5), "gamma must be positive, or None for the linear kernel"),
    ],
)
def test_arrays_that_make_no_svm_are_refused(arrays: tuple[object, ...], message: str) -> None:
    """With their shapes, or the number."""
    with pytest.raises(ValueError, match=message):
        SVM(*arrays)
