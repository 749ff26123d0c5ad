"""One pass: the guard, the model, the quarantine, in this order."""

import json
import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from aisec_lab.core.files import written_beside
from aisec_lab.guard import DetectorFilter, FilterChain
from aisec_lab.guard.detector_filters import ModelReader
from aisec_lab.workbench.service.batching import ScoreRequest
from aisec_lab.workbench.service.guarding import build_guard
from aisec_lab.workbench.service.journal import Event, Journal
from aisec_lab.workbench.service.metrics import ServiceMetrics
from aisec_lab.workbench.service.quarantine import Quarantine, Suspicion
from aisec_lab.workbench.service.served import ServedModel, load_served
from aisec_lab.workbench.service.settings import ServiceSettings
from aisec_lab.workbench.service.thresholds import read_thresholds

Answer = dict[str, Any]
FULL: Answer = {"refused": "suspicious, and the quarantine is full"}


class NoModelError(Exception):
    """Nothing vouches for the model that lies there."""


@dataclass
class Scorer:
    """Answers requests with the model that the ledger vouches for now.

    Args:
        name: of the model's folder.
        root: of the project.
        settings: of the service.
        quarantine, journal, metrics: where the rejected rows go, and what counts them.

    Attributes:
        served: the model; None while none is vouched for, and nothing is answered then.
    """

    name: str
    root: Path
    settings: ServiceSettings
    quarantine: Quarantine
    journal: Journal
    metrics: ServiceMetrics
    served: ServedModel | None = field(default=None, init=False)
    _guard: FilterChain[Tensor] | None = field(default=None, init=False, repr=False)
    _reader: ModelReader = field(init=False, repr=False)
    _marked: tuple[int, int] | None = field(default=None, init=False, repr=False)

    @cached_property
    def marker(self) -> Path:
        """The file that is put anew so that every worker loads again before its next pass."""
        return self.root / self.settings.state / "loaded"

    def load_again(self) -> None:
        """Let every worker, this one too, load model and thresholds before its next pass."""
        with written_beside(self.marker) as beside:
            beside.touch()

    def refresh(self) -> None:
        """Load the model again if a rollback or another threshold asked for it.

        Raises:
            NoModelError: nothing vouches for what lies there, or it cannot be loaded.
        """
        try:
            stat = os.stat(self.marker)
            now = stat.st_ino, stat.st_mtime_ns
        except FileNotFoundError:  # there was no rollback yet
            now = 0, 0
        if now == self._marked and self.served is not None:
            return
        self.served = None  # whatever happens, what was rolled back answers no more
        try:
            served = load_served(self.name, self.root, self.settings.ledger_key)
            changed = read_thresholds(self.quarantine.database, served.digest)
            self._guard, self._reader = build_guard(self.settings.guard, served, self.root, changed)
            self._reader.read(torch.zeros(1, *served.shape))  # the first pass is slow, and may show that it has none
        except (ValueError, OSError) as error:
            raise NoModelError(str(error)) from error
        self.served, self._marked = served, now

    def __call__(self, requests: Sequence[ScoreRequest]) -> list[list[Answer]]:
        """Answer requests.

        Args:
            requests: whose rows together are one batch.

        Returns:
            For each request the answers of its rows: class and probabilities; or the id of a quarantined row.
        """
        self.refresh()
        x = torch.cat([request.x for request in requests])
        clients = [request.client for request in requests for _ in range(len(request.x))]
        self.metrics.batches.observe(len(x))
        answers: list[Answer] = [FULL] * len(x)
        suspicions: dict[int, Suspicion] = {}
        for client in dict.fromkeys(clients):  # filters with a memory know their client; most batches have one
            places = [place for place, other in enumerate(clients) if other == client]
            mine = x if len(places) == len(x) else x[places]
            arrived = min(request.arrived for request in requests if request.client == client)
            standing, passed, found = self._judge(mine, client, arrived)
            if standing:
                for place, answer in zip(standing, self.answer(passed), strict=True):
                    answers[places[place]] = answer
            suspicions |= {places[place]: suspicion for place, suspicion in found.items()}
        if suspicions:
            ids = self.quarantine.keep(list(suspicions.values()))
            for (place, suspicion), identity in zip(suspicions.items(), ids, strict=True):
                if identity is not None:
                    answers[place] = {"quarantined": identity}
                action = "quarantine" if identity else "refuse"
                filter_name = suspicion.reason.partition(":")[0]
                self.journal.count(Event(suspicion.client, action, self.name, f"rejected by {filter_name}"))
        self.metrics.rows.labels("rejected").inc(len(suspicions))
        self.metrics.rows.labels("passed").inc(len(x) - len(suspicions))
        found_answers = iter(answers)
        return [[next(found_answers) for _ in request.x] for request in requests]

    def answer(self, x: Tensor) -> list[Answer]:
        """What the model says of rows, without a guard: after a guard let them pass, or a person."""
        assert self.served is not None
        names = self.served.classes
        probabilities = self._reader.read(x).logits.softmax(1)
        top = probabilities.argmax(1).tolist()
        if self.settings.publishes == "label":
            return [{"class": names[k]} for k in top]
        return [{"class": names[k], "probabilities": row} for k, row in zip(top, probabilities.tolist(), strict=True)]

    @property
    def thresholds(self) -> dict[str, float]:
        """Those of the detectors, by name."""
        filters = self._guard.filters if self._guard else ()
        return {each.name: each.threshold for each in filters if isinstance(each, DetectorFilter)}

    def release(self, x: Tensor) -> str:
        """The answer to one released row, as JSON."""
        self.refresh()
        return json.dumps(self.answer(x[None])[0])

    def _judge(self, x: Tensor, client: str, arrived: float) -> tuple[list[int], Tensor, dict[int, Suspicion]]:
        """Places of the rows that pass, these rows as they go on, and what is suspicious of the others."""
        if self._guard is None:
            return list(range(len(x))), x, {}
        result = self._guard.check(x, client=client, arrived=arrived)
        for name in result.skipped:
            self.metrics.skips.labels(name).inc()
        rejected = result.rejected
        if not rejected.any():
            return list(range(len(x))), result.rows, {}
        found = {
            place: Suspicion(x[place], client, result.reasons[place], result.scores[place].item())
            for place in rejected.nonzero()[:, 0].tolist()
        }
        standing = (~rejected).nonzero()[:, 0]
        return standing.tolist(), result.rows[standing], found
