"""What a server learns of a client: promises to whole clients, and sums that hide what was summed."""

import math
from dataclasses import dataclass
from typing import NamedTuple

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from aisec_lab.attacks.poisoning.federated import (
    ALittleIsEnough,
    MaliciousClients,
    ModelReplacement,
    SignFlip,
    z_max,
)
from aisec_lab.privacy.federated.client_level import ClientLevel
from aisec_lab.privacy.federated.client_update import ClientUpdate
from aisec_lab.privacy.federated.federation import Federation
from aisec_lab.privacy.federated.rules import FedAvg, Krum, Median, TrimmedMean
from aisec_lab.privacy.federated.secure import MODULUS, SecureAggregation, pairwise_masks
from tests.privacy.test_federated import five, linear, seed


@settings(max_examples=50, deadline=None)
@given(n=st.integers(2, 9), number=st.integers(0, 10**6), bits=st.integers(0, 24))
def test_masks_cancel_to_the_last_bit(n, number, bits):
    """The integers that the server sums are those of the unmasked vectors; the sum is as near as fixed point can be."""
    secure, vectors = SecureAggregation(bits), torch.randn(n, 7, dtype=torch.float64, generator=seed(number))
    masked = secure.mask(vectors, generator=seed(number + 1))
    assert torch.equal(masked.sum(0) % MODULUS, secure.encode(vectors).sum(0) % MODULUS)
    assert masked.min() >= 0
    assert masked.max() < MODULUS
    error = (secure(vectors, generator=seed(number + 1)) - vectors.sum(0)).abs().max()
    assert error <= n / 2 ** (bits + 1) + 1e-12
    exact = (vectors * 2**bits).round().sum(0) / 2**bits
    torch.testing.assert_close(secure(vectors, generator=seed(number)), exact, atol=1e-12, rtol=0)


@pytest.mark.parametrize("subset", [[0], [2], [0, 1], [1, 2]], ids=str)
@pytest.mark.parametrize("value", [0.0, -3.25, 500.0])
def test_what_is_sent_is_uniform_whatever_it_hides(subset, value):
    """One client's vector, and the sum of any two of three: the highest and the lowest byte, by chi squared."""
    vectors = torch.full((3, 50_000), value)
    seen = SecureAggregation().mask(vectors, generator=seed(0))[subset].sum(0) % MODULUS
    for byte in (seen >> 24, seen & 255):
        assert stats.chisquare(byte.bincount(minlength=256).numpy()).pvalue > 1e-4


def test_masks_of_two_rounds_have_nothing_in_common():
    """Each pair of clients draws its mask anew; the sum of all is 0."""
    masks, generator = [], seed(0)
    for _ in range(2):
        masks.append(pairwise_masks(4, 1000, generator=generator))
        assert not (masks[-1].sum(0) % MODULUS).any()
    assert (masks[0] == masks[1]).sum() < 5
    assert (masks[0][0] == masks[0][1]).sum() < 5


@pytest.mark.parametrize(("vectors", "words"), [
    (torch.zeros(1, 3), "the sum of 1 vectors hides nothing"),
    (torch.full((4, 1), 512.0), "must be below 512 in size for the sum of 4 to fit, got 512: lower fraction_bits"),
    (torch.tensor([[math.nan], [0.0]]), "got nan"),
    (torch.tensor([[math.inf], [0.0]]), "got inf"),
])  # fmt: skip
def test_sums_that_cannot_be_hidden_or_held_are_refused(vectors, words):
    with pytest.raises(ValueError, match=words):
        SecureAggregation()(vectors, generator=seed(0))


def test_the_largest_sum_fits():
    """Just below the bound, all of one sign; settings outside are refused."""
    for sign in (1, -1):
        total = SecureAggregation()(torch.full((4, 1), sign * 511.99, dtype=torch.float64), generator=seed(0))
        torch.testing.assert_close(total, torch.tensor([sign * 2047.96], dtype=torch.float64), atol=1e-5, rtol=0)
    with pytest.raises(ValueError, match="fraction_bits must lie in 0..30, got 31"):
        SecureAggregation(31)


PRIVATE = ClientLevel(q=0.6, max_update_norm=0.5, noise_multiplier=1.0)


@pytest.mark.parametrize("private", [None, PRIVATE], ids=["mean", "client level"])
def test_a_federation_under_secure_aggregation_is_the_same(private):
    """Up to fixed point, whoever joins; absent clients mask a zero, so that the server does not see who was there."""
    open_, hidden = (
        Federation(3, ClientUpdate(), secure=secure, client_level=private)(linear(), five(), generator=seed(0)).weights
        for secure in (None, SecureAggregation(22))
    )
    if private is None:
        torch.testing.assert_close(open_, hidden, atol=1e-4, rtol=0)
    else:  # masks and noise are drawn one after the other: the noise is another one
        first = open_[1] - hidden[1]
        assert first.norm() < 5 * math.sqrt(2 * 62) * 0.5 / (0.6 * 5)
        assert first.norm() > 0
        quiet = ClientLevel(0.6, 0.5, 0.0)
        ends = [
            Federation(1, ClientUpdate(), secure=secure, client_level=quiet)(
                linear(), five(), generator=seed(0)
            ).weights
            for secure in (None, SecureAggregation(22))
        ]
        torch.testing.assert_close(*ends, atol=1e-5, rtol=0)


@settings(max_examples=50, deadline=None)
@given(n=st.integers(2, 8), number=st.integers(0, 10**6), size=st.floats(1e-6, 1e6))
def test_no_client_moves_the_sum_further_than_the_norm(n, number, size):
    """Add/remove neighbours: with and without a client, whatever it sends; a short update stays as it is."""
    private, updates = ClientLevel(1.0, 0.7, 0.0), torch.randn(n, 9, dtype=torch.float64, generator=seed(number))
    updates[0] *= size
    clipped = private.clip(updates)
    assert (clipped.sum(0) - private.clip(updates[1:]).sum(0)).norm() <= 0.7 + 1e-9
    short = updates.norm(dim=1) <= 0.7
    torch.testing.assert_close(clipped[short], updates[short])
    torch.testing.assert_close(
        clipped[~short].norm(dim=1), torch.full((int((~short).sum()),), 0.7, dtype=torch.float64)
    )
    assert not private.clip(torch.zeros(2, 3)).any()


def test_the_noise_is_what_the_accountant_is_told():
    """Standard deviation z S over the clients expected, whoever joined; each joins by a coin of its own."""
    private, clients = ClientLevel(0.2, 0.5, 1.5), 50
    total = torch.full((200_000,), 3.0)
    published = private.noisy_mean(total, clients, seed(0))
    assert published.mean().item() == pytest.approx(3.0 / 10, abs=1e-3)
    assert published.std().item() == pytest.approx(1.5 * 0.5 / 10, rel=0.01)
    joined = torch.stack([private.sample_clients(clients, generator) for generator in [seed(1)] for _ in range(2000)])
    assert stats.binomtest(int(joined.sum()), joined.numel(), 0.2).pvalue > 1e-4
    counts = joined.sum(1).double()
    assert counts.var().item() == pytest.approx(50 * 0.2 * 0.8, rel=0.15)  # a fixed number would have none
    assert private.mechanism(7).q == 0.2
    assert private.mechanism(7).sigma == 1.5
    assert private.mechanism(7).steps == 7


def test_all_clients_without_clipping_or_noise_are_a_plain_mean():
    """q = 1, a norm that nothing reaches: each counts once, not by its rows."""

    class Alike(FedAvg):
        def __call__(self, updates, rows):
            return updates.mean(0)

    level = ClientLevel(1.0, 1e6, 0.0)
    ends = [
        Federation(3, ClientUpdate(), **kind)(linear(), five(), generator=seed(0)).weights
        for kind in ({"client_level": level}, {"rule": Alike()})
    ]
    torch.testing.assert_close(*ends, atol=1e-5, rtol=1e-5)
    weighted = Federation(3, ClientUpdate())(linear(), five(), generator=seed(0)).weights
    assert (ends[0] - weighted).norm() > 0.05


def test_a_round_that_nobody_joins_is_noise():
    """It is published all the same: that nobody came is a secret, too."""
    level = ClientLevel(1e-9, 1.0, 1e-9)
    weights = Federation(1, ClientUpdate(), client_level=level)(linear(), five(), generator=seed(0)).weights
    moved = weights[1] - weights[0]
    assert moved.std().item() == pytest.approx(1 / 5, rel=0.4)


@pytest.mark.parametrize("secure", [None, SecureAggregation()], ids=["open", "secure"])
def test_an_attacker_moves_a_round_by_two_norms_at_most(secure):
    """From its own clipped update to the opposite one, however large: over five clients, all of whom join."""
    federation = Federation(1, ClientUpdate(), secure=secure, client_level=ClientLevel(1.0, 0.3, 0.0))
    honest, attacked = (
        federation(linear(), five(), malicious=malicious, generator=seed(0)).weights
        for malicious in (None, MaliciousClients([1], updates=SignFlip(1e4)))
    )
    assert (honest[1] - honest[0]).norm() <= 0.3 + 1e-5
    assert (attacked[1] - honest[1]).norm().item() == pytest.approx(2 * 0.3 / 5, rel=1e-3)


def gaussian_delta(epsilon, sigma):
    """Balle & Wang, 2018, arXiv:1805.06530, theorem 8, for sensitivity 1."""
    over = stats.norm.cdf(1 / (2 * sigma) - epsilon * sigma)
    return over - math.exp(epsilon) * stats.norm.cdf(-1 / (2 * sigma) - epsilon * sigma)


def test_a_promise_to_five_clients_is_vacuous():
    """All join each round: the closed form of the Gaussian mechanism; either epsilon or the noise is past all use."""
    for z in (1.0, 8.0):
        few = ClientLevel(1.0, 1.0, z).guarantee(5, 40, 1e-3)
        assert gaussian_delta(few["epsilon"], z / math.sqrt(40)) == pytest.approx(1e-3, rel=0.02)
        assert few["epsilon"] > 30 or few["noise"] > 1.5
    many = ClientLevel(0.1, 1.0, 1.0).guarantee(500, 40, 1e-3)
    assert many["epsilon"] < 3
    assert many["noise"] == pytest.approx(0.02)
    for clients in (1000, 5000):
        with pytest.raises(ValueError, match="delta"):
            ClientLevel().guarantee(clients, 40, 1e-3)


@pytest.mark.parametrize("make", [
    lambda: ClientLevel(q=0.0),
    lambda: ClientLevel(q=1.1),
    lambda: ClientLevel(max_update_norm=0.0),
    lambda: ClientLevel(noise_multiplier=-1.0),
])  # fmt: skip
def test_impossible_promises_are_refused(make):
    with pytest.raises(ValueError, match="q must lie in"):
        make()


class Sent(NamedTuple):
    attack: object
    expected: object


UPDATES = torch.randn(5, 8, dtype=torch.float64, generator=seed(0))
HONEST = UPDATES[[0, 2, 3]]


@pytest.mark.parametrize("case", [
    Sent(SignFlip(4.0), -4 * UPDATES[[1, 4]]),
    Sent(ModelReplacement(2.5), 2.5 * UPDATES[[1, 4]]),
    Sent(ALittleIsEnough(1.5), (HONEST.mean(0) - 1.5 * HONEST.std(0, correction=0)).expand(2, -1)),
    Sent(
        ALittleIsEnough(),  # one supporter of three honest clients: the normal law's quantile 2/3
        (HONEST.mean(0) - stats.norm.ppf(2 / 3) * HONEST.std(0, correction=0)).expand(2, -1),
    ),
], ids=lambda case: repr(case.attack))  # fmt: skip
def test_malicious_clients_send_what_the_papers_say(case):
    """And the honest ones what they learned."""
    where = MaliciousClients([1, 4], updates=case.attack).select(5)
    sent = case.attack(UPDATES, where, generator=seed(0))
    torch.testing.assert_close(sent[where], case.expected)
    assert torch.equal(sent[~where], UPDATES[~where])


def test_how_far_hides():
    """Of 50 clients 24 need two supporters of 26; of five clients one has none to spare."""
    assert z_max(50, 24) == pytest.approx(stats.norm.ppf(24 / 26))
    assert z_max(5, 1) == 0
    with pytest.raises(ValueError, match="3 of 5 clients are no minority"):
        z_max(5, 3)


def test_replacement_replaces_the_mean():
    """Where the others have converged, the mean is the attacker's update."""
    updates = torch.zeros(5, 4)
    updates[2] = torch.arange(4.0)
    sent = ModelReplacement(5.0)(updates, torch.arange(5) == 2, generator=seed(0))
    torch.testing.assert_close(FedAvg()(sent, torch.ones(5)), updates[2])


@pytest.mark.parametrize(("make", "words"), [
    (lambda: MaliciousClients([]), "different numbers from 0 up"),
    (lambda: MaliciousClients([1, 1], updates=SignFlip()), "different numbers"),
    (lambda: MaliciousClients([-1], updates=SignFlip()), "different numbers"),
    (lambda: MaliciousClients([0]), "do nothing"),
    (lambda: SignFlip(0.0), "factor must be positive"),
    (lambda: ModelReplacement(math.inf), "factor must be positive"),
    (lambda: SignFlip()(UPDATES, torch.zeros(5, dtype=torch.bool), generator=seed(0)), "name a client"),
    (lambda: SignFlip()(UPDATES, torch.ones(4, dtype=torch.bool), generator=seed(0)), r"must be bool \(5,\)"),
    (lambda: ALittleIsEnough(1.0)(UPDATES, torch.ones(5, dtype=torch.bool), generator=seed(0)), "leave some"),
])  # fmt: skip
def test_impossible_attackers_are_refused(make, words):
    with pytest.raises(ValueError, match=words):
        make()


@dataclass(frozen=True)
class Sends:
    """An attacker's update, of one number."""

    number: float

    def __call__(self, updates, where, *, generator):
        return torch.where(where[:, None], self.number, updates)


NOT_FINITE = [math.nan, math.inf, -math.inf]


@pytest.mark.parametrize("number", NOT_FINITE)
@pytest.mark.parametrize("secure", [None, SecureAggregation(22)], ids=["open", "secure"])
def test_an_update_that_is_not_finite_is_left_out_of_the_mean(number, secure):
    """The model is what it would be without that client, and the record says how many there were."""
    malicious = MaliciousClients([1], updates=Sends(number))
    found = Federation(2, ClientUpdate(), secure=secure)(linear(), five(), malicious=malicious, generator=seed(0))
    assert found.left_out == (1, 1)
    assert found.weights.isfinite().all()
    sizes = torch.tensor([len(rows) for rows in five()])
    kept = [client for client in range(5) if client != 1]
    seeds = torch.Generator().manual_seed(0)
    torch.randint(2**62, (), generator=seeds)  # the attacker's
    own = torch.randint(2**62, (6,), generator=seeds).tolist()
    own.pop()  # the server's
    updates = [ClientUpdate()(linear(), five()[client], rounds=2, generator=seed(own[client])) for client in kept]
    mean = FedAvg()(torch.stack(updates), sizes[kept])
    torch.testing.assert_close(found.weights[1] - found.weights[0], mean, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("number", NOT_FINITE)
@pytest.mark.parametrize("rule", [Krum(1), TrimmedMean(1), Median()], ids=repr)
def test_for_a_rule_that_withstands_attackers_it_is_an_update_of_zero(number, rule):
    """It does not bring the rule below the clients that it needs."""
    ends = []
    for sent in (number, 0.0):
        malicious = MaliciousClients([1], updates=Sends(sent))
        ends.append(Federation(2, ClientUpdate(), rule)(linear(), five(), malicious=malicious, generator=seed(0)))
    assert torch.equal(ends[0].weights, ends[1].weights)
    assert (ends[0].left_out, ends[1].left_out) == ((1, 1), (0, 0))


def test_a_promise_to_clients_counts_it_as_zero():
    malicious = MaliciousClients([1], updates=Sends(math.nan))
    level = ClientLevel(1.0, 0.5, 1.0)
    found = Federation(2, ClientUpdate(), client_level=level)(linear(), five(), malicious=malicious, generator=seed(0))
    assert found.weights.isfinite().all()
    assert found.left_out == (1, 1)


def test_a_round_without_a_finite_update_ends_the_federation():
    """Loudly; and so does a finite update past the end of float32's range."""
    everyone = MaliciousClients(range(5), updates=Sends(math.nan))
    with pytest.raises(FloatingPointError, match="no update of round 1 is finite"):
        Federation(2, ClientUpdate())(linear(), five(), malicious=everyone, generator=seed(0))

    class Overflowing(FedAvg):
        def __call__(self, updates, rows):
            return super().__call__(updates, rows) * 1e39

    with pytest.raises(FloatingPointError, match="the model is not finite after round 1"):
        Federation(2, ClientUpdate(), Overflowing())(linear(), five(), generator=seed(0))


@pytest.mark.parametrize("rule", [FedAvg(), Krum(1), TrimmedMean(1), Median()], ids=repr)
def test_a_rule_itself_refuses_what_is_not_finite(rule):
    updates = torch.zeros(5, 3)
    updates[3, 1] = math.nan
    with pytest.raises(ValueError, match=r"updates must be finite, got NaN or infinity from \[3\]"):
        rule(updates, torch.ones(5))
