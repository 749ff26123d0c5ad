"""Shadow models together against one by one: `python -m benchmarks.shadows`.

Networks of linear layers in one stack against `Fit` on each, on one thread; CNNs in two processes against one. Both
sides learn the same rows in the same order. They run in turn, each first every other time.
"""

import json
import os
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

import click
import torch
from torch import Tensor, nn

from aisec_lab.attacks.inference.inclusion import inclusion_mask
from aisec_lab.core.files import write_json
from aisec_lab.data import Dataset
from aisec_lab.defenses import Standard
from aisec_lab.models import CNN, MLP, Fit, logits_of
from aisec_lab.models.training.fit_stack import ModelStack, fit_stack
from aisec_lab.models.training.parallel import fit_in_parallel

OUT = Path(__file__).with_suffix(".json")
REPEATS = 3


class Case(NamedTuple):
    """Models of one shape on made-up rows: `columns` numbers (or pixels of a square), `classes` clusters."""

    models: int
    columns: int
    classes: int
    hidden: int
    rows: int
    epochs: int


STACKS = {
    "digits": Case(16, 64, 10, 64, 1200, 20),
    "location30": Case(64, 446, 30, 128, 2000, 3),
    "fashion_mnist": Case(64, 784, 10, 128, 2000, 3),
}
CNNS = Case(32, 64, 10, 64, 1200, 12)
FIT = Fit(batch_size=64)


def clusters(case: Case) -> tuple[Dataset, Dataset]:
    """Rows around one centre for each class, half of them to learn from and half to be judged on."""
    generator = torch.Generator().manual_seed(0)
    y = torch.arange(2 * case.rows) % case.classes
    centres = torch.rand(case.classes, case.columns, generator=generator)
    x = (centres[y] + 0.8 * torch.randn(len(y), case.columns, generator=generator)).clamp(0, 1)
    names = tuple(map(str, range(case.classes)))
    first, second = (
        Dataset(part_x, part_y, names, "clusters") for part_x, part_y in zip(x.chunk(2), y.chunk(2), strict=True)
    )
    return first, second


def paired(first: Callable[[], Any], second: Callable[[], Any], clock: Callable[[], float]) -> dict[str, Any]:
    """Seconds of both, run in turn, the ratio of the first's to the second's inside each pair, and what both gave."""
    seconds: tuple[list[float], list[float]] = ([], [])
    outcomes: list[Any] = [None, None]
    for repeat in range(REPEATS):
        for which in (0, 1) if repeat % 2 == 0 else (1, 0):
            start = clock()
            outcomes[which] = (first, second)[which]()
            seconds[which].append(clock() - start)
    ratios = [a / b for a, b in zip(*seconds, strict=True)]
    return {
        "ratio": median(ratios),
        "ratio_low": min(ratios),
        "ratio_high": max(ratios),
        "ours_seconds": median(seconds[0]),
        "theirs_seconds": median(seconds[1]),
        "outcomes": outcomes,
    }


def apart(ours: list[nn.Sequential], theirs: list[nn.Sequential], judged: Dataset) -> dict[str, float]:
    """How far the weights of both sides lie apart at most, and how often each is right on other rows."""
    pairs = [
        (p, q) for a, b in zip(ours, theirs, strict=True) for p, q in zip(a.parameters(), b.parameters(), strict=True)
    ]
    right = [
        [(logits_of(m, judged.x).argmax(1) == judged.y).double().mean().item() for m in side] for side in (ours, theirs)
    ]
    return {
        "largest_difference_of_weights": max((p - q).detach().abs().max().item() for p, q in pairs),
        "ours_accuracy": sum(right[0]) / len(ours),
        "theirs_accuracy": sum(right[1]) / len(theirs),
    }


def seeded(first: int, count: int) -> list[torch.Generator]:
    return [torch.Generator().manual_seed(first + k) for k in range(count)]


def stacked(case: Case) -> dict[str, Any]:
    """A stack against one by one, in CPU seconds of one thread."""
    rows, judged = clusters(case)
    included = inclusion_mask(case.models, case.rows, generator=torch.Generator().manual_seed(1))
    network, fit = MLP((case.hidden,)), Fit(case.epochs, FIT.batch_size)

    def together() -> list[nn.Sequential]:
        stack = ModelStack(network, rows.shape, case.classes, seeded(0, case.models))
        fit_stack(stack, rows, included, fit=fit, generators=seeded(100, case.models))
        return [stack.unstacked(k) for k in range(case.models)]

    def alone() -> list[nn.Sequential]:
        models = [network(rows.shape, case.classes, generator=generator) for generator in seeded(0, case.models)]
        for model, own, generator in zip(models, included, seeded(100, case.models), strict=True):
            fit(model, rows.subset(own.nonzero().squeeze(1)), Standard(), generator=generator)
        return models

    record = paired(together, alone, time.process_time)
    return record | apart(*record.pop("outcomes"), judged)


def processes(case: Case) -> dict[str, Any]:
    """CNNs in two processes against this one, in seconds on the wall, the start of the processes among them."""
    rows, judged = (Dataset(d.x.view(-1, 1, 8, 8), d.y, d.classes, d.name) for d in clusters(case))
    included: Tensor = inclusion_mask(case.models, case.rows, generator=torch.Generator().manual_seed(1))
    fit, seeds = Fit(case.epochs, FIT.batch_size), range(case.models)

    def run(workers: int) -> list[nn.Sequential]:
        return fit_in_parallel(CNN(), rows, included, Standard(), fit=fit, seeds=seeds, workers=workers)

    record = paired(lambda: run(2), lambda: run(1), time.perf_counter)
    return record | apart(*record.pop("outcomes"), judged)


KINDS = {"stack": (STACKS, stacked), "processes": ({"cnn": CNNS}, processes)}


@click.command(help=__doc__)
@click.option("--kind", type=click.Choice(list(KINDS)), multiple=True, default=list(KINDS), show_default=True)
@click.option("--out", type=click.Path(path_type=Path), default=OUT, show_default=True)
def main(kind: tuple[str, ...], out: Path) -> None:
    """Measure every case of those kinds and write the records, in place of those that the file has of them."""
    torch.set_num_threads(1)
    known = json.loads(out.read_text())["cases"] if out.exists() else []
    records = [record for record in known if record["kind"] not in kind]
    for each in kind:
        cases, measure = KINDS[each]
        for name, case in cases.items():
            records.append({"kind": each, "case": name} | case._asdict() | measure(case))
            last = records[-1]
            click.echo(f"{each}, {name}: {last['ratio']:.2f} ({last['ratio_low']:.2f} to {last['ratio_high']:.2f})")
    cores = len(os.sched_getaffinity(0))
    write_json(out, {"cores": cores, "torch": torch.__version__, "repeats": REPEATS, "cases": records})


if __name__ == "__main__":
    main()
