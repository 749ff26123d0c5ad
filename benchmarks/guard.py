"""The guard's latency and false alarms: `python -m benchmarks.guard`; `guard.json` keeps them.

One thread, one row a request, the study's CNN on digits of 8x8 pixels and on the same digits scaled to 28x28. Filters,
chain and peers take turns on each row. With `--peer FOLDER`, where `pip install --target FOLDER pyod numba` has put it,
PyOD's detectors score the same features beside ours. With AISEC_MIRROR, false alarms are counted on 50,000 images.
"""

import os
import sys
import time
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import click
import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from aisec_lab.core.files import write_json
from aisec_lab.data import Dataset, Prepared, prepare
from aisec_lab.defenses import Energy, FeatureSqueezing, Mahalanobis, NearestNeighbours, Standard
from aisec_lab.defenses.detection.detectors import features_of
from aisec_lab.guard import DetectorFilter, DuplicateFilter, Filter, FilterChain, SchemaFilter, calibrated_filters
from aisec_lab.models import CNN, Fit

OUT = Path(__file__).with_suffix(".json")
DETECTORS = {"energy": Energy(), "mahalanobis": Mahalanobis(), "nearest_neighbours": NearestNeighbours()}
FPR, ROWS, BUDGET = 0.01, 2000, 0.002  # rate of false alarms; rows that are timed; seconds of a chain
LOAD = 10  # requests that arrive in the time of one
MANY = 50_000  # images for false alarms


def seed(number: int) -> torch.Generator:
    return torch.Generator().manual_seed(number)


def trained(train: Dataset, epochs: int) -> nn.Module:
    """The study's CNN."""
    model = CNN()(train.shape, len(train.classes), generator=seed(0))
    Fit(epochs=epochs)(model, train, Standard(), generator=seed(0))
    return model.eval()


def scaled(dataset: Dataset, side: int) -> Dataset:
    """The same images with another side."""
    return Dataset(F.interpolate(dataset.x, side).clamp(0, 1), dataset.y, dataset.classes, dataset.name)


def standard_chain(detectors: list[DetectorFilter], shape: tuple[int, ...], budget: float) -> FilterChain[Tensor]:
    """The chain that a service has by default."""
    return FilterChain([SchemaFilter(shape), DuplicateFilter(1000), *detectors], budget, required=["schema"])


def milliseconds(times: list[float]) -> dict[str, float]:
    """Median and 99th percentile of durations in seconds, and the first, which warms up."""
    median, high = (1e3 * float(np.quantile(times[1:], share)) for share in (0.5, 0.99))
    return {"first_ms": 1e3 * times[0], "median_ms": median, "p99_ms": high}


def timed(subjects: Mapping[str, Callable[[Tensor], object]], x: Tensor) -> dict[str, dict[str, float]]:
    """Let all take turns on each row."""
    times: dict[str, list[float]] = {name: [] for name in subjects}
    for row in x.split(1):
        for name, subject in subjects.items():
            begin = time.perf_counter()
            subject(row.clone())  # another tensor, so that no pass is shared between subjects
            times[name].append(time.perf_counter() - begin)
    return {name: milliseconds(found) for name, found in times.items()}


def peers(folder: Path, model: nn.Module, train: Dataset) -> dict[str, Callable[[Tensor], object]]:
    """PyOD's nearest neighbours and Gaussian on the features of one pass, as our filters compute them."""
    sys.path.append(str(folder))
    from pyod.models.knn import KNN
    from pyod.models.mcd import MCD

    clean = features_of(model, train.x).numpy()
    fitted = {"pyod nearest_neighbours": KNN(n_neighbors=10).fit(clean), "pyod mahalanobis": MCD().fit(clean)}
    return {
        name: lambda x, each=each: each.decision_function(features_of(model, x).numpy())
        for name, each in fitted.items()
    }


def under_load(chain: FilterChain[Tensor], x: Tensor, usual: float) -> dict[str, Any]:
    """Requests arrive ten times faster than the chain takes for one; the queue grows, and the budget is held."""
    rows, times = x.split(1), list[float]()
    begin = chain.clock()
    for place, row in enumerate(rows):
        arrived = begin + place * usual / LOAD
        while chain.clock() < arrived:
            pass
        called = chain.clock()
        chain.check(row, client="load", arrived=arrived)
        times.append(chain.clock() - called)
    return milliseconds(times) | {"requests": len(x), "skipped": dict(sorted(chain.skips.items()))}


def false_alarms() -> dict[str, Any]:
    """Clean images that each filter rejects, with thresholds that were set on others."""
    prepare("fashion_mnist")
    splits = Prepared("fashion_mnist")()
    every = Dataset(
        torch.cat([splits.train.x, splits.test.x]),
        torch.cat([splits.train.y, splits.test.y]),
        splits.train.classes,
        "fashion_mnist",
    )
    order = torch.randperm(len(every), generator=seed(1))
    train, clean, fresh = (every.subset(part) for part in order.split([10_000, len(order) - MANY - 10_000, MANY]))
    filters = calibrated_filters(DETECTORS, trained(train, 3), train, clean, FPR)
    rejected = {
        each.name: sum(int(each.check(part, client="clean").rejected.sum()) for part in fresh.x.split(500))
        for each in filters
    }
    return {"rows": MANY, "stated": FPR, "calibrated_on": len(clean)} | rejected


@click.command(help=__doc__)
@click.option("--peer", type=click.Path(path_type=Path, exists=True), help="A folder with PyOD.")
def main(peer: Path | None) -> None:
    torch.set_num_threads(1)
    prepare("digits")
    splits, found = Prepared("digits")(), {}
    for side in (8, 28):
        train, test = scaled(splits.train, side), scaled(splits.test, side)
        model = trained(train, 5)
        fitting, clean = train.split(0.7, 0)
        detectors = calibrated_filters(DETECTORS, model, fitting, clean, FPR)
        squeezing = calibrated_filters({"feature_squeezing": FeatureSqueezing()}, model, fitting, clean, FPR)
        rows = test.x[torch.randint(len(test), (ROWS,), generator=seed(2))]
        filters: list[Filter[Tensor]] = [SchemaFilter(train.shape), DuplicateFilter(1000), *detectors, *squeezing]
        chain = standard_chain(detectors, train.shape, float("inf"))
        subjects: dict[str, Callable[[Tensor], object]] = {
            each.name: partial(each.check, client="bench") for each in [*filters, chain]
        }
        with torch.inference_mode():
            subjects = {"model alone": model} | subjects
            if peer is not None:
                subjects |= peers(peer, model, fitting)
            measured: dict[str, Any] = timed(subjects, rows)
        usual = measured["chain"]["median_ms"] / 1e3
        measured["chain under load"] = under_load(standard_chain(detectors, train.shape, BUDGET), rows, usual)
        found[f"{side}x{side}"] = measured
    if "AISEC_MIRROR" in os.environ:
        found["false_alarms"] = false_alarms()
    write_json(OUT, found)


if __name__ == "__main__":
    main()
