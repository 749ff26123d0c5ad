"""Shares, levels, counts and bounds out of their ranges: a line says which, where there was a number or silence."""

import math

import numpy as np
import pandas as pd
import pytest
import torch

from aisec_lab.attacks import HotFlip
from aisec_lab.attacks.text.attack import max_changes
from aisec_lab.core import bounded_mean
from aisec_lab.defenses import RandomMasking, Smoothing
from aisec_lab.defenses.certification.smoothing_certificate import Certificate, max_certifiable_radius
from aisec_lab.defenses.text.masking_certificate import WordCertificate
from aisec_lab.evaluation import bracket, detection_rates
from aisec_lab.evaluation.membership import tpr_at_fpr
from aisec_lab.privacy.auditing.canaries import gaussian_delta, gaussian_epsilon
from aisec_lab.privacy.releases import consistent, round_to_integers

NAN = math.nan
ONE = torch.tensor([1])
PROVED = Certificate(ONE, torch.tensor([0.5], dtype=torch.float64))
WORDS = WordCertificate(ONE, ONE, torch.tensor([3]), 0.001)
SCORES, WHERE = torch.arange(6.0), torch.arange(6) > 3
CERTIFIED = pd.DataFrame({"knob": ["L2"], "level": [0.1], "row": [0], "certified": [True]})
BROKEN = CERTIFIED.drop(columns="certified").assign(survives=False)


def seed():
    return torch.Generator().manual_seed(0)


@pytest.mark.parametrize(
    ("ask", "message"),
    [
        (lambda: max_certifiable_radius(0.25, 100, 5), "alpha.*got 5"),
        (lambda: max_certifiable_radius(NAN, 100, 0.01), "sigma.*got nan"),
        (lambda: max_certifiable_radius(0.25, 0, 0.01), "n counts"),
        (lambda: Smoothing(samples=NAN), "samples counts.*got nan"),
        (lambda: Smoothing(samples=10.5), "integer of at least 1, got 10.5"),
        (lambda: RandomMasking(samples=NAN), "samples counts.*got nan"),
        (lambda: PROVED.holds(ONE, NAN), "eps.*got nan"),
        (lambda: PROVED.holds(ONE, -0.1), "eps.*got -0.1"),
        (lambda: WORDS.holds(ONE, NAN), r"share.*\[0, 1\], got nan"),
        (lambda: WORDS.holds(ONE, 30), r"share.*\[0, 1\], got 30"),
        (lambda: max_changes(10, -0.1), r"share.*\[0, 1\]"),
        (lambda: HotFlip(NAN), r"share.*\[0, 1\]"),
        (lambda: bounded_mean([0.5], -math.inf, 1), "finite bounds"),
        (lambda: bounded_mean([0.5], 1, 0), "the least first"),
        (lambda: bracket(CERTIFIED, BROKEN, alpha=NAN), "alpha.*got nan"),
        (lambda: detection_rates(SCORES, WHERE, 1.0, generator=seed()), r"fpr.*\[0, 1\), got 1.0"),
        (lambda: detection_rates(SCORES, WHERE, -0.1, generator=seed()), r"fpr.*\[0, 1\), got -0.1"),
        (lambda: tpr_at_fpr(SCORES, WHERE, 0.5, generator=seed(), resamples=0), "resamples must be at least 1"),
        (lambda: gaussian_delta(0.0, 1.0), "mu must be positive"),
        (lambda: gaussian_epsilon(1.0, 0.0), r"delta lie in \(0, 1\)"),
        (lambda: gaussian_epsilon(np.array([1.0, NAN]), 0.1), "mu must be at least 0"),
        (lambda: consistent([1.0, NAN], 1), "1 that are not"),
        (lambda: consistent([1.0, 2.0], NAN), "total nan"),
        (lambda: round_to_integers([0.5, math.inf]), "1 that are not"),
    ],
)
def test_what_is_no_such_number_is_refused(ask, message):
    """Above all NaN, which passes any comparison that does not ask for it."""
    with pytest.raises(ValueError, match=message):
        ask()
