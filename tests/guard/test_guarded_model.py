"""The guard as an attacker sees it: a classifier with a reject option, which is the chain's own decision."""

from dataclasses import replace
from functools import partial

import pytest
import torch

from aisec_lab.attacks import BPDA, PGD, Adaptive, DetectorAwareMargin, EvadeDetector, Linf
from aisec_lab.core.validation import check_class_count
from aisec_lab.guard import FilterChain, GuardedModel, ModelReader
from aisec_lab.models import logits_of

EPS = 0.15


def seed(number):
    return torch.Generator().manual_seed(number)


def wins(model, x, y):
    return (EvadeDetector().margin(logits_of(model, x), y) < 0).double().mean().item()


def test_the_last_logit_wins_exactly_where_the_chain_rejects(filters, classifier, splits):
    x, y = splits.test.x[:200], splits.test.y[:200]
    both = torch.cat([x, PGD(Linf(EPS))(classifier, x, y, generator=seed(0))])
    model = GuardedModel(filters)
    logits = logits_of(model, both)
    rejected = FilterChain(filters).check(both, client="a").rejected
    assert 0 < rejected.sum() < len(both)
    assert torch.equal(logits.argmax(1) == 10, rejected)
    assert torch.equal(logits[:, :10], logits_of(classifier, both))
    assert torch.equal(model.excess(both).amax(1) > 0, rejected)
    check_class_count(logits)


@pytest.mark.parametrize(
    ("chosen", "view"), [(slice(1, 2), lambda model: model), (slice(None), BPDA())], ids=["mahalanobis", "all"]
)
def test_an_attacker_who_knows_the_guard_gets_past_it(chosen, view, filters, classifier, splits):
    """Points against the bare model are rejected more often than the guard's own false alarms; its own pass."""
    x, y = splits.test.x[:100], splits.test.y[:100]
    model = GuardedModel(filters[chosen])
    unaware = PGD(Linf(EPS))(classifier, x, y, generator=seed(0))
    knowing = Adaptive(Linf(EPS), partial(PGD, loss=DetectorAwareMargin(), goal=EvadeDetector()), view)
    aware = knowing(model, x, y, generator=seed(0))
    assert (aware - x).abs().max() <= EPS + 1e-6
    clean, rejected = ((logits_of(model, z).argmax(1) == 10).double().mean() for z in (x, unaware))
    assert rejected > clean + 0.05
    assert wins(model, aware, y) > wins(model, unaware, y) + 0.05


def test_no_filter_and_filters_of_two_models_are_refused(filters):
    foreign = replace(filters[1], reader=ModelReader(filters[1].reader.model))
    for chosen in ([], [filters[0], foreign]):
        with pytest.raises(ValueError, match="share one model's reader"):
            GuardedModel(chosen)
