"""Detectors of adversarial and foreign inputs as filters, which share one pass of the model."""

from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from aisec_lab.data import Dataset
from aisec_lab.defenses import Detector, FittedDetector, scores_of, threshold_at
from aisec_lab.defenses.detection.detectors import Reading, linear_layers, read_model
from aisec_lab.guard.filters import FilterResult, above_threshold
from aisec_lab.models.checked import CheckedModel


class ModelReader:
    """A model whose last reading is kept, so that all filters of a chain and the answer cost one pass.

    Args:
        model: classifier in evaluation mode.

    Attributes:
        passes: how often the model ran.
    """

    def __init__(self, model: nn.Module) -> None:
        self.model = CheckedModel(model)
        self.passes = 0
        self._layers = linear_layers(self.model)
        self._last: Reading | None = None

    def read(self, x: Tensor) -> Reading:
        """Run the model, unless the last call was for this very tensor.

        Args:
            x: inputs (N, *input); the caller does not change them in place.

        Returns:
            The reading, without a graph.
        """
        if self._last is None or self._last.x is not x:
            with torch.inference_mode():
                self._last = read_model(self.model, x, self._layers)
            self.passes += 1
        return self._last


@dataclass(frozen=True, eq=False)
class DetectorFilter:
    """Reject the rows that a detector scores above a threshold. Call contract: docs/guard.md, "Filter".

    Args:
        name: of the filter.
        fitted: the detector.
        threshold: the largest score that passes.
        reader: of the detector's model, shared with the other filters of the chain.
        scale: unit of the score, positive, such as its standard deviation on clean rows; an attacker's view of the
            guard uses it (`GuardedModel`).
    """

    name: str
    fitted: FittedDetector
    threshold: float
    reader: ModelReader = field(repr=False)
    scale: float = 1.0

    def check(self, rows: Tensor, *, client: str) -> FilterResult[Tensor]:
        with torch.inference_mode():
            scores = self.fitted.score_of(self.reader.read(rows))
        return above_threshold(self.name, rows, scores, self.threshold)


def calibrated_filters(
    detectors: Mapping[str, Detector], model: nn.Module, fitting: Dataset, clean: Dataset, fpr: float
) -> list[DetectorFilter]:
    """Fit detectors to a model, and set each threshold for a false positive rate.

    Args:
        detectors: by name, in the order of the filters.
        model: classifier in evaluation mode.
        fitting: clean rows that the detectors are fitted to.
        clean: other clean rows, which neither model nor detectors have seen, for the thresholds.
        fpr: false positive rate of each filter, in (0, 1).

    Returns:
        The filters; they share one pass of the model.

    Raises:
        ValueError: a rate outside (0, 1), or too few clean rows for it.
    """
    reader, filters = ModelReader(model), []
    for name, detector in detectors.items():
        fitted = detector.fit(fitting.x, fitting.y, model=model)
        scores = scores_of(fitted, clean.x)
        filters.append(DetectorFilter(name, fitted, threshold_at(scores, fpr), reader, scores.std().item()))
    return filters
