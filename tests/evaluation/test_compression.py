"""Sizes on disk as rows of the table, and their figure."""

import pandas as pd
import pytest
import torch
from torch import nn

from aisec_lab.evaluation import tidy
from aisec_lab.evaluation.compression import compression_dots, size_rows
from aisec_lab.models import MLP
from aisec_lab.models.onnx.export import onnx_bytes


class Spectrum(nn.Module):
    """A function for which ONNX has no operator."""

    def forward(self, x):
        return torch.special.bessel_j0(x)


def test_sizes_are_those_of_the_files():
    """A file over itself is 1; half the units are less than half the bytes; the rows fit the table."""
    models = {
        name: MLP(hidden)((20,), 3, generator=torch.Generator().manual_seed(0)).eval()
        for name, hidden in {"none": (64, 64), "narrow": (32, 32)}.items()
    }
    rows = size_rows(models["none"], models, (20,), study="extraction", data="noise", seed=0)
    value = tidy(rows).set_index(["defense", "metric"]).value
    size = {name: len(onnx_bytes(model, (20,))) for name, model in models.items()}
    assert (value["none", "bytes"], value["none", "size_ratio"]) == (size["none"], 1.0)
    assert value["narrow", "size_ratio"] == pytest.approx(size["none"] / size["narrow"])
    assert value["narrow", "size_ratio"] > 2
    with pytest.raises(ValueError, match=r"torch.onnx.export cannot write this Spectrum"):
        size_rows(models["none"], {"odd": Spectrum().eval()}, (20,))


def test_the_figure_shows_every_compression():
    """Sizes as bars with their share, rates with both ends of their intervals, from top to bottom as asked."""
    rates = pd.DataFrame(
        [
            (name, metric, value, value - 0.1, value + 0.05)
            for name in ("none", "int8", "int4")
            for metric, value in (("clean_accuracy", 0.9), ("robust_accuracy", 0.5))
        ],
        columns=["defense", "metric", "value", "low", "high"],
    )
    figure = compression_dots(rates, {"none": 1.0, "int8": 0.27, "int4": 0.17}, ["none", "int4", "int8"], "Sizes.")
    left, right = figure.axes
    assert [text.get_text() for text in left.get_yticklabels()] == ["none", "int4", "int8"]
    assert [text.get_text() for text in right.texts] == ["100%", "17%", "27%"]
    assert [bar.get_width() for bar in right.patches] == [1.0, 0.17, 0.27]
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["clean accuracy", "robust accuracy"]
    ends = left.containers[1].lines[2][0].get_segments()[0][:, 0]
    assert list(ends) == pytest.approx([0.4, 0.55])
    assert left.yaxis_inverted()
