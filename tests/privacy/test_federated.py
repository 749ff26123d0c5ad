"""Federations: what the rounds compute, what the rules withstand, and what each client has spent."""

from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import NamedTuple

import pytest
import torch
import torch.nn.functional as F
from hydra.utils import instantiate
from hypothesis import given, settings
from hypothesis import strategies as st
from omegaconf import OmegaConf
from torch.nn.utils import parameters_to_vector, vector_to_parameters

from aisec_lab.attacks import LabelFlips
from aisec_lab.attacks.inference.gradient_inversion import GradientInversion
from aisec_lab.attacks.poisoning.federated import MaliciousClients, ModelReplacement, SignFlip
from aisec_lab.data import Dataset, Splits
from aisec_lab.data.readers import breast_cancer
from aisec_lab.models import MLP
from aisec_lab.models.training.fit import shuffled
from aisec_lab.privacy.accounting import SampledGaussian, epsilon
from aisec_lab.privacy.clipping import FlatClipping
from aisec_lab.privacy.dp_sgd import DPSGD
from aisec_lab.privacy.federated.client_level import ClientLevel
from aisec_lab.privacy.federated.client_update import ClientUpdate
from aisec_lab.privacy.federated.federation import Federation
from aisec_lab.privacy.federated.outcomes import epsilon_by_round, observed_gradient, run_federation
from aisec_lab.privacy.federated.rules import FedAvg, Krum, Median, TrimmedMean
from aisec_lab.privacy.federated.secure import SecureAggregation
from aisec_lab.privacy.federated.split import Dirichlet, split_evenly
from aisec_lab.privacy.sampling import poisson_batches

CONFIG = Path(__file__).parents[2] / "configs/privacy/federated.yaml"


def seed(number):
    return torch.Generator().manual_seed(number)


@cache
def hospitals():
    raw = breast_cancer([])
    parts = {name: (torch.from_numpy(x), torch.from_numpy(y)) for name, (x, y) in raw.splits.items()}
    return Splits({name: Dataset(x, y, raw.classes, "breast_cancer") for name, (x, y) in parts.items()}, {})


@cache
def five():
    return Dirichlet(5, 1.0, smallest=40)(hospitals().train, generator=seed(0))


def linear(number=1):
    return MLP(())((30,), 2, generator=seed(number))


def naive_krum(updates, f):
    scores = []
    for i, one in enumerate(updates):
        near = sorted(
            sum((a - b) ** 2 for a, b in zip(one, other, strict=True)) for j, other in enumerate(updates) if j != i
        )
        scores.append(sum(near[: len(updates) - f - 2]))
    return sorted(range(len(updates)), key=lambda i: scores[i])


def naive_trimmed(updates, f):
    columns = [sorted(column)[f : len(updates) - f] for column in zip(*updates, strict=True)]
    return [sum(column) / len(column) for column in columns]


@settings(max_examples=40, deadline=None)
@given(n=st.integers(5, 12), number=st.integers(0, 10**6), data=st.data())
def test_rules_meet_loops_over_lists(n, number, data):
    """Written down number by number."""
    f = data.draw(st.integers(0, (n - 3) // 2))
    updates, rows = torch.randn(n, 3, dtype=torch.float64, generator=seed(number)), torch.arange(n) + 1
    plain = updates.tolist()
    order = naive_krum(plain, f)
    assert Krum(f, kept=n).select(updates).tolist() == order
    torch.testing.assert_close(Krum(f)(updates, rows), updates[order[0]])
    torch.testing.assert_close(Krum(f, kept=3)(updates, rows), updates[order[:3]].mean(0))
    torch.testing.assert_close(
        TrimmedMean(f)(updates, rows), torch.tensor(naive_trimmed(plain, f), dtype=torch.float64)
    )
    middle = torch.tensor(naive_trimmed(plain, (n - 1) // 2), dtype=torch.float64)
    torch.testing.assert_close(Median()(updates, rows), middle)
    weighted = [sum((i + 1) * one[j] for i, one in enumerate(plain)) / (n * (n + 1) / 2) for j in range(3)]
    torch.testing.assert_close(FedAvg()(updates, rows), torch.tensor(weighted, dtype=torch.float64))


@settings(max_examples=60, deadline=None)
@given(
    n=st.integers(5, 11),
    number=st.integers(0, 10**6),
    evil=st.floats(-1e30, 1e30, allow_nan=False),
    data=st.data(),
)
def test_a_minority_cannot_leave_the_range_of_the_honest(n, number, evil, data):
    """Trimmed mean and median stay in it, in each coordinate, whatever is sent; the mean does not."""
    f = data.draw(st.integers(1, (n - 1) // 2))
    updates, rows = torch.randn(n, 5, dtype=torch.float64, generator=seed(number)), torch.ones(n)
    honest = updates[f:]
    updates[:f] = evil * torch.randn(f, 5, dtype=torch.float64, generator=seed(number + 1))
    for rule in (TrimmedMean(f), Median()):
        found = rule(updates, rows)
        assert (found >= honest.amin(0) - 1e-9).all()
        assert (found <= honest.amax(0) + 1e-9).all()
    if abs(evil) > 1e6:
        assert not ((FedAvg()(updates, rows) >= honest.amin(0)) & (FedAvg()(updates, rows) <= honest.amax(0))).all()


@settings(max_examples=60, deadline=None)
@given(f=st.integers(1, 4), more=st.integers(0, 3), number=st.integers(0, 10**6), far=st.floats(20, 1e6))
def test_krum_chooses_an_honest_client(f, more, number, far):
    """Of 2 f + 3 or more; the attackers send one and the same, so that each has neighbours at distance 0."""
    n = 2 * f + 3 + more
    updates = F.normalize(torch.randn(n, 6, dtype=torch.float64, generator=seed(number)), dim=1)
    updates[:f] = far * F.normalize(torch.randn(6, dtype=torch.float64, generator=seed(number + 1)), dim=0)
    assert Krum(f).select(updates).item() >= f
    assert (Krum(f, kept=n - f).select(updates) >= f).all()


def test_one_step_on_all_rows_is_gradient_descent():
    """FedAvg of one full-batch step each, weighted by rows, is a step on the pooled rows."""
    rows, model = hospitals().train, linear()
    central = linear()
    federated = Federation(6, ClientUpdate(1, 1000, 0.5))(model, five(), generator=seed(0))
    for reached in federated.weights[1:]:
        grads = torch.autograd.grad(F.cross_entropy(central(rows.x), rows.y), list(central.parameters()))
        with torch.no_grad():
            for weight, grad in zip(central.parameters(), grads, strict=True):
                weight -= 0.5 * grad
        torch.testing.assert_close(reached, parameters_to_vector(central.parameters()), atol=2e-6, rtol=1e-5)
    assert not model.training
    torch.testing.assert_close(parameters_to_vector(model.parameters()), federated.weights[-1])


PRIVATE = DPSGD(noise_multiplier=0.0, delta=1e-3, clipping=FlatClipping(1e6))


@pytest.mark.parametrize("mu", [0.0, 0.7])
@pytest.mark.parametrize("privacy", [None, PRIVATE], ids=["plain", "private"])
def test_a_client_descends_its_objective(mu, privacy):
    """Against autograd on the loss plus mu / 2 times the squared distance to what was sent, over the same batches.

    With a bound that nothing reaches and no noise, DP-SGD differs only in its batches and in what it divides by.
    """
    rows, model, client_update = five()[0], linear(), ClientUpdate(3, 16, 0.5, mu, privacy)
    update = client_update(model, rows, rounds=2, generator=seed(3))
    copied, generator = linear(), seed(3)
    sent = parameters_to_vector(copied.parameters()).detach()
    for _ in range(3):
        draw = shuffled if privacy is None else poisson_batches
        for batch in draw(len(rows), 16, generator):
            losses = F.cross_entropy(copied(rows.x[batch]), rows.y[batch], reduction="sum")
            loss = losses / (len(batch) if privacy is None else 16)
            distance = (parameters_to_vector(copied.parameters()) - sent).square().sum()
            grads = torch.autograd.grad(loss + mu / 2 * distance, list(copied.parameters()))
            with torch.no_grad():
                for weight, grad in zip(copied.parameters(), grads, strict=True):
                    weight -= 0.5 * grad
            if privacy is not None:
                torch.randn(60, generator=generator)  # the noise of weights and bias, drawn though it counts 0
                torch.randn(2, generator=generator)
    torch.testing.assert_close(update, parameters_to_vector(copied.parameters()).detach() - sent, atol=1e-5, rtol=1e-4)
    assert torch.equal(parameters_to_vector(model.parameters()), sent)


def test_the_same_to_the_bit_and_no_client_touches_anothers_chance():
    """Again, the same; with other rows or an attacker at one client, the others first send what they did."""
    federation = Federation(2, ClientUpdate(), Krum())
    runs = [federation(linear(), five(), generator=seed(0)).weights for _ in range(2)]
    assert torch.equal(*runs)
    sent = []
    attacker = MaliciousClients((4,), rows=LabelFlips(0.5))
    for clients, malicious in ((five(), None), ([*five()[:4], hospitals().test], None), (five(), attacker)):
        seen = []

        @dataclass(frozen=True)
        class Spy(FedAvg):
            def __call__(self, updates, rows, seen=seen):
                seen.append(updates.clone())
                return super().__call__(updates, rows)

        Federation(1, ClientUpdate(privacy=DPSGD(noise_multiplier=1.0, delta=1e-3)), Spy())(
            linear(), clients, malicious=malicious, generator=seed(0)
        )
        sent.append(seen[0])
    for other in sent[1:]:
        assert torch.equal(sent[0][:4], other[:4])
        assert not torch.equal(sent[0][4], other[4])


STEPS: list[int] = []


@dataclass(frozen=True)
class Counted(FlatClipping):
    """Counts the noisy steps that were really taken."""

    def next_max_grad_norm(self, bound, norms, batch_size, generator):
        STEPS[-1] += 1
        return bound


def test_each_client_spends_for_its_own_steps():
    """Round by round: q from its own rows, as many steps as were taken, composed by PLD as one run of them all."""
    privacy, clients = DPSGD(noise_multiplier=1.5, delta=1e-3, clipping=Counted()), five()
    federation = Federation(4, ClientUpdate(2, 16, privacy=privacy))
    spent = federation.client_update.mechanism(48, 4)
    STEPS.append(0)
    federated = federation(linear(), clients, generator=seed(0))
    assert sum(each.steps for ledger in federated.ledger for each in ledger) == STEPS[-1]
    for rows, ledger in zip(clients, federated.ledger, strict=True):
        assert ledger == (SampledGaussian(16 / len(rows), 1.5, 2 * -(-len(rows) // 16)),) * 4
    assert federated.ledger[0][0] == spent
    by_round = epsilon_by_round(federated.ledger[0], 1e-3)
    assert by_round == sorted(by_round)
    whole = epsilon([SampledGaussian(16 / 48, 1.5, 24)], 1e-3)
    assert whole <= by_round[3] <= 1.001 * whole
    smallest, largest = (epsilon_by_round(federated.ledger[number], 1e-3)[-1] for number in (2, 1))
    assert smallest > 2 * largest  # the same noise, fewer rows


def test_a_target_is_kept_over_all_rounds():
    """The epsilon of a client is for the whole federation, and not much is left of it."""
    ledger = [ClientUpdate(1, 32, privacy=DPSGD(epsilon=3.0, delta=1e-3)).mechanism(54, 5)] * 5
    assert 2.97 < epsilon(ledger, 1e-3) <= 3.0
    assert epsilon_by_round(ledger[:1], 1e-3)[0] < 2


def test_who_stays_away_spends_nothing():
    """With clients sampled, rows are charged for the rounds that their client joined; without noise, without end."""
    federation = Federation(
        6, ClientUpdate(privacy=DPSGD(noise_multiplier=1.5, delta=1e-3)), client_level=ClientLevel(0.5)
    )
    federated = federation(linear(), five(), generator=seed(0))
    steps = torch.tensor([[each.steps for each in ledger] for ledger in federated.ledger])
    assert 3 < (steps > 0).sum() < 27
    for ledger in federated.ledger[:2]:
        flat = epsilon_by_round(ledger, 1e-3)
        for before, after, each in zip([0.0, *flat[:-1]], flat, ledger, strict=True):
            assert after > before if each.steps else after == before
    assert federated.clients == (SampledGaussian(0.5, 1.0, 1),) * 6
    open_book = Federation(2, ClientUpdate())(linear(), five(), generator=seed(0)).ledger[0]
    assert epsilon_by_round(open_book, 1e-3) == [float("inf")] * 2


@cache
def share_right(rule, malicious=None, privacy=None):
    federation = Federation(10, ClientUpdate(1, 16, 1.0, privacy=privacy), rule)
    test = hospitals().test
    return run_federation(federation, MLP(()), five(), test, malicious=malicious, seed=0).correct[-1] / len(test)


@pytest.mark.parametrize("malicious", [
    MaliciousClients((0,), updates=SignFlip(10.0)),
    MaliciousClients((0,), rows=LabelFlips(1.0), updates=ModelReplacement(10.0)),
], ids=["sign flip", "label flips"])  # fmt: skip
def test_one_hospital_ruins_the_mean_and_not_the_rest(malicious):
    """12 % of the rows, ten times over."""
    assert share_right(FedAvg()) > 0.94
    assert share_right(FedAvg(), malicious) < 0.75
    for rule in (Krum(1), Krum(1, kept=3), TrimmedMean(1), Median()):
        assert share_right(rule) > 0.88
        assert share_right(rule, malicious) > 0.85


def test_rows_are_private_at_little_cost():
    """Against chance, 0.63; that the noise is really there shows in the weights."""
    privacy = DPSGD(noise_multiplier=2.0, delta=1e-3)
    assert share_right(FedAvg(), privacy=privacy) > 0.9
    ends = [
        Federation(1, ClientUpdate(privacy=replace(privacy, noise_multiplier=z)))(
            linear(), five(), generator=seed(0)
        ).weights
        for z in (0.0, 2.0)
    ]
    assert (ends[0] - ends[1]).norm() > 0.1


def test_a_server_inverts_an_update_unless_rows_are_private():
    """One row, one step: its inputs come back to a thousandth; out of a private update, no nearer than the mean."""
    rows, model = hospitals().train.subset(torch.tensor([3])), linear().eval()
    attack, errors = GradientInversion(steps=200), []
    for privacy in (None, DPSGD(noise_multiplier=2.0, delta=1e-3)):
        seen = observed_gradient(ClientUpdate(1, 1, 1.0, privacy=privacy), model, rows, generator=seed(5))
        if privacy is None:
            truth = torch.autograd.grad(F.cross_entropy(model(rows.x), rows.y), list(model.parameters()))
            torch.testing.assert_close(seen, list(truth), atol=1e-6, rtol=1e-4)
        found = attack(model, seen, y=rows.y, shape=(30,), rows=1, generator=seed(6))
        errors.append((found.x - rows.x).square().mean().sqrt().item())
    guess = (hospitals().train.x.mean(0) - rows.x).square().mean().sqrt().item()
    assert errors[0] < 1e-3
    assert errors[1] > guess > 0.1
    with pytest.raises(ValueError, match="the update is one by 3 steps: raise batch_size to 48"):
        observed_gradient(ClientUpdate(), model, five()[0], generator=seed(0))


def test_rows_are_shared_out():
    """Each once; the smaller alpha, the more one-sided the clients."""
    train = hospitals().train
    spreads = []
    for alpha in (0.3, 100.0):
        clients = Dirichlet(5, alpha, smallest=5)(train, generator=seed(0))
        rows = torch.cat([client.x for client in clients])
        assert torch.equal(rows.double().sum(1).sort().values, train.x.double().sum(1).sort().values)
        assert min(map(len, clients)) >= 5
        spreads.append(torch.tensor([client.y.double().mean() for client in clients]).std().item())
    assert spreads[0] > 3 * spreads[1]
    even = split_evenly(train, 7, generator=seed(0))
    assert {len(client) for client in even} == {57, 58}
    assert torch.equal(torch.cat([c.y for c in even]).bincount(), train.y.bincount())


class Refused(NamedTuple):
    words: str
    make: object


REFUSED = [
    *(
        Refused(
            f"{type(rule).__name__} cannot see the updates that secure aggregation hides: use FedAvg",
            lambda rule=rule: Federation(rule=rule, secure=SecureAggregation()),
        )
        for rule in (Krum(), TrimmedMean(), Median())
    ),
    Refused("a sum of clipped updates, not Median", lambda: Federation(rule=Median(), client_level=ClientLevel())),
    Refused("rounds must be positive, got 0", lambda: Federation(0)),
    Refused("at least one client, got none", lambda: Federation()(linear(), [], generator=seed(0))),
    Refused(
        r"there are clients 0..4, got malicious ones \[5\]",
        lambda: Federation()(linear(), five(), malicious=MaliciousClients([5], updates=SignFlip()), generator=seed(0)),
    ),
    Refused(
        "BatchNorm1d.* use GroupNorm",
        lambda: Federation()(
            torch.nn.Sequential(torch.nn.BatchNorm1d(30), torch.nn.Linear(30, 2)), five(), generator=seed(0)
        ),
    ),
    Refused("Krum against 2 attackers needs 7 clients .* got 5", lambda: Krum(2)(torch.zeros(5, 2), torch.ones(5))),
    Refused("Krum against 0 .* the 6 that are kept, got 5", lambda: Krum(0, 6)(torch.zeros(5, 2), torch.ones(5))),
    Refused("needs 5 clients, got 4", lambda: TrimmedMean(2)(torch.zeros(4, 2), torch.ones(4))),
    Refused("no update", lambda: Median()(torch.zeros(0, 2), torch.ones(0))),
    Refused("byzantine must not be negative", lambda: Krum(-1)),
    Refused("byzantine must not be negative", lambda: TrimmedMean(-1)),
    Refused("must be positive", lambda: ClientUpdate(epochs=0)),
    Refused("proximal not negative", lambda: ClientUpdate(proximal=-1.0)),
    Refused("release=False", lambda: ClientUpdate(privacy=DPSGD(epsilon=1.0, release=True))),
    Refused(
        "at least batch_size = 64 rows, got 48",
        lambda: ClientUpdate(batch_size=64, privacy=DPSGD(noise_multiplier=1.0)).mechanism(48, 1),
    ),
    Refused("must be positive", lambda: Dirichlet(0)),
    Refused("raise alpha", lambda: Dirichlet(5, 0.01, smallest=79)(hospitals().train, generator=seed(0))),
    Refused("shared by 1 to 400 clients, got 401", lambda: split_evenly(hospitals().train, 401, generator=seed(0))),
]  # fmt: skip


@pytest.mark.parametrize("case", REFUSED, ids=lambda case: case.words[:40])
def test_what_makes_no_sense_is_refused(case):
    with pytest.raises(ValueError, match=case.words):
        case.make()


def test_a_loss_without_bounds_is_named():
    model = linear()
    vector_to_parameters(torch.full((62,), 1e38), model.parameters())
    with pytest.raises(FloatingPointError, match="lower learning_rate"):
        Federation(1)(model, five(), generator=seed(0))


def test_the_configuration_makes_what_it_says():
    """Every part of it that names a class."""
    cfg = OmegaConf.load(CONFIG)
    rules = {name: instantiate(rule) for name, rule in cfg.rules.items()}
    assert rules == {
        "fedavg": FedAvg(),
        "krum": Krum(1),
        "multi_krum": Krum(1, 3),
        "trimmed_mean": TrimmedMean(1),
        "median": Median(),
    }
    client_update = replace(instantiate(cfg.client_update), privacy=instantiate(cfg.privacy), proximal=cfg.proximal)
    for attack in cfg.attacks.values():
        wrong = instantiate(attack)
        federated = Federation(1, client_update)(linear(), five(), malicious=wrong, generator=seed(0))
        assert federated.weights.isfinite().all()
    many, few = instantiate(cfg.client_level.privacy), instantiate(cfg.few.privacy)
    rounds, delta = cfg.client_level.rounds, cfg.client_level.delta
    assert many.guarantee(cfg.client_level.clients, rounds, delta)["epsilon"] < 3
    assert few.guarantee(cfg.few.clients, rounds, delta)["epsilon"] > 30
    assert instantiate(cfg.inversion) == GradientInversion(steps=300)
    assert len(instantiate(cfg.split)(hospitals().train, generator=seed(cfg.seed))) == 5
    assert instantiate(cfg.client_level.client_update).privacy is None
