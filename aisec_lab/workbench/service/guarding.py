"""The chain of filters before a model in service."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType

from hydra.utils import instantiate
from torch import Tensor

from aisec_lab.data.preparation import Prepared
from aisec_lab.guard import FilterChain, SchemaFilter, calibrated_filters
from aisec_lab.guard.detector_filters import ModelReader
from aisec_lab.workbench.service.served import ServedModel
from aisec_lab.workbench.service.settings import GuardSettings


def build_guard(
    settings: GuardSettings | None,
    served: ServedModel,
    root: Path,
    thresholds: Mapping[str, float] = MappingProxyType({}),
) -> tuple[FilterChain[Tensor] | None, ModelReader]:
    """Fit the filters to a model and its own data; the same settings give the same thresholds in every worker.

    Args:
        settings: of the guard; None for none.
        served: the model; its data are read from `data/` of the project.
        root: of the project.
        thresholds: by detector, those that a person has set instead of the calibrated ones.

    Returns:
        The chain, or None; and the reader of the model, which the chain's filters and the answer share.

    Raises:
        FileNotFoundError: the data have not been prepared.
        ValueError: data other than those of the model, or too few for the rate; a detector that does not exist.
    """
    if settings is None:
        return None, ModelReader(served.model)
    splits = Prepared(served.card["data"]["name"])(root / "data")
    if splits.card["sha256"] != served.card["data"]["sha256"]:
        raise ValueError(f"{served.name} was trained on other data than those in data/{splits.card['name']}")
    detectors = {name: instantiate(each, _convert_="all") for name, each in settings.detectors.items()}
    filters = calibrated_filters(detectors, served.model, splits.train, splits.test, settings.fpr)
    filters = [replace(each, threshold=thresholds.get(each.name, each.threshold)) for each in filters]
    chain = FilterChain[Tensor](
        [SchemaFilter(served.shape), *filters],
        budget=settings.budget,
        required=settings.required,
        skip_rejects=settings.skip_rejects,
    )
    reader = filters[0].reader if filters else ModelReader(served.model)
    return chain, reader
