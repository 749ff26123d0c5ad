"""What training minimises, against naive second implementations."""

import copy
import math

import pytest
import torch
from torch.nn.functional import cosine_similarity

from aisec_lab.attacks import PGD, Linf, Margin
from aisec_lab.data import Dataset
from aisec_lab.defenses import (
    MART,
    AdversarialTraining,
    DefensiveDistillation,
    DistillationLoss,
    FastAdversarialTraining,
    Standard,
    WarmStart,
)
from aisec_lab.defenses.training.fast import misalignment
from aisec_lab.models import MLP, Fit, logits_of

EPOCHS = 20
ATTACK = PGD(Linf(0.1), steps=3, step_size=0.5, early_stop=False)


def seed(number):
    return torch.Generator().manual_seed(number)


@pytest.fixture
def batch(splits):
    return splits.test.x[:16].double(), splits.test.y[:16]


@pytest.fixture
def model(classifier):
    return copy.deepcopy(classifier).double().train()


def test_mart_is_its_formula(model, batch):
    """-log p_y - log(1 - max_{k != y} p_k) + beta KL(p || p') (1 - p_y), row by row."""
    x, y = batch
    losses = MART(ATTACK, beta=3.0)(model, x, y, generator=seed(0))
    x_adv = ATTACK(model.eval(), x, y, generator=seed(0))
    for row in range(len(x)):
        p, q = (model(z[row : row + 1]).softmax(1)[0].tolist() for z in (x, x_adv))
        true = int(y[row])
        highest = max(value for k, value in enumerate(q) if k != true)
        divergence = sum(a * math.log(a / b) for a, b in zip(p, q, strict=True))
        expected = -math.log(q[true]) - math.log(1 - highest) + 3 * divergence * (1 - p[true])
        assert losses[row].item() == pytest.approx(expected, rel=1e-6, abs=1e-9)


def test_mart_is_finite_where_a_wrong_class_is_certain():
    """1 - p rounds to zero; the loss stays a number with a gradient."""
    weights = torch.tensor([[0.0], [200.0], [0.0]], requires_grad=True)

    class Sure(torch.nn.Module):
        def forward(self, x):
            return x.flatten(1)[:, :1] @ weights.T

    model = Sure().eval()
    losses = MART(ATTACK)(model, torch.ones(2, 1), torch.tensor([0, 2]), generator=seed(0))
    losses.sum().backward()
    assert losses.isfinite().all()
    assert losses.min() > 300
    assert weights.grad.isfinite().all()
    assert weights.grad.abs().max() > 0.1


def test_fast_takes_one_step_from_the_random_start(model, batch):
    """clip(delta + 1.25 eps sign(grad)) by hand, then cross-entropy; one gradient more than standard training."""
    x, y = batch
    ball = Linf(0.1)
    losses = FastAdversarialTraining(ball)(model, x, y, generator=seed(0))
    z = (x + ball.sample(x, seed(0))).requires_grad_()
    (grad,) = torch.autograd.grad(torch.nn.functional.cross_entropy(model(z), y), z)
    x_adv = ((z.detach() + 0.125 * grad.sign()).clamp(x - 0.1, x + 0.1)).clamp(0, 1)
    torch.testing.assert_close(losses, torch.nn.functional.cross_entropy(model(x_adv), y, reduction="none"))


def test_gradalign_is_one_minus_the_cosine_and_teaches_the_weights(model, batch):
    """Against gradients taken row by row; its gradient reaches the weights, by a finite difference."""
    x, y = batch
    other = (x + Linf(0.1).sample(x, seed(1))).detach()
    found = misalignment(model, x, other, y)
    for row in range(len(x)):
        grads = []
        for point in (x, other):
            z = point[row : row + 1].clone().requires_grad_()
            loss = torch.nn.functional.cross_entropy(model(z), y[row : row + 1])
            grads.append(torch.autograd.grad(loss, z)[0].flatten())
        assert found[row].item() == pytest.approx(1 - cosine_similarity(*grads, dim=0).item(), abs=1e-9)

    weight = model[-1].weight
    (grad,) = torch.autograd.grad(found.sum(), weight)
    direction = torch.randn(weight.shape, generator=seed(2), dtype=weight.dtype)
    ends = []
    for sign in (1, -1):
        moved = copy.deepcopy(model)
        with torch.no_grad():
            moved[-1].weight.add_(sign * 1e-5 * direction)
        ends.append(misalignment(moved, x, other, y).sum().item())
    assert (grad * direction).sum().item() == pytest.approx((ends[0] - ends[1]) / 2e-5, rel=1e-4)


def test_alignment_is_added_by_its_weight(model, batch):
    """The same random start serves the step and the alignment."""
    x, y = batch
    ball = Linf(0.1)
    plain, aligned = (FastAdversarialTraining(ball, alignment=a)(model, x, y, generator=seed(0)) for a in (0, 0.5))
    extra = misalignment(model, x, x + ball.sample(x, seed(0)), y)
    torch.testing.assert_close(aligned, plain + 0.5 * extra)


def test_rows_without_a_gradient_count_as_aligned(batch):
    """A constant classifier: zero, with a graph, and no NaN behind it."""
    x, y = batch
    weight = torch.zeros(10, 64, dtype=torch.float64, requires_grad=True)

    class Flat(torch.nn.Module):
        def forward(self, x):
            return x.flatten(1) @ weight.T

    found = misalignment(Flat(), x, x.flip(0), y)
    assert not found.any()
    assert torch.autograd.grad(found.sum() + weight.sum(), weight)[0].isfinite().all()


def test_tempered_is_cross_entropy_at_a_temperature(model, batch):
    """With classes, and with a teacher's soft answers, which get no gradient."""
    x, y = batch
    log_p = (model(x) / 5).log_softmax(1)
    torch.testing.assert_close(DistillationLoss(5)(model, x, y, generator=seed(0)), -log_p[torch.arange(16), y])
    teacher = MLP((8,))((1, 8, 8), 10, generator=seed(0)).double().train()
    losses = DistillationLoss(5, teacher)(model, x, y, generator=seed(0))
    torch.testing.assert_close(losses, -((teacher(x) / 5).softmax(1) * log_p).sum(1))
    losses.sum().backward()
    assert all(p.grad is None for p in teacher.parameters())
    assert teacher.training


def distilled(dataset: Dataset, **given):
    model = MLP((64,))((1, 8, 8), 10, generator=seed(0))
    fit = Fit(epochs=EPOCHS, learning_rate=0.02)
    return model, fit(model, dataset, DefensiveDistillation(temperature=20), generator=seed(0), **given)


def test_distillation_trains_a_teacher_first_and_hides_behind_its_logits(splits):
    """Twice the epochs; right on clean digits; cross-entropy's gradient vanishes, that of the margin does not."""
    student, history = distilled(splits.train)
    assert [record["epoch"] for record in history] == list(range(2 * EPOCHS))
    x, y = splits.test.x[:200].clone().requires_grad_(), splits.test.y[:200]
    logits = student(x)
    assert (logits.argmax(1) == y).double().mean() > 0.9
    (grad,) = torch.autograd.grad(torch.nn.functional.cross_entropy(logits, y, reduction="sum"), x)
    assert (grad.flatten(1).abs().amax(1) < 1e-8).double().mean() > 0.5
    (grad,) = torch.autograd.grad(Margin()(student(x), y).sum(), x)
    assert grad.flatten(1).abs().amax(1).min() > 1


def test_an_interrupted_distillation_goes_on_to_the_same_bits(splits, tmp_path):
    """Teacher and student each have their file; a second run reads both and trains nothing anew."""
    whole, expected = distilled(splits.train)
    first, _ = distilled(splits.train, resume=tmp_path / "run.pt")
    (tmp_path / "run.pt").unlink()  # as if it had been killed in the student's first epoch
    again, history = distilled(splits.train, resume=tmp_path / "run.pt")
    assert history == expected
    for model in (first, again):
        assert torch.equal(logits_of(model, splits.test.x), logits_of(whole, splits.test.x))


def test_a_warm_start_is_one_training_after_the_other(splits, tmp_path):
    """Standard epochs and then the objective's, by hand; and an interrupted run goes on to the same bits."""
    train, objective, fit = splits.train, AdversarialTraining(ATTACK), Fit(epochs=2)
    by_hand, made, again = (MLP((16,))((1, 8, 8), 10, generator=seed(0)) for _ in range(3))
    generator = seed(1)
    first = Fit(epochs=3)(by_hand, train, Standard(), generator=generator)
    then = fit(by_hand, train, objective, generator=generator)
    warm_start = WarmStart(objective, epochs=3)
    history = fit(made, train, warm_start, generator=seed(1), resume=tmp_path / "run.pt")
    assert [record["epoch"] for record in history] == list(range(5))
    assert [record["loss"] for record in history] == [record["loss"] for record in first + then]
    (tmp_path / "run.pt").unlink()  # as if it had been killed in the objective's first epoch
    assert fit(again, train, warm_start, generator=seed(1), resume=tmp_path / "run.pt") == history
    for model in (made, again):
        assert torch.equal(logits_of(model, splits.test.x), logits_of(by_hand, splits.test.x))


@pytest.mark.parametrize(
    "make",
    [
        lambda: WarmStart(Standard(), epochs=0),
        lambda: MART(ATTACK, beta=-1),
        lambda: FastAdversarialTraining(Linf(0.1), step_size=0),
        lambda: FastAdversarialTraining(Linf(0.1), alignment=-1),
        lambda: DistillationLoss(0),
        lambda: DefensiveDistillation(0),
    ],
)
def test_impossible_settings_are_refused(make):
    """When the objective is made."""
    with pytest.raises(ValueError, match="must be|cannot be"):
        make()
