"""Exposure: its definition, its two approximations, and that it sees what a model has learned by heart."""

import json
import math
import subprocess

import numpy as np
import pytest
import torch
from jupyter_client.kernelspec import KernelSpecManager
from scipy.stats import skewnorm

from aisec_lab.attacks.inference.exposure import Canary, SkewNormal, exact_exposure, sampled_exposure
from aisec_lab.defenses import Standard
from aisec_lab.models import Fit
from aisec_lab.models.language import CharVocabulary, NeuralNGram, text_bits
from tests.reviews import splits

KERNELS = KernelSpecManager()
INSTALLED = "aisec-legacy" in KERNELS.find_kernel_specs()
REFERENCE = """
import importlib.util, json, sys
from pathlib import Path
folder = next(Path(p) for p in sys.path if (Path(p) / "tensorflow_privacy").is_dir())
file = folder / "tensorflow_privacy/privacy/privacy_tests/secret_sharer/exposures.py"
spec = importlib.util.spec_from_file_location("exposures", file)
exposures = importlib.util.module_from_spec(spec)
spec.loader.exec_module(exposures)
bits, references = json.load(sys.stdin)
print(json.dumps([list(map(float, function({0: bits}, references)[0])) for function in (
    exposures.compute_exposure_interpolation, exposures.compute_exposure_extrapolation)]))
"""


def seed(number):
    return torch.Generator().manual_seed(number)


def test_the_secrets_are_all_there_and_each_once():
    """In order, and drawn without repeats, each as often as any other."""
    canary = Canary("my pin is {}!", "ab7", 2)
    texts = [f"my pin is {first}{second}!" for first in "ab7" for second in "ab7"]
    assert canary.texts() == texts
    assert canary.secrets == 9
    for n in (0, 4, 9):
        drawn = canary.draw(n, generator=seed(n))
        assert len(set(drawn)) == n
        assert set(drawn) <= set(texts)
    firsts = [canary.draw(1, generator=seed(number))[0] for number in range(900)]
    assert all(60 < firsts.count(text) < 145 for text in texts)  # 100 expected


def test_exact_exposure_is_the_definition():
    """By counting: the best of 16 has log2 16, the worst 0, and equals share the worse rank."""
    every = np.random.default_rng(0).permutation(np.arange(16.0))
    naive = [math.log2(16) - math.log2(sum(other <= own for other in every)) for own in every]
    assert exact_exposure(every, every) == pytest.approx(naive)
    assert exact_exposure(0.0, every) == 4
    assert exact_exposure(15.0, every) == 0
    assert exact_exposure([1, 1], [1, 1, 2, 3]) == pytest.approx([1, 1])


def test_a_secret_that_was_never_seen_has_little_exposure():
    """At least k bits with chance 2^-k, whichever way it is measured, and 1.44 bits on average."""
    rng = np.random.default_rng(1)
    every = rng.normal(100, 7, 10_000)
    own, references = every[:2000], every[2000:]
    for found in (
        exact_exposure(own, every),
        sampled_exposure(own, references),
        SkewNormal.of(references).exposure(own),
    ):
        assert found.mean() == pytest.approx(1 / math.log(2), abs=0.1)
        for k in range(1, 5):
            assert (found >= k).mean() == pytest.approx(2.0**-k, abs=4 * (2.0**-k / 2000) ** 0.5)


@pytest.mark.parametrize("shape", [-4.0, 0.0, 3.0])
def test_the_tail_is_the_distributions(shape):
    """SciPy's where it has digits, finite and growing where it has none."""
    fitted = SkewNormal(shape, 50.0, 3.0, 0.0)
    bits = np.array([35.0, 40, 45, 50, 55, 60])
    assert fitted.exposure(bits) == pytest.approx(-np.log2(skewnorm.cdf(bits, shape, 50, 3)), abs=1e-3)
    far = fitted.exposure([-1e4, -300.0, -200])
    assert np.isfinite(far).all()
    assert (np.diff(far) < 0).all()


def test_the_fit_finds_the_distribution_and_says_when_it_is_none():
    """Parameters that drew the references; a mixture is far from any skew-normal."""
    references = skewnorm.rvs(-3, 60, 5, size=4000, random_state=0)
    fitted = SkewNormal.of(references)
    assert (fitted.location, fitted.scale) == pytest.approx((60, 5), abs=0.4)
    assert fitted.distance < 1.36 / 4000**0.5
    two = np.concatenate([references, references - 60])
    assert SkewNormal.of(two).distance > 1.36 / 8000**0.5


@pytest.mark.legacy
@pytest.mark.skipif(not INSTALLED, reason="there is no kernel aisec-legacy: `make legacy` makes it")
def test_it_agrees_with_tensorflow_privacy():
    """Both approximations, on the same bits."""
    rng = np.random.default_rng(2)
    references, bits = rng.normal(100, 7, 500), np.sort(rng.normal(90, 7, 20))
    python = KERNELS.get_kernel_spec("aisec-legacy").argv[0]
    given = json.dumps([bits.tolist(), references.tolist()])
    said = subprocess.run([python, "-c", REFERENCE], input=given, capture_output=True, text=True, check=True).stdout
    interpolated, extrapolated = json.loads(said)
    assert sampled_exposure(bits, references) == pytest.approx(interpolated, abs=1e-9)
    assert SkewNormal.of(references).exposure(bits) == pytest.approx(extrapolated, abs=0.01)


def test_a_model_exposes_what_it_was_trained_on():
    """A secret among the reviews is the likeliest of ten thousand; the same model, without it, prefers others."""
    canary, secret = Canary(), 7351
    texts = list(splits().train.texts[:100])
    everything = canary.texts()
    characters = CharVocabulary.of([*texts, *everything])
    found = []
    for times in (0, 8):
        model = NeuralNGram()(characters, generator=seed(0))
        rows = characters.tokens(texts + [canary.text(secret)] * times, "reviews")
        Fit(epochs=4, batch_size=128, learning_rate=0.01)(model, rows, Standard(), generator=seed(1))
        bits = text_bits(model, characters, everything).numpy()
        references = np.delete(bits, secret)[::20]
        ways = [
            exact_exposure(bits[secret], bits),
            sampled_exposure(bits[secret], references),
            SkewNormal.of(references).exposure(bits[secret]),
        ]
        found.append([float(way) for way in ways])
    assert max(found[0]) < 6
    assert found[1][0] == math.log2(10_000)
    assert found[1][1] == math.log2(500)
    assert found[1][2] > math.log2(500)


def test_what_makes_no_sense_is_refused():
    """At the door."""
    for settings in ({"form": "no place"}, {"form": "{}{}"}, {"alphabet": "aa"}, {"alphabet": "a"}, {"length": 0}):
        with pytest.raises(ValueError, match="a canary has one"):
            Canary(**settings)
    cases = [
        (lambda: Canary().text(10_000), "numbered from 0 to 9999"),
        (lambda: Canary(length=9).texts(), "too many to write out"),
        (lambda: Canary(length=1).draw(11, generator=seed(0)), "cannot draw 11"),
        (lambda: exact_exposure([1], []), "1 at least here: got 0"),
        (lambda: exact_exposure([math.inf], [1]), "must be finite"),
        (lambda: SkewNormal.of([1.0] * 20), "need 1 bits"),
        (lambda: SkewNormal.of(range(9)), "10 at least here"),
    ]
    for call, message in cases:
        with pytest.raises(ValueError, match=message):
            call()
