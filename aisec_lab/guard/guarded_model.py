"""A model behind its filters, as an attacker who knows the guard sees it: a classifier with a reject option."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from aisec_lab.attacks import BPDA
from aisec_lab.core.modes import in_training_mode
from aisec_lab.defenses.detection.detectors import Reading, read_model
from aisec_lab.guard.detector_filters import DetectorFilter


class GuardedModel(nn.Module):
    """A classifier whose last logit is the largest where any of its detector filters rejects the row.

    That logit is the highest class's logit plus the largest (score - threshold) / scale of all filters. It is
    differentiable where the scores are, so gradient attacks with the goal `EvadeDetector` work on the whole guard
    (Carlini & Wagner, 2017, arXiv:1705.07263, section 2).

    Args:
        filters: detector filters of one model, at least one.

    Attributes:
        rejects: marks that the last column is no class; evaluation reads it.

    Raises:
        ValueError: no filter, or filters of several models.
    """

    rejects = True

    def __init__(self, filters: Sequence[DetectorFilter]) -> None:
        super().__init__()
        if not filters or len({id(each.reader) for each in filters}) > 1:
            raise ValueError("a guarded model has at least one detector filter, and all share one model's reader")
        self.model = filters[0].reader.model
        self.filters = tuple(filters)
        self.fitted = nn.ModuleList(each.fitted for each in filters)  # so that buffers move with the model
        self.training = self.fitted.training = in_training_mode(self.model)

    def excess(self, x: Tensor) -> Tensor:
        """How far each filter's score is above its threshold, in units of its scale.

        Args:
            x: inputs (N, *input) in [0, 1].

        Returns:
            (N, filters), with their graph; a filter rejects a row where its number is above 0.
        """
        return self._excess(read_model(self.model, x))

    def forward(self, x: Tensor) -> Tensor:
        """Logits (N, K + 1) of inputs (N, *input); the last column means rejection."""
        reading = read_model(self.model, x)
        reject = reading.logits.amax(1) + self._excess(reading).amax(1)
        return torch.cat([reading.logits, reject[:, None]], 1)

    def _excess(self, reading: Reading) -> Tensor:
        return torch.stack([(each.fitted.score_of(reading) - each.threshold) / each.scale for each in self.filters], 1)


def differentiable_view(model: nn.Module) -> nn.Module:
    """What a gradient attack is run on: the model, with `BPDA` where parts of it have no useful gradient.

    Args:
        model: classifier, such as a `GuardedModel`.

    Returns:
        A classifier with the same logits.
    """
    opaque = any(getattr(part, "differentiable", True) is False for part in model.modules())
    return BPDA()(model) if opaque else model
