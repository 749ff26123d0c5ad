"""Black-box and transfer attacks against the field's reference libraries, at equal queries on the same rows."""

import math
import warnings
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from aisec_lab.attacks import (
    DCT,
    L2,
    MIFGSM,
    Boundary,
    GeoDA,
    HopSkipJump,
    Linf,
    Oracle,
    RotationTranslation,
    SignOPT,
    SimBA,
    SpatialGrid,
    rotate_translate,
)

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    import eagerpy as ep
    import foolbox
    import torchattacks
    from art.attacks import evasion as art
    from art.estimators.classification import PyTorchClassifier
    from foolbox.attacks import BoundaryAttack, HopSkipJumpAttack, SpatialAttack
    from foolbox.attacks.spatial_attack_transformations import rotate_and_shift

ROWS = 20


class Single(nn.Module):
    """ART's line search asks in float64 under NumPy 2."""

    def __init__(self, oracle):
        super().__init__()
        self.oracle = oracle
        self.eval()

    def forward(self, x):
        return self.oracle(x.float())


@pytest.fixture
def right(cnn, sample):
    """Held-out rows that the model gets right."""
    x, y = sample
    rows = (cnn(x).argmax(1) == y).nonzero()[:ROWS, 0]
    return x[rows], y[rows]


class Probabilities(Single):
    """ART's SimBA asks for them."""

    def forward(self, x):
        return super().forward(x).softmax(1)


class Direct(art.SignOPTAttack):
    """ART's Sign-OPT, its single questions put to the model without the estimator's overhead."""

    def _is_label(self, x_0, label):
        x = torch.from_numpy(np.clip(x_0, 0, 1)).float()[None]
        return int(self.estimator.model(x).argmax(1)) == label


def by_art(attack, view=Single, /, **settings):
    def run(oracle, x, y):
        model = PyTorchClassifier(
            view(oracle), nn.CrossEntropyLoss(), tuple(x.shape[1:]), 10, clip_values=(0, 1), device_type="cpu"
        )
        np.random.seed(0)
        x_adv = attack(model, verbose=False, **settings).generate(x.numpy().copy(), np.eye(10)[y.numpy()])
        return torch.from_numpy(x_adv)

    return run


def by_foolbox(attack):
    def run(oracle, x, y):
        np.random.seed(0)
        with torch.random.fork_rng():
            torch.manual_seed(0)
            return attack.run(foolbox.PyTorchModel(oracle, bounds=(0, 1), device="cpu"), x, y)

    return run


PEERS = {
    "HopSkipJump-L2-ART": (HopSkipJump(L2(0)), by_art(art.HopSkipJump, targeted=False, norm=2, max_iter=8)),
    "HopSkipJump-Linf-ART": (HopSkipJump(Linf(0)), by_art(art.HopSkipJump, targeted=False, norm=np.inf, max_iter=8)),
    "HopSkipJump-L2-foolbox": (HopSkipJump(L2(0)), by_foolbox(HopSkipJumpAttack(steps=8))),
    "HopSkipJump-Linf-foolbox": (HopSkipJump(Linf(0)), by_foolbox(HopSkipJumpAttack(steps=8, constraint="linf"))),
    "Boundary-ART": (Boundary(), by_art(art.BoundaryAttack, targeted=False, max_iter=20)),
    "Boundary-foolbox": (Boundary(), by_foolbox(BoundaryAttack(steps=1500))),
    "SignOPT-L2-ART": (
        SignOPT(directions=20, samples=50),
        by_art(Direct, targeted=False, num_trial=20, k=50, query_limit=500),
    ),
    "GeoDA-L2-ART": (
        GeoDA(L2(0), basis=DCT(0.75)),
        by_art(art.GeoDA, norm=2, sub_dim=6, max_iter=500, bin_search_tol=1e-4),
    ),
    "GeoDA-Linf-ART": (
        GeoDA(Linf(0), basis=DCT(0.75)),
        by_art(art.GeoDA, norm=np.inf, sub_dim=6, max_iter=500, bin_search_tol=1e-4),
    ),
}


@pytest.mark.parametrize(("attack", "peer"), PEERS.values(), ids=PEERS)
def test_medians_are_not_above_the_peers_at_equal_queries(attack, peer, cnn, right, seed, monkeypatch, tmp_path):
    """By more than a tenth; the queries are counted, as many a row as the peer took on average."""
    monkeypatch.chdir(tmp_path)  # ART's GeoDA leaves a file where it runs
    monkeypatch.setattr(np, "mat", np.asmatrix, raising=False)  # which it makes by what NumPy 2 took out
    x, y = right
    oracle = Oracle(cnn)
    theirs = attack.ball.norm(peer(oracle, x, y) - x).median()
    ours = replace(attack, queries=oracle.queries // ROWS)(cnn, x, y, generator=seed(0))
    assert theirs < torch.inf
    assert ours.distance.median() <= 1.1 * theirs


def test_mi_fgsm_takes_the_steps_of_torchattacks(cnn, right, seed):
    """The same points, but for pixels whose gradient is so small that rounding decides about its sign."""
    x, y = right
    theirs = torchattacks.MIFGSM(cnn, eps=0.1, alpha=0.01, steps=10, decay=1.0)(x, y)
    ours = MIFGSM(Linf(0.1), steps=10, step_size=0.1)(cnn, x, y, generator=seed(0))
    assert ((ours - theirs).abs() < 1e-6).double().mean() > 0.995


WAVES = {"pixels": (SimBA(L2(8.0)), "px"), "waves": (SimBA(L2(8.0), basis=DCT(0.5)), "dct")}


@pytest.mark.parametrize(("attack", "kind"), WAVES.values(), ids=WAVES)
def test_simba_wins_as_many_rows_as_arts_for_fewer_queries(attack, kind, cnn, right, seed):
    """And at no larger a median distance: ART asks about both signs at each step, also where the first one helps."""
    x, y = right
    theirs, ours = Oracle(cnn), Oracle(cnn)
    with torch.no_grad():
        found = by_art(art.SimBA, Probabilities, attack=kind, max_iter=60, epsilon=0.2)(theirs, x, y)
        mine = replace(attack, queries=121)(ours, x, y, generator=seed(0))
        won = [cnn(z).argmax(1) != y for z in (mine, found)]
    assert won[0].sum() >= won[1].sum() > ROWS / 2
    assert ours.queries < theirs.queries
    distances = [torch.where(w, attack.ball.norm(z - x), torch.inf) for w, z in zip(won, (mine, found), strict=True)]
    assert distances[0].median() <= 1.1 * distances[1].median()


@pytest.mark.parametrize("pose", [(0.0, 0.0, 0.0), (20.0, 0.0, 0.0), (0.0, 2.0, -1.0), (-30.0, 1.5, 3.0)], ids=str)
def test_turned_images_are_those_of_foolbox(pose, right):
    """Which shifts what is looked at, and so the other way, before it turns, by (S - 1) / S of what it is told."""
    x, _ = right
    angle, across, along = pose
    theirs = rotate_and_shift(ep.astensor(x), translation=(across, along), rotation=angle).raw
    turn = math.radians(angle)
    cos, sin, pixels = math.cos(turn), math.sin(turn), (x.shape[2] - 1) / x.shape[2]
    right_, down = -pixels * (cos * across + sin * along), -pixels * (-sin * across + cos * along)
    ours = rotate_translate(x, torch.tensor([[angle, right_, down]]).expand(len(x), -1))
    assert torch.allclose(ours, theirs, atol=1e-5)


@pytest.mark.parametrize(("angle", "shift"), [(30.0, 0.0), (0.0, 3.0)], ids=["turned", "shifted"])
def test_a_grid_wins_the_rows_that_foolbox_wins(angle, shift, cnn, right, seed):
    """Row by row, with the same angles and the same shifts."""
    x, y = right
    numbers = {"num_rotations": 5 if angle else 1, "num_translations": 5 if shift else 1}
    grid = SpatialAttack(max_rotation=angle, max_translation=shift, **numbers)
    theirs = by_foolbox(grid)(cnn, x, y)
    threat = RotationTranslation(angle, shift * (x.shape[2] - 1) / x.shape[2])
    ours = SpatialGrid(threat, 5, 5)(cnn, x, y, generator=seed(0))
    with torch.no_grad():
        won = cnn(ours).argmax(1) != y
        assert torch.equal(won, cnn(theirs).argmax(1) != y)
    assert 0 < won.sum() < ROWS if angle else won.any()
