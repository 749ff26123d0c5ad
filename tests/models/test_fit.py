"""The one training loop."""

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from aisec_lab.data import Dataset
from aisec_lab.defenses import Standard
from aisec_lab.models import MLP, Fit, logits_of, plain_step


def seed(value: int) -> torch.Generator:
    return torch.Generator().manual_seed(value)


@pytest.fixture
def blobs() -> Dataset:
    """Two classes that a line separates."""
    x = torch.rand(200, 2, generator=seed(0))
    return Dataset(x, (x.sum(1) > 1).long(), ("low", "high"), "blobs")


def fresh() -> nn.Sequential:
    return MLP(hidden=(8,))((2,), 2, generator=seed(1))


def same(a: nn.Module, b: nn.Module) -> bool:
    return all(torch.equal(p, q) for p, q in zip(a.parameters(), b.parameters(), strict=True))


def test_it_learns_and_counts_what_that_cost(blobs: Dataset) -> None:
    """A separable problem is solved; one pass of each kind for each row and epoch; evaluation mode at the end."""
    model = fresh()
    history = Fit(epochs=20, batch_size=32, learning_rate=0.05)(model, blobs, Standard(), generator=seed(0))
    assert (logits_of(model, blobs.x).argmax(1) == blobs.y).float().mean() > 0.95
    assert history[-1]["loss"] < history[0]["loss"]
    assert {(r["forward_passes"], r["backward_passes"]) for r in history} == {(200, 200)}
    assert not model.training


def test_two_runs_are_equal_to_the_bit(blobs: Dataset) -> None:
    """The generator is the only randomness."""
    models = [fresh() for _ in range(3)]
    histories = [Fit(epochs=3)(m, blobs, Standard(), generator=seed(s)) for m, s in zip(models, (5, 5, 6), strict=True)]
    assert same(models[0], models[1])
    assert histories[0] == histories[1]
    assert not same(models[0], models[2])


def test_an_interrupted_run_goes_on_to_the_same_bits(blobs: Dataset, tmp_path: Path) -> None:
    """Killed after two of five epochs and resumed in a new model: the same weights and history as in one go."""

    class Killed(Standard):
        calls = 0

        def __call__(self, model: nn.Module, x: Tensor, y: Tensor, *, generator: torch.Generator) -> Tensor:
            Killed.calls += 1
            if Killed.calls > 2 * 4 + 1:
                raise KeyboardInterrupt
            return super().__call__(model, x, y, generator=generator)

        def __repr__(self) -> str:
            return repr(Standard())

    fit, whole, half, resumed = Fit(epochs=5, batch_size=64), fresh(), fresh(), fresh()
    expected = fit(whole, blobs, Standard(), generator=seed(2))
    with pytest.raises(KeyboardInterrupt):
        fit(half, blobs, Killed(), generator=seed(2), resume=tmp_path / "run.pt")
    history = fit(resumed, blobs, Standard(), generator=seed(99), resume=tmp_path / "run.pt")
    assert same(whole, resumed)
    assert history == expected


def test_a_resume_file_of_another_run_is_refused(blobs: Dataset, tmp_path: Path) -> None:
    """Other settings cannot continue it."""
    Fit(epochs=1)(fresh(), blobs, Standard(), generator=seed(0), resume=tmp_path / "run.pt")
    with pytest.raises(ValueError, match="is of another run .*: remove it"):
        Fit(epochs=2)(fresh(), blobs, Standard(), generator=seed(0), resume=tmp_path / "run.pt")


def test_a_loss_that_is_not_finite_stops_it(blobs: Dataset) -> None:
    """The message says when, and what to turn."""

    def diverging(model: nn.Module, x: Tensor, y: Tensor, *, generator: torch.Generator) -> Tensor:
        return Standard()(model, x, y, generator=generator) * float("nan")

    with pytest.raises(FloatingPointError, match=r"became nan in epoch 0: lower fit\.learning_rate"):
        Fit(epochs=1)(fresh(), blobs, diverging, generator=seed(0))


def test_the_step_is_an_argument_and_may_ask_for_the_losses_twice(blobs: Dataset) -> None:
    """A step that does nothing leaves the weights; the plain one moves them."""
    still, moved = fresh(), fresh()

    def idle(model: nn.Module, optimizer: torch.optim.Optimizer, losses: object) -> Tensor:
        assert callable(losses)
        losses()
        return losses().detach()

    (record,) = Fit(epochs=1)(still, blobs, Standard(), generator=seed(0), step=idle)
    Fit(epochs=1)(moved, blobs, Standard(), generator=seed(0), step=plain_step)
    assert same(still, fresh())
    assert record["forward_passes"] == 400
    assert not same(moved, fresh())


@pytest.mark.parametrize("wrong", [{"epochs": 0}, {"batch_size": 0}, {"learning_rate": -1.0}, {"weight_decay": -1.0}])
def test_settings_that_make_no_sense_are_refused(wrong: dict[str, float]) -> None:
    """At once, not after an epoch."""
    with pytest.raises(ValueError, match="must be positive"):
        Fit(**wrong)
