"""What Prometheus sees, summed over all workers."""

import os
from collections.abc import Iterator
from pathlib import Path

from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.multiprocess import MultiProcessCollector
from prometheus_client.registry import Collector

FOLDER = "PROMETHEUS_MULTIPROC_DIR"  # read when prometheus_client is imported: set before a worker starts
SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5)
SIZES = (1, 2, 4, 8, 16, 32, 64, 128, 256)


class ServiceMetrics:
    """The counters of one worker, and the page of all of them.

    No label holds what a client chose: a label value is a series for good.
    """

    def __init__(self) -> None:
        registry = self._registry = CollectorRegistry()
        self.answers = Counter("aisec_answers", "Answers to /score by status.", ["status"], registry=registry)
        self.rows = Counter("aisec_rows", "Rows by what became of them.", ["verdict"], registry=registry)
        self.skips = Counter("aisec_filter_skips", "Filters skipped for the budget.", ["filter"], registry=registry)
        self.refusals = Counter("aisec_refusals", "Refusals by reason.", ["reason"], registry=registry)
        self.lost = Counter("aisec_store_lost", "Requests that the store did not count.", registry=registry)
        self.seconds = Histogram("aisec_score_seconds", "Time to answer.", buckets=SECONDS, registry=registry)
        self.batches = Histogram("aisec_batch_rows", "Rows in a pass.", buckets=SIZES, registry=registry)

    def page(self, **gauges: float) -> bytes:
        """The text format of Prometheus.

        Args:
            gauges: states that belong to no worker, such as how many rows are held.
        """
        shown = self._registry
        if FOLDER in os.environ:
            shown = CollectorRegistry()
            MultiProcessCollector(shown)
        states = CollectorRegistry()
        states.register(_Gauges(gauges))
        return generate_latest(shown) + generate_latest(states)


class _Gauges(Collector):
    """States as they are now; a gauge of `prometheus_client` would be one of this process."""

    def __init__(self, values: dict[str, float]) -> None:
        self.values = values

    def collect(self) -> Iterator[Metric]:
        for name, value in self.values.items():
            yield GaugeMetricFamily(f"aisec_{name}", f"{name.replace('_', ' ').capitalize()} now.", value)


def prepare_metrics(folder: Path) -> None:
    """Empty the folder through which workers share their counters, and name it to those that start from now on."""
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    for former in folder.glob("*.db"):
        former.unlink()
    os.environ[FOLDER] = str(folder.resolve())
