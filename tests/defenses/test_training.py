"""Objectives against the papers' formulas, worked out by hand."""

from collections.abc import Callable
from dataclasses import dataclass

import pytest
import torch
from torch import Tensor, nn

from aisec_lab.attacks import FGSM, L2, PGD, CrossEntropy, Linf
from aisec_lab.defenses import TRADES, AdversarialTraining, Standard
from aisec_lab.models import CNN, Objective


def seed(value: int) -> torch.Generator:
    return torch.Generator().manual_seed(value)


@pytest.fixture
def model() -> nn.Module:
    """Untrained, in training mode, float64, with a part that is another function in training mode."""
    network = CNN(width=4, hidden=8)((1, 8, 8), 5, generator=seed(0)).double()
    return nn.Sequential(network[:-1], nn.BatchNorm1d(8, dtype=torch.float64), network[-1]).train()


@pytest.fixture
def batch() -> tuple[Tensor, Tensor]:
    return torch.rand(12, 1, 8, 8, generator=seed(1), dtype=torch.float64), torch.arange(12) % 5


@dataclass(frozen=True)
class Fixed:
    """An attack that adds what it is told, and notes in which state it found the model."""

    delta: Tensor
    seen: list[tuple[bool, bool]]

    def __call__(self, model: nn.Module, x: Tensor, y: Tensor, *, generator: torch.Generator) -> Tensor:
        learning = any(p.requires_grad for p in model.parameters())
        self.seen.append((any(m.training for m in model.modules()), learning))
        return (x + self.delta).clamp(0, 1)


def log_probabilities(model: nn.Module, x: Tensor) -> list[list[float]]:
    """Logits less the logarithm of their exponentials' sum, number by number."""
    return [(z - z.exp().sum().log()).tolist() for z in model(x).detach()]


def test_standard_is_minus_the_log_probability_of_the_class(model: nn.Module, batch: tuple[Tensor, Tensor]) -> None:
    """One loss a row."""
    x, y = batch
    losses = Standard()(model, x, y, generator=seed(0))
    expected = [-row[label] for row, label in zip(log_probabilities(model, x), y.tolist(), strict=True)]
    assert losses.tolist() == pytest.approx(expected, rel=1e-9)


def test_adversarial_training_takes_the_loss_at_the_attacks_points_alone(
    model: nn.Module, batch: tuple[Tensor, Tensor]
) -> None:
    """The attack meets the model frozen and in evaluation mode; the loss is taken in training mode."""
    x, y = batch
    attack = Fixed(0.2 * torch.randn(x.shape, generator=seed(2), dtype=torch.float64), [])
    losses = AdversarialTraining(attack)(model, x, y, generator=seed(0))
    assert attack.seen == [(False, False)]
    assert all(module.training for module in model.modules())
    there = log_probabilities(model, (x + attack.delta).clamp(0, 1))
    assert losses.tolist() == pytest.approx([-row[k] for row, k in zip(there, y.tolist(), strict=True)], rel=1e-9)


@pytest.mark.parametrize("ball", [Linf(0.1), L2(0.5)], ids=repr)
@pytest.mark.parametrize("make", [AdversarialTraining, TRADES])
def test_the_model_is_trained_on_points_inside_the_ball(
    make: type, ball: Linf | L2, batch: tuple[Tensor, Tensor]
) -> None:
    """What the network sees last, which the loss is taken at, is changed, but not too far, and stays in the box."""
    x, y = batch
    network = CNN(width=4, hidden=8)((1, 8, 8), 5, generator=seed(0)).double().train()
    seen: list[Tensor] = []

    class Watched(nn.Module):
        def forward(self, z: Tensor) -> Tensor:
            seen.append(z.detach())
            return network(z)

    objective = make(PGD(ball, steps=3, step_size=0.5, early_stop=False))
    objective(Watched(), x, y, generator=seed(0))
    sizes = ball.norm(seen[-1] - x)
    assert (sizes <= ball.eps * (1 + 1e-6)).all()
    assert (sizes > ball.eps / 2).all()
    assert seen[-1].min() >= 0
    assert seen[-1].max() <= 1


def by_hand(model: nn.Module, x: Tensor, x_adv: Tensor, y: Tensor, beta: float) -> Tensor:
    """TRADES, eq. 5, with probabilities and sums in the open."""
    p, q = (z.exp() / z.exp().sum(1, keepdim=True) for z in (model(x), model(x_adv)))
    rows = []
    for row, label in enumerate(y.tolist()):
        divergence = sum(p[row, k] * (p[row, k] / q[row, k]).log() for k in range(p.shape[1]))
        rows.append(-p[row, label].log() + beta * divergence)
    return torch.stack(rows)


def learning_from(seen: list[Tensor]) -> Callable[[nn.Module, tuple[Tensor]], None]:
    """A hook that keeps what a model learns from, and not what an attack asks it, frozen."""

    def look(model: nn.Module, inputs: tuple[Tensor]) -> None:
        if next(model.parameters()).requires_grad:
            seen.append(inputs[0].detach())

    return look


@pytest.mark.parametrize("beta", [0.0, 1.0, 6.0])
def test_trades_has_the_loss_and_the_gradient_of_its_paper(
    beta: float, model: nn.Module, batch: tuple[Tensor, Tensor]
) -> None:
    """The gradient flows through the clean and through the adversarial prediction."""
    x, y = batch
    inner = PGD(Linf(0.1), steps=3, step_size=0.5, loss=CrossEntropy())
    seen: list[Tensor] = []
    hook = model.register_forward_pre_hook(learning_from(seen))
    losses = TRADES(inner, beta)(model, x, y, generator=seed(0))
    hook.remove()
    x_clean, x_adv = seen
    assert torch.equal(x_clean, x)
    expected = by_hand(model, x, x_adv, y, beta)
    torch.testing.assert_close(losses, expected, rtol=1e-9, atol=1e-12)
    parameters = list(model.parameters())
    gradient = torch.autograd.grad(losses.mean(), parameters)
    by_formula = torch.autograd.grad(expected.mean(), parameters)
    torch.testing.assert_close(gradient, by_formula, rtol=1e-7, atol=1e-10)


def test_trades_looks_for_the_largest_divergence(batch: tuple[Tensor, Tensor]) -> None:
    """Its points diverge more than those of an attack on cross-entropy, and it never asks for the true classes."""
    x, y = batch
    model = CNN(width=4, hidden=8)((1, 8, 8), 5, generator=seed(0)).double().eval()
    inner = PGD(Linf(0.1), steps=20, step_size=0.25, early_stop=False)

    def divergence(x_adv: Tensor) -> Tensor:
        with torch.no_grad():
            return by_hand(model, x, x_adv, y, 1) - by_hand(model, x, x_adv, y, 0)

    seen: list[Tensor] = []
    hook = model.register_forward_pre_hook(learning_from(seen))
    for classes in (y, (y + 1) % 5):
        TRADES(inner)(model, x, classes, generator=seed(0))
    hook.remove()
    assert torch.equal(seen[1], seen[3])
    assert divergence(seen[1]).sum() > divergence(inner(model, x, y, generator=seed(0))).sum()


ATTACK = PGD(Linf(0.1), steps=3)
OBJECTIVES = [Standard(), AdversarialTraining(ATTACK), AdversarialTraining(FGSM(Linf(0.1))), TRADES(ATTACK)]


@pytest.mark.parametrize("objective", OBJECTIVES, ids=lambda objective: type(objective).__name__)
def test_the_inner_attack_leaves_the_gradients_of_the_parameters(
    objective: Objective, model: nn.Module, batch: tuple[Tensor, Tensor]
) -> None:
    """What had accumulated stays, running statistics move only as in training, each parameter still learns."""
    x, y = batch
    for parameter in model.parameters():
        parameter.grad = torch.full_like(parameter, 7)
    losses = objective(model, x, y, generator=seed(0))
    assert losses.shape == (12,)
    assert all((parameter.grad == 7).all() and parameter.requires_grad for parameter in model.parameters())
    assert all(module.training for module in model.modules())
    assert model[1].num_batches_tracked == (2 if isinstance(objective, TRADES) else 1)
    losses.mean().backward()
    assert any((parameter.grad != 7).any() for parameter in model.parameters())


@pytest.mark.parametrize("make", [AdversarialTraining, TRADES])
def test_the_generator_is_the_only_randomness(make: type, batch: tuple[Tensor, Tensor]) -> None:
    """The same state, the same losses; another, others."""
    x, y = batch
    model = CNN(width=4, hidden=8)((1, 8, 8), 5, generator=seed(0)).double().train()
    objective = make(PGD(Linf(0.1), steps=1, step_size=0.1, early_stop=False))
    losses = [objective(model, x, y, generator=seed(s)) for s in (3, 3, 4)]
    assert torch.equal(losses[0], losses[1])
    assert not torch.equal(losses[0], losses[2])


@pytest.mark.parametrize("beta", [-1.0, float("nan")])
def test_a_weight_that_makes_no_sense_is_refused(beta: float) -> None:
    """It would reward divergence."""
    with pytest.raises(ValueError, match=f"beta weighs robustness against accuracy and cannot be negative, got {beta}"):
        TRADES(PGD(Linf(0.1)), beta=beta)


def test_pixels_outside_the_box_are_refused(model: nn.Module, batch: tuple[Tensor, Tensor]) -> None:
    """As by the attack itself; the model comes back in training mode."""
    x, y = batch
    for objective in (AdversarialTraining(PGD(Linf(0.1))), TRADES(PGD(Linf(0.1)))):
        with pytest.raises(ValueError, match="pixels must lie in"):
            objective(model, 2 * x, y, generator=seed(0))
        assert all(module.training for module in model.modules())
