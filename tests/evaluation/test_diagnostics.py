"""The verdict: defenses that mislead are found out, for the right reason; honest models are left alone."""

from dataclasses import dataclass

import pytest
import torch
from torch import Tensor, nn

from aisec_lab.attacks import APGD, PGD, Linf, Square, TargetedAPGD, Undetected, Untargeted
from aisec_lab.data import Dataset, Prepared, prepare
from aisec_lab.defenses import AdversarialTraining, BitDepth, Standard
from aisec_lab.evaluation.diagnostics import PAGES, diagnose
from aisec_lab.evaluation.diagnostics.findings import FEWEST, count, share
from aisec_lab.evaluation.diagnostics.watched import Watched
from aisec_lab.models import CNN, Fit

BALL = Linf(0.15)
WHITE = (APGD(BALL, steps=30), TargetedAPGD(BALL, steps=30, targets=3))
FREE = Square(BALL, queries=200)


class Through(nn.Module):
    """A classifier with something done to its inputs or logits."""

    def __init__(self, model, *, before=lambda x: x, after=lambda z: z):
        super().__init__()
        self.model, self.before, self.after = model, before, after
        self.eval()

    def forward(self, x):
        return self.after(self.model(self.before(x)))


class Alarm(nn.Module):
    """A reject option that has learned to tell clean rows from those that one attack makes."""

    def __init__(self, model, rows):
        super().__init__()
        clean, y = rows.train.x[:600], rows.train.y[:600]
        made = APGD(BALL, steps=10)(model, clean, y, generator=torch.Generator().manual_seed(0))
        either = Dataset(torch.cat([clean, made]), torch.arange(2).repeat_interleave(600), ("clean", "made"), "alarm")
        generator = torch.Generator().manual_seed(0)
        self.model, self.alarm = model, CNN(width=8, hidden=16)(clean.shape[1:], 2, generator=generator)
        Fit(epochs=8, learning_rate=0.01)(self.alarm, either, Standard(), generator=generator)
        self.eval()

    def forward(self, x):
        logits, (quiet, rings) = self.model(x), self.alarm(x).T
        return torch.cat([logits, (logits.amax(1) + rings - quiet)[:, None]], 1)


@pytest.fixture(scope="module")
def rows(tmp_path_factory):
    root = tmp_path_factory.mktemp("data")
    prepare("digits", root)
    return Prepared("digits")(root)


def trained(rows, objective, epochs):
    generator = torch.Generator().manual_seed(0)
    model = CNN(width=8, hidden=32)(rows.train.shape, 10, generator=generator)
    Fit(epochs=epochs, learning_rate=0.01)(model, rows.train, objective, generator=generator)
    return model.eval()


@pytest.fixture(scope="module")
def plain(rows):
    return trained(rows, Standard(), 8)


@pytest.fixture(scope="module")
def hardened(rows):
    inner = PGD(BALL, steps=5, step_size=0.3, early_stop=False)
    return trained(rows, AdversarialTraining(inner), 8)


def verdict(model, rows, *, white=WHITE, free=FREE, n=80, **more):
    return diagnose(model, rows.test.x[:n], rows.test.y[:n], white=white, free=free, seed=0, **more)


@dataclass(frozen=True)
class Planted:
    """A way to look robust, and what must be said of it."""

    make: object
    finding: str
    white: tuple = WHITE


def noisy(x: Tensor) -> Tensor:
    return x * (torch.rand_like(x) > 0.3)


PLANTED = {
    "gradient shattering": Planted(
        lambda model: Through(model, before=lambda x: x + 0.02 * torch.sin(400 * x)), "free_attack"
    ),
    "rounding": Planted(BitDepth(3), "gradients"),
    "saturating softmax": Planted(lambda model: Through(model, after=lambda z: (20 * z).softmax(1)), "probabilities"),
    "vanishing gradients": Planted(
        lambda model: Through(model, after=lambda z: 1000 * z), "gradients", (APGD(BALL, steps=30),)
    ),
    "stochastic masking": Planted(lambda model: Through(model, before=noisy), "randomness"),
    "an output without a graph": Planted(lambda model: Through(model, after=lambda z: z.detach()), "gradients"),
}


@pytest.mark.parametrize("case", PLANTED.values(), ids=PLANTED)
def test_a_misleading_defense_is_found_out(case, plain, rows):
    """Not to be trusted, and the finding names what was planted."""
    found = verdict(case.make(plain), rows, white=case.white)
    assert not found.trusted
    assert case.finding in found.raised


WEAK = {
    "too few steps": (PGD(BALL, steps=3, step_size=0.1), "steps"),
    "steps too short to arrive": (PGD(BALL, steps=12, step_size=0.02), "convergence"),
    "no restart where one matters": (PGD(BALL, steps=5, step_size=1.0), "restarts"),
}


@pytest.mark.parametrize(("attack", "finding"), WEAK.values(), ids=WEAK)
def test_a_weak_attack_is_found_out(attack, finding, plain, rows):
    """The model is honest; the number is not to be trusted all the same."""
    found = verdict(plain, rows, white=(attack,))
    assert finding in found.raised


def test_an_attack_that_ignores_the_detector_is_found_out(plain, rows):
    """Against the goal that counts rejections; the claim's attack only knows the classes."""
    found = verdict(
        Alarm(plain, rows),
        rows,
        white=(APGD(BALL, steps=30),),
        free=Square(BALL, queries=200, goal=Undetected()),
        goal=Undetected(),
    )
    assert not found.trusted
    assert "detector" in found.raised


@dataclass(frozen=True)
class Lossy:
    """An attack that searches, wins, and hands back the clean row."""

    ball: Linf = BALL

    def __call__(self, model, x, y, *, generator):
        PGD(self.ball, steps=20)(model, x, y, generator=generator)
        return x


def test_an_attack_that_loses_its_best_point_is_found_out(plain, rows):
    """It had won; what it returned had not."""
    assert "lost_best" in verdict(plain, rows, white=(Lossy(),)).raised


@pytest.mark.parametrize("name", ["plain", "hardened"])
def test_an_honest_model_is_trusted(name, rows, request):
    """No finding is raised, and all of them were looked for."""
    found = verdict(request.getfixturevalue(name), rows)
    assert found.raised == ()
    assert found.trusted
    assert [finding.name for finding in found.findings] == list(PAGES)


def test_a_random_model_attacked_through_its_mean_is_not_blamed_for_being_random(plain, rows):
    """The mean over draws is what `EOT` shows an attack; it varies less than the model."""
    masked = Through(plain, before=noisy)
    alone = {f.name: f.measured for f in verdict(masked, rows, n=30).findings}
    mean = Through(plain, after=lambda z: z)
    mean.forward = lambda x: torch.stack([masked(x) for _ in range(24)]).mean(0)
    through = {f.name: f.measured for f in verdict(masked, rows, n=30, surface=mean).findings}
    assert alone["randomness"] > PAGES["randomness"].limit
    assert through["randomness"] < PAGES["randomness"].limit


def test_watching_knows_the_row_of_a_point_whatever_the_batch(plain, rows):
    """Of shuffled batches: the lowest margin of each row is that of a loop over rows."""
    x, y = rows.test.x[:20], rows.test.y[:20]
    noise = [0.1 * (2 * torch.rand(x.shape, generator=torch.Generator().manual_seed(k)) - 1) for k in range(4)]
    watched = Watched(plain, x, y, BALL, Untargeted())
    for k, delta in enumerate(noise):
        order = torch.randperm(20, generator=torch.Generator().manual_seed(k))[: 20 - k]
        watched((x + delta)[order])
    for row in range(20):
        seen = [
            row in torch.randperm(20, generator=torch.Generator().manual_seed(k))[: 20 - k].tolist() for k in range(4)
        ]
        logits = [plain(x[row : row + 1] + noise[k][row : row + 1])[0].detach() for k in range(4) if seen[k]]
        margins = [float(z[y[row]] - torch.cat([z[: y[row]], z[y[row] + 1 :]]).max()) for z in logits]
        assert float(watched.lowest[row]) == pytest.approx(min(margins), abs=1e-4)
        assert watched.falls[row] == sorted(watched.falls[row], reverse=True)


@pytest.mark.parametrize("n", [10, 100, 1000, 10_000])
def test_few_rows_never_speak_against_a_model(n):
    """max(3 rows, 1 %) is not yet a finding; one row more is."""
    limit = max(FEWEST, n // 100)
    assert not count("free_attack", limit, n).raised
    assert count("free_attack", limit + 1, n).raised


def test_a_share_is_held_against_its_page():
    """At the limit it is not raised, above it is."""
    assert not share("gradients", PAGES["gradients"].limit).raised
    assert share("gradients", PAGES["gradients"].limit + 1e-9).raised


def test_what_cannot_be_diagnosed_is_refused(plain, rows):
    """Attacks over two balls; a model that gets nothing right."""
    with pytest.raises(ValueError, match="one ball"):
        verdict(plain, rows, white=(APGD(Linf(0.1)), APGD(Linf(0.2))))
    with pytest.raises(ValueError, match="none of 80 rows"):
        diagnose(plain, rows.test.x[:80], (rows.test.y[:80] + 1) % 10, white=WHITE, free=FREE, seed=0)
