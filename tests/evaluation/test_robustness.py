"""Security curves and the worst case over attacks."""

from dataclasses import dataclass
from itertools import product

import pandas as pd
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from aisec_lab.attacks import FGSM, L2, PGD, Attack, Ball, Linf, Targeted
from aisec_lab.core import RowNoise
from aisec_lab.data import Dataset
from aisec_lab.evaluation import run_attack, security_curve, worst_case
from aisec_lab.evaluation.predictions import REJECTED, predicted_classes
from aisec_lab.evaluation.robustness import BATCH

LEVELS = [0.02, 0.05, 0.1]


def seed(value: int) -> torch.Generator:
    return torch.Generator().manual_seed(value)


@pytest.fixture(scope="module")
def linear() -> nn.Module:
    """Two classes, twelve inputs, a boundary through the middle of the box."""
    layer = nn.Linear(12, 2)
    with torch.no_grad():
        layer.weight.copy_(torch.randn(2, 12, generator=seed(0)))
        layer.bias.copy_(-layer.weight.sum(1) / 2)
    return nn.Sequential(layer).eval()


@pytest.fixture(scope="module")
def dataset() -> Dataset:
    """More rows than one batch, far enough from the faces of the box that it does not bind; a tenth mislabelled."""
    x = 0.15 + 0.7 * torch.rand(BATCH + 50, 12, generator=seed(1))
    return Dataset(x, (torch.rand(len(x), generator=seed(2)) < 0.5).long(), ("a", "b"), "toy")


def margins(model: nn.Module, dataset: Dataset) -> Tensor:
    """By how much the true class leads."""
    with torch.no_grad():
        logits = model(dataset.x)
    own = logits.gather(1, dataset.y[:, None]).squeeze(1)
    return own - logits.gather(1, 1 - dataset.y[:, None]).squeeze(1)


@pytest.mark.parametrize(("ball", "dual"), [(Linf(0.05), 1), (L2(0.05), 2)], ids=repr)
@pytest.mark.parametrize("make", [FGSM, lambda ball: PGD(ball, steps=30)], ids=["FGSM", "PGD"])
def test_the_curve_of_a_linear_model_meets_the_closed_form(
    make: type[FGSM], ball: Linf | L2, dual: int, linear: nn.Module, dataset: Dataset
) -> None:
    """Two classes: eps takes exactly eps * ||w1 - w0||_dual from the margin; the size says how far each row went."""
    rows, own = security_curve(make(ball), linear, dataset, LEVELS, seed=0)
    lead = margins(linear, dataset)
    weights = linear[0].weight.detach()
    shrink = (weights[1] - weights[0]).norm(p=dual)
    assert rows.level.unique().tolist() == LEVELS
    assert (rows.knob == ball.name).all()
    for level, group in rows.groupby("level"):
        right = torch.tensor((group.adversarial == group.label).to_numpy())
        expected = lead > level * shrink
        certain = (lead - level * shrink).abs() > 1e-4  # float32
        assert torch.equal(right[certain], expected[certain])
        assert 0 < right.sum() < (lead > 0).sum()
        assert group["size"].max() <= level * (1 + 1e-5)
        assert group.row.tolist() == list(range(len(dataset)))
        assert group.label.tolist() == dataset.y.tolist()
        assert ((group.clean == group.label).to_numpy() == (lead > 0).numpy()).all()
    at_own = rows[rows.level == ball.eps]
    assert torch.equal(linear(own).argmax(1), torch.tensor(at_own.adversarial.to_numpy()))
    assert ball.norm(own - dataset.x).tolist() == at_own["size"].tolist()


@pytest.mark.parametrize("levels", [[], [0.05], [0.1, 0.02], [0.1, 0.2], (0.02, 0.02)], ids=str)
def test_the_own_level_is_always_there_whatever_else_is_asked(
    levels: list[float], linear: nn.Module, dataset: Dataset
) -> None:
    """Each level once, from the lowest up; the inputs that come back are those of the attack's own level."""
    attack = FGSM(Linf(0.05))
    rows, own = security_curve(attack, linear, dataset, levels, seed=0)
    assert rows.level.unique().tolist() == sorted({*levels, 0.05})
    assert len(rows) == len({*levels, 0.05}) * len(dataset)
    assert torch.equal(own, run_attack(attack, linear, dataset, seed=0)[0])


def test_cost_is_counted_in_passes_of_one_row(linear: nn.Module, dataset: Dataset) -> None:
    """FGSM looks once, forward and backward, over whatever number of batches."""
    rows, _ = security_curve(FGSM(Linf(0.05)), linear, dataset, LEVELS, seed=0)
    assert (rows.forward_passes == 1).all()
    assert (rows.backward_passes == 1).all()


def test_attacked_goes_through_all_rows_in_their_order(linear: nn.Module, dataset: Dataset) -> None:
    """By batches that begin from the same seed each, with noise keyed by row: a row's place does not matter."""
    attack: Attack = PGD(Linf(0.05), steps=2, early_stop=False)
    x_adv, passes = run_attack(attack, linear, dataset, seed=3)
    turned = dataset.subset(torch.arange(len(dataset)).flip(0))
    torch.testing.assert_close(run_attack(attack, linear, turned, seed=3)[0].flip(0), x_adv)
    assert not torch.equal(run_attack(attack, linear, dataset, seed=4)[0], x_adv)
    assert (passes.forward_passes, passes.backward_passes) == (3 * len(dataset), 2 * len(dataset))


class Coins(nn.Module):
    """Right with probability 0.7 whatever the input, by draws of its own for each row and question."""

    generator: torch.Generator | None = None

    def forward(self, x: Tensor) -> Tensor:
        assert self.generator is not None
        right = RowNoise(x, self.generator).uniform((), 0) < 0.7
        return torch.stack([right.to(x.dtype), 0.5 * torch.ones_like(x[:, 0])], 1)


@dataclass(frozen=True)
class Patient:
    """An attack that asks about the very same rows until a draw is wrong, and calls that a success."""

    ball: Ball

    def __call__(self, model: nn.Module, x: Tensor, y: Tensor, *, generator: torch.Generator) -> Tensor:
        won = torch.stack([model(x).argmax(1) != y for _ in range(30)]).any(0)
        assert won.double().mean() > 0.99
        return x.clone()


def test_a_random_model_is_scored_with_draws_that_no_attack_has_seen() -> None:
    """The worst of many draws is the winner's curse: nothing was changed, and 0.7 of the rows still stand."""
    x = torch.rand(2000, 12, generator=seed(1))
    coins = Dataset(x, torch.zeros(2000).long(), ("a", "b"), "coins")
    rows, _ = security_curve(Patient(Linf(0.1)), Coins().eval(), coins, [], seed=0)
    assert (rows.adversarial == rows.clean).all()
    assert abs((rows.adversarial == 0).mean() - 0.7) < 0.05


def test_a_level_that_no_ball_has_is_refused(linear: nn.Module, dataset: Dataset) -> None:
    """By the ball."""
    attack = FGSM(Linf(0.05))
    ball: Ball = attack.ball
    with pytest.raises(ValueError, match=f"eps of {ball.name} must be a finite number >= 0, got -0.1"):
        security_curve(attack, linear, dataset, [-0.1], seed=0)


def records(attacks: list[str], models: list[str], label: list[int], answers: list[int]) -> pd.DataFrame:
    """One record for each model, attack and row, with answers that are gone through in turn."""
    places = list(product(models, attacks, range(len(label))))
    clean = {(model, row): answers[(row + len(model)) % len(answers)] for model, _, row in places}
    rows = [
        (model, attack, row, label[row], clean[model, row], answers[k % len(answers)])
        for k, (model, attack, row) in enumerate(places)
    ]
    return pd.DataFrame(rows, columns=["model", "attack", "row", "label", "clean", "adversarial"])


@given(
    st.integers(1, 3), st.integers(1, 2), st.lists(st.integers(0, 2), min_size=1, max_size=6),
    st.lists(st.integers(0, 2), min_size=1, max_size=40), st.randoms(use_true_random=False),
)  # fmt: skip
def test_survivors_are_those_of_a_loop(attacks, models, label, answers, random) -> None:
    """Right on the clean input and under every attack, whatever order the records are in."""
    rows = records(["pgd", "apgd", "square"][:attacks], ["a", "bb"][:models], label, answers)
    order = list(range(len(rows)))
    random.shuffle(order)
    found = worst_case(rows.iloc[order], ["model"])
    expected = {}
    for record in rows.itertuples():
        right = record.clean == record.label and record.adversarial == record.label
        expected[record.model, record.row] = expected.get((record.model, record.row), True) and right
    assert found.columns.tolist() == ["model", "row", "survives"]
    assert {(r.model, r.row): r.survives for r in found.itertuples()} == expected
    assert len(found) == len(expected)


WHOLE = records(["pgd", "square"], ["a", "bb"], [0, 1, 0, 1], [0, 1])
INCOMPLETE = {
    "one lacks a row": (WHOLE.model == "a") & (WHOLE.attack == "pgd") & (WHOLE.row == 3),
    "one saw the first half, one the other": (WHOLE.attack == "pgd") != (WHOLE.row < 2),
}


@pytest.mark.parametrize("lost", INCOMPLETE.values(), ids=INCOMPLETE)
def test_attacks_on_other_rows_have_no_worst_case(lost: pd.Series) -> None:
    """Some rows would look stronger only for having met fewer attacks."""
    assert len(worst_case(WHOLE, ["model"])) == 8
    with pytest.raises(ValueError, match=r"attacks of one group of \['model'\] must see the same rows"):
        worst_case(WHOLE[~lost], ["model"])


class Columns(nn.Module):
    """As many logits as are asked for, the last one highest."""

    def __init__(self, count: int, rejects: bool | None = None) -> None:
        super().__init__()
        self.count, self.training = count, False
        if rejects is not None:
            self.rejects = rejects

    def forward(self, x: Tensor) -> Tensor:
        return torch.arange(self.count).float().expand(len(x), -1) + 0 * x.flatten(1)[:, :1]


def test_to_reject_is_what_the_model_says_it_can(dataset: Dataset) -> None:
    """A column more is a class that the data set does not name, unless the model declares a reject option."""
    assert (predicted_classes(Columns(3, rejects=True), dataset.x, 2) == REJECTED).all()
    assert (predicted_classes(Columns(2), dataset.x, 2) == 1).all()
    for model in (Columns(3), Columns(3, rejects=False), Columns(2, rejects=True), Columns(1), Columns(10)):
        with pytest.raises(ValueError, match=rf"answers with {model.count} logits, the data set names 2 classes"):
            predicted_classes(model, dataset.x, 2)
        with pytest.raises(ValueError, match="the data set names 2 classes"):
            security_curve(FGSM(Linf(0.1)), model, dataset, LEVELS, seed=0)


def test_a_curve_of_targets_is_refused(linear: nn.Module, dataset: Dataset) -> None:
    """It would take the true classes for targets, and call the model robust."""
    with pytest.raises(ValueError, match="with the goal Targeted takes the classes that it is given for its targets"):
        security_curve(PGD(Linf(0.1), goal=Targeted()), linear, dataset, LEVELS, seed=0)


def test_answers_that_are_no_numbers_are_no_classes(dataset: Dataset) -> None:
    """NaN and infinity."""
    for value in (torch.nan, torch.inf):
        model = nn.Sequential(nn.Flatten(), nn.Linear(12, 2)).eval()
        with torch.no_grad():
            model[1].bias.fill_(value)
        with pytest.raises(ValueError, match="NaN or infinite"):
            predicted_classes(model, dataset.x, 2)
