"""From outcomes on texts to rows: fresh draws judge, and certificates are held against attacks."""

import pytest
import torch
from torch import nn

from aisec_lab.attacks import GreedyWordReplacement, Homoglyphs, HotFlip
from aisec_lab.defenses import RandomMasking, WordCertificate, certify_words
from aisec_lab.evaluation import attack_texts, certified_texts, predict_texts, tidy, word_bracket, word_curve
from tests.reviews import TRAINING, classifier, seed, splits

LEVELS = [0.1, 0.2, 0.3]


def test_a_curve_is_what_the_attack_reports():
    """Where nothing is drawn, accuracy at a share is the share of texts whose distance is larger."""
    test, model = splits().test, classifier()
    found = attack_texts(GreedyWordReplacement(Homoglyphs()), model, test, seed=3)
    rows = word_curve(found, model, test, LEVELS, seed=3, attack="homoglyphs", model="bag", data="reviews")
    assert [row["value"] for row in rows] == [(found.distance > level).double().mean().item() for level in LEVELS]
    table = tidy([row | {"study": "evasion", "defense": "none"} for row in rows])
    assert table.seed.tolist() == [3] * 3
    assert table.queries.iloc[0] == found.queries.double().mean().item()


class Coin(nn.Module):
    """Says 0 or 1 by chance, whatever the text."""

    generator: torch.Generator | None = None

    def forward(self, texts):
        assert self.generator is not None
        lead = torch.randn(len(texts), generator=self.generator)
        return torch.stack([lead, torch.zeros(len(texts))], 1)


def test_a_lucky_draw_is_no_success():
    """An attack on a coin wins every draw it picks; judged anew, the coin is right as often as before."""
    test = splits().test
    coin = Coin().eval()
    found = attack_texts(GreedyWordReplacement(Homoglyphs()), coin, test, seed=0)
    assert found.distance.isinf().double().mean() < 0.2
    (row,) = word_curve(found, coin, test, [0.3], seed=0)
    assert row["value"] > 0.3
    lucky = [len(path) == 1 for path in found.paths]
    assert sum(lucky) < 0.35 * len(test)  # a first draw that is wrong, one in two, does not end the search


def test_certificates_hold_under_attack():
    """Certified below, attacked above; certificates of another model's texts are found out."""
    test = splits().test.subset(torch.arange(40))
    model = RandomMasking(0.2, 20)(classifier(), data=splits(), training=TRAINING, generator=seed(0))
    settings = {"keep": 0.2, "n": 400}
    certificate = certify_words(model.model, test.texts, generator=seed(1), **settings)
    found = attack_texts(HotFlip(0.1), model, test, seed=0)
    judged = certify_words(model.model, found.within(0.1), generator=seed(2), **settings)
    held = word_bracket(certificate, judged, test.y, 0.1).iloc[0]
    (row,) = certified_texts(certificate, test.y, [0.1], attack="none")
    assert held.certified_accuracy == row["value"] > 0.2
    assert row["value"] <= held.robust_accuracy < 1
    boast = WordCertificate(test.y, torch.full((40,), 99), certificate.lengths, 0.001)
    with pytest.raises(AssertionError, match="certified in share of words and yet misclassified"):
        word_bracket(boast, judged, test.y, 0.1)


def test_answers_do_not_depend_on_the_generator_of_a_fixed_model():
    """And are the model's."""
    test = splits().test
    assert torch.equal(predict_texts(classifier(), test.texts, seed=0), predict_texts(classifier(), test.texts, seed=1))
