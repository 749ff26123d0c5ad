"""The bracket: what is certified cannot be broken, or the run fails and says which rows."""

import pandas as pd
import pytest
import torch
from scipy.stats import binom

from aisec_lab.defenses import ABSTAIN, Certificate
from aisec_lab.evaluation import bracket, certified_by_smoothing
from aisec_lab.evaluation import certified as certified_module


def certificates(flags, level=0.1):
    return pd.DataFrame(
        {"knob": "Linf", "level": level, "row": range(len(flags)), "label": 0, "certified": list(map(bool, flags))}
    )


def outcomes(flags, level=0.1):
    return pd.DataFrame({"knob": "Linf", "level": level, "row": range(len(flags)), "survives": list(map(bool, flags))})


def test_a_bracket_that_holds_gives_both_accuracies():
    """Level by level, on the same rows."""
    certified = pd.concat([certificates([1, 1, 0, 0], 0.1), certificates([1, 0, 0, 0], 0.2)])
    survives = pd.concat([outcomes([1, 1, 1, 0], 0.1), outcomes([1, 1, 0, 0], 0.2)])
    table = bracket(certified, survives)
    assert table.level.tolist() == [0.1, 0.2]
    assert table.certified_accuracy.tolist() == [0.5, 0.25]
    assert table.robust_accuracy.tolist() == [0.75, 0.5]
    assert table.crossings.tolist() == [0, 0]
    assert table.n.tolist() == [4, 4]


def test_one_crossing_of_a_proof_is_a_bug_though_the_accuracies_are_in_order():
    """Robust accuracy is above certified accuracy, and yet row 1 is certified and broken."""
    with pytest.raises(AssertionError, match=r"1 of 2 rows are certified in Linf and yet misclassified: row 1 at 0.1;"):
        bracket(certificates([1, 1, 0, 0]), outcomes([1, 0, 1, 1]))


def test_certificates_with_confidence_may_fail_as_often_as_they_say():
    """Of 500 at alpha = 0.001: 0.5 are expected, P(5 or more) is 0.00017, P(4 or more) 0.0017. A row counts once."""
    for failures, fails in ((4, False), (5, True)):
        survives = [row >= failures for row in range(500)]
        certified = pd.concat([certificates([1] * 500, level) for level in (0.1, 0.2)])
        empirical = pd.concat([outcomes(survives, level) for level in (0.1, 0.2)])
        if fails:
            with pytest.raises(AssertionError, match="5 of 500 rows .* row 4 at 0.1"):
                bracket(certified, empirical, alpha=0.001)
        else:
            assert bracket(certified, empirical, alpha=0.001).crossings.tolist() == [4, 4]


@pytest.mark.parametrize("robust", [0, 200])
def test_correct_certificates_are_hardly_ever_accused(robust, monkeypatch):
    """200 rows, of which so many are robust: one in 50 is certified by mistake, and broken. At a chance of 0.05 less
    than one run in 20 may be accused."""
    monkeypatch.setattr(certified_module, "CHANCE", 0.05)
    generator, accused, runs = torch.Generator().manual_seed(0), 0, 40
    for _ in range(runs):
        mistakes = (torch.rand(200, generator=generator) < 0.02).tolist()
        flags = [row < robust or mistake for row, mistake in enumerate(mistakes)]
        stands = [row < robust and not mistake for row, mistake in enumerate(mistakes)]
        try:
            bracket(certificates(flags), outcomes(stands), alpha=0.02)
        except AssertionError:
            accused += 1
    assert accused <= binom.ppf(1 - 1e-4, runs, 0.05)


def test_an_abstention_is_not_robust_and_contradicts_nothing():
    """It counts against the robust accuracy; a wrong class, which nobody abstains from, is a crossing."""
    judged = outcomes([1, 0, 0]).assign(abstains=[False, True, False])
    table = bracket(certificates([1, 1, 0]), judged)
    assert (table.robust_accuracy.item(), table.crossings.item()) == (pytest.approx(1 / 3), 0)
    with pytest.raises(AssertionError, match="1 of 2 rows are certified"):
        bracket(certificates([1, 1, 0]), judged.assign(abstains=False))


def test_other_rows_or_levels_are_refused():
    """Certified and empirical accuracy on different samples say nothing about each other."""
    with pytest.raises(ValueError, match=r"Linf 0.1, row 2 is in the attacks alone"):
        bracket(certificates([1, 1]), outcomes([1, 1, 1]))
    with pytest.raises(ValueError, match=r"Linf 0.1, row 0 is in the certificates alone"):
        bracket(certificates([1], 0.1), outcomes([1], 0.2))


def test_a_smoothed_row_is_certified_below_its_radius_for_its_own_class():
    """At the radius itself nothing is proved; an abstention is never certified, not even at 0."""
    certificate = Certificate(torch.tensor([1, 1, ABSTAIN]), torch.tensor([0.5, 0.5, 0.0], dtype=torch.float64))
    records = certified_by_smoothing(certificate, torch.tensor([1, 0, 1]), [0, 0.25, 0.5])
    assert records.knob.unique().tolist() == ["L2"]
    assert records.groupby("level").certified.sum().tolist() == [1, 1, 0]
