"""Private training with objectives of one's own: regression, several labels; and objectives that mix rows."""

from dataclasses import dataclass

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.optim import SGD

from aisec_lab.data import Dataset, TargetDataset
from aisec_lab.models import MLP, Fit
from aisec_lab.models.training.fit import Losses
from aisec_lab.models.training.stack import ModelStack
from aisec_lab.privacy import DPSGD, FlatClipping, GhostClipping, RowByRowClipping, fit_private_stack
from aisec_lab.privacy.federated import ClientUpdate

N, WIDTH = 60, 4


def seed(number):
    return torch.Generator().manual_seed(number)


def squared(model, x, y, *, generator):
    return (model(x) - y).square().flatten(1).mean(1)


def several(model, x, y, *, generator):
    return F.binary_cross_entropy_with_logits(model(x), y, reduction="none").mean(1)


X = torch.rand(N, WIDTH, generator=seed(0))
NUMBERS = TargetDataset(X, X.sum(1, keepdim=True) * 7 - 3)
LABELS = TargetDataset(X, (X[:, :3] > 0.5).float())
CLASSES = Dataset(X, (3 * X[:, 0]).long().clamp(max=2), ("a", "b", "c"), "made")
KINDS = {"regression": (squared, NUMBERS, 1), "labels": (several, LABELS, 3)}


def network(outputs):
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(WIDTH, 6), nn.Tanh(), nn.Linear(6, outputs))


@pytest.mark.parametrize("clipping", [FlatClipping, GhostClipping, RowByRowClipping])
@pytest.mark.parametrize("kind", KINDS)
def test_a_step_is_the_sum_of_the_cut_gradients(kind, clipping):
    """Row by row through a slow second implementation; some are cut and some are not."""
    objective, rows, outputs = KINDS[kind]
    model, x, y = network(outputs), rows.x[:10], rows.y[:10]
    weights, own = list(model.parameters()), []
    for one, target in zip(x, y, strict=True):
        (loss,) = objective(model, one[None], target[None], generator=seed(0))
        own.append(torch.cat([grad.flatten() for grad in torch.autograd.grad(loss, weights)]))
    own = torch.stack(own)
    bound = own.norm(dim=1).median().item()
    expected = -(own * (bound / own.norm(dim=1)).clamp(max=1)[:, None]).sum(0) / 5
    before = nn.utils.parameters_to_vector(weights).detach().clone()
    recipe = DPSGD(noise_multiplier=0.0, clipping=clipping(bound), objective=objective)
    with recipe.private_step(model, 0.0, 5, seed(0)) as step:
        step(model, SGD(weights, lr=1.0), Losses(objective, model, x, y, seed(0)))
    moved = nn.utils.parameters_to_vector(weights).detach() - before
    torch.testing.assert_close(moved, expected, atol=1e-5, rtol=1e-3)


@pytest.mark.parametrize("kind", KINDS)
def test_it_learns_and_its_records_know_no_accuracy(kind):
    objective, rows, outputs = KINDS[kind]
    model, recipe = network(outputs), DPSGD(noise_multiplier=0.1, delta=1e-3, objective=objective)
    before = objective(model, rows.x, rows.y, generator=seed(0)).mean()
    history = Fit(epochs=20, batch_size=20, learning_rate=0.1)(model, rows, recipe, generator=seed(1))
    assert objective(model, rows.x, rows.y, generator=seed(0)).mean() < 0.7 * before
    assert all("accuracy" not in record for record in history)


@dataclass
class Running:
    """Losses over their running mean, which is kept from batch to batch."""

    mean: float = 1.0

    def __call__(self, model, x, y, *, generator):
        losses = F.cross_entropy(model(x), y, reduction="none")
        self.mean = 0.9 * self.mean + 0.1 * float(losses.detach().mean())
        return losses / self.mean


def cross_entropy(model, x, y):
    return F.cross_entropy(model(x), y, reduction="none")


def class_weights(model, x, y, *, generator):
    return cross_entropy(model, x, y) / F.one_hot(y, 3).sum(0).clamp(min=1)[y]


MIXING = {
    "over their mean": lambda model, x, y, *, generator: (found := cross_entropy(model, x, y)) / found.detach().mean(),
    "centred": lambda model, x, y, *, generator: (found := cross_entropy(model, x, y)) - 0.01 * found.mean(),
    "hardest rows": lambda model, x, y, *, generator: (found := cross_entropy(model, x, y)) * (found >= found.median()),
    "class weights of the batch": class_weights,
    "standardised targets": lambda model, x, y, *, generator: cross_entropy(model, (x - x.mean(0)) / (x.std(0) + 1), y),
    "contrast": lambda model, x, y, *, generator: F.cross_entropy(
        model(x) @ model(x).T, torch.arange(len(x)), reduction="none"
    ),
    "mixup": lambda model, x, y, *, generator: cross_entropy(model, 0.7 * x + 0.3 * x.roll(1, 0), y),
    "over how many": lambda model, x, y, *, generator: cross_entropy(model, x, y) / max(1, len(x)),
    "a running mean": Running(),
}  # fmt: skip


@pytest.mark.parametrize("clipping", [GhostClipping(), RowByRowClipping()], ids=repr)
@pytest.mark.parametrize("name", MIXING)
def test_no_objective_that_mixes_rows_trains(name, clipping):
    """Whatever it is made of; not a weight moves, and the objective is as it was."""
    model = network(3)
    before = nn.utils.parameters_to_vector(model.parameters()).detach().clone()
    recipe = DPSGD(noise_multiplier=1.0, clipping=clipping, objective=MIXING[name])
    with pytest.raises(ValueError, match="the objective .* mixes the rows of a batch"):
        Fit(epochs=1, batch_size=8)(model, CLASSES, recipe, generator=seed(0))
    assert torch.equal(nn.utils.parameters_to_vector(model.parameters()), before)
    assert Running() == MIXING["a running mean"]


@pytest.mark.parametrize(("objective", "given"), [
    (lambda model, x, y, *, generator: F.cross_entropy(model(x), y), r"float32 \(\)"),
    (lambda model, x, y, *, generator: model(x), r"float32 \(9, 3\)"),
    (lambda model, x, y, *, generator: model(x).argmax(1), "int64"),
    (lambda model, x, y, *, generator: None, "NoneType"),
])  # fmt: skip
def test_an_objective_gives_a_loss_for_each_row(objective, given):
    with pytest.raises(ValueError, match=f"a loss for each row, .*got .*{given}.*reduction='none'"):
        DPSGD(noise_multiplier=1.0, objective=objective).check_model(network(3), CLASSES, 8)


def test_where_another_objective_is_not_taken_it_is_refused(tmp_path):
    """A function's repr is its address, by which no resumed run is known again; a stack computes its own losses."""
    recipe = DPSGD(noise_multiplier=1.0, objective=squared)
    with pytest.raises(ValueError, match="make the objective and stop frozen dataclasses"):
        Fit(epochs=1)(network(1), NUMBERS, recipe, generator=seed(0), resume=tmp_path / "run")
    stack = ModelStack(MLP(hidden=(3,)), (WIDTH,), 3, [seed(0)])
    with pytest.raises(ValueError, match="with the objective Standard"):
        fit_private_stack(stack, CLASSES, torch.ones(1, N).bool(), recipe, fit=Fit(), generators=[seed(0)])


def test_a_client_follows_the_objective_of_its_promise():
    """The update is the gradient of the squared error, not of a cross-entropy; it need not be hashable."""

    @dataclass
    class Squared:
        def __call__(self, model, x, y, *, generator):
            return squared(model, x, y, generator=generator)

    privacy = DPSGD(noise_multiplier=0.0, delta=1e-3, objective=Squared(), clipping=GhostClipping(1e6))
    client_update = ClientUpdate(batch_size=N, learning_rate=1.0, privacy=privacy)
    model = network(1)
    update = client_update(model, NUMBERS, rounds=1, generator=seed(0))
    loss = squared(model, NUMBERS.x, NUMBERS.y, generator=seed(0)).mean()
    gradient = torch.cat([grad.flatten() for grad in torch.autograd.grad(loss, list(model.parameters()))])
    torch.testing.assert_close(update, -gradient, atol=1e-4, rtol=1e-3)


@pytest.mark.parametrize(("make", "message"), [
    (lambda: TargetDataset(X, X[:, :1].half()), "y must be float32, float64 or int64"),
    (lambda: TargetDataset(X, X[:-1, :1]), r"\(60, \*target\), got torch.float32 \(59, 1\)"),
    (lambda: TargetDataset(X, X[:, :1] / 0), "y must be finite"),
    (lambda: TargetDataset(X * 2, X), r"x must lie in \[0, 1\]"),
    (lambda: TargetDataset(X, X, ("a",)), "targets have no class names"),
    (lambda: TargetDataset(X, X).sample(61, 0), "cannot take 61"),
    (lambda: Dataset(X, X, ("a",), "made"), "TargetDataset for targets"),
])  # fmt: skip
def test_targets_that_are_none_are_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_a_sample_of_targets_keeps_rows_and_targets_together():
    part = NUMBERS.sample(7, 0)
    assert len(part) == 7
    torch.testing.assert_close(part.y, part.x.sum(1, keepdim=True) * 7 - 3)
    assert torch.equal(part.x, NUMBERS.sample(7, 0).x)
