"""Real images, from a mirror of public files."""

import json
import os

import pytest

from tests.clone import SMALL, Clone


@pytest.mark.mirror
@pytest.mark.skipif("AISEC_MIRROR" not in os.environ, reason="AISEC_MIRROR names no folder with public datasets")
def test_fashion_mnist_goes_through_the_same_study(clone: Clone) -> None:
    """`data=fashion_mnist` and nothing else is different, down to the report."""
    clone.run("aisec", "compose", "data=fashion_mnist", *SMALL)
    clone.run("aisec", "repro")
    card = json.loads((clone.root / "data/fashion_mnist/card.json").read_text())
    assert card["sizes"] == {"train": 60000, "test": 10000}
    metrics = json.loads((clone.root / "results/metrics.json").read_text())
    assert metrics["data"] == {"name": "fashion_mnist", "sha256": card["sha256"]}
    assert (
        "robustness, fashion_mnist, cnn, standard, seed 0: robust_accuracy under worst_case at Linf 0.15"
        in metrics["claims"]
    )
    index = (clone.root / "reports/index.html").read_text()
    assert "Fashion-MNIST" in index
    assert card["sha256"] in index
