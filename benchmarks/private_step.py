"""A private step beside a plain one and Opacus's: `python -m benchmarks.private_step` writes private_step.json.

The CNN of the default study on 512 random images of 28x28, SGD. All four steps run in turn in one process on one
thread, and the ratio is taken inside each turn. Peak memory is that of a process of its own, less what it held before
its first step.
"""

import json
import platform
import statistics
import subprocess
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path

import torch
import torch.nn.functional as F
from opacus.grad_sample import GradSampleModule, GradSampleModuleFastGradientClipping
from opacus.optimizers import DPOptimizer, DPOptimizerFastGradientClipping
from opacus.utils.fast_gradient_clipping_utils import DPLossFastGradientClipping
from torch import nn
from torch.optim import SGD

from aisec_lab.defenses import Standard
from aisec_lab.models import CNN, plain_step
from aisec_lab.models.training.fit import Losses
from aisec_lab.privacy.clipping import FlatClipping
from aisec_lab.privacy.dp_sgd import DPSGD

OUT = Path(__file__).with_suffix(".json")
BATCH, TURNS, MEMORY_STEPS = 512, 15, 4
NOISE = {"noise_multiplier": 1.0, "max_grad_norm": 1.0, "expected_batch_size": BATCH}


def generator() -> torch.Generator:
    return torch.Generator().manual_seed(0)


def start() -> tuple[nn.Module, SGD, Losses]:
    """A fresh model, its optimizer, and the batch."""
    model = CNN()((1, 28, 28), 10, generator=generator()).train()
    x, y = torch.rand(BATCH, 1, 28, 28, generator=generator()), torch.arange(BATCH) % 10
    return model, SGD(model.parameters(), lr=0.1), Losses(Standard(), model, x, y, generator())


@contextmanager
def not_private() -> Iterator[Callable[[], object]]:
    model, optimizer, losses = start()
    yield lambda: plain_step(model, optimizer, losses)


@contextmanager
def ours(clipping: FlatClipping | None = None) -> Iterator[Callable[[], object]]:
    model, optimizer, losses = start()
    recipe = DPSGD(noise_multiplier=1.0, clipping=clipping) if clipping else DPSGD(noise_multiplier=1.0)
    with recipe.private_step(model, 1.0, BATCH, generator()) as step:
        yield lambda: step(model, optimizer, losses)


@contextmanager
def opacus_hooks() -> Iterator[Callable[[], object]]:
    model, sgd, losses = start()
    sampling, optimizer = GradSampleModule(model), DPOptimizer(sgd, generator=generator(), **NOISE)

    def step() -> None:
        optimizer.zero_grad()
        F.cross_entropy(sampling(losses.x), losses.y).backward()
        optimizer.step()

    yield step


@contextmanager
def opacus_ghost() -> Iterator[Callable[[], object]]:
    model, sgd, losses = start()
    sampling = GradSampleModuleFastGradientClipping(model, max_grad_norm=1.0, use_ghost_clipping=True)
    optimizer = DPOptimizerFastGradientClipping(sgd, generator=generator(), **NOISE)
    criterion = DPLossFastGradientClipping(sampling, optimizer, nn.CrossEntropyLoss())

    def step() -> None:
        optimizer.zero_grad()
        criterion(sampling(losses.x), losses.y).backward()
        optimizer.step()

    yield step


STEPS = {"plain": not_private, "ours": ours, "opacus_hooks": opacus_hooks, "opacus_ghost": opacus_ghost}


def memory_of(name: str) -> float:
    """MiB that steps of that name take at their peak, in this process."""

    def mib(field: str) -> float:
        lines = Path("/proc/self/status").read_text().splitlines()
        return next(int(line.split()[1]) for line in lines if line.startswith(field)) / 1024

    with STEPS[name]() as step:
        before = mib("VmRSS")
        for _ in range(MEMORY_STEPS):
            step()
        return mib("VmHWM") - before


def seconds() -> dict[str, list[float]]:
    """CPU seconds of each step, turn by turn; the order turns round every time, and the first turn warms up."""
    times: dict[str, list[float]] = {name: [] for name in STEPS}
    with not_private() as first, ours() as second, opacus_hooks() as third, opacus_ghost() as fourth:
        steps = dict(zip(STEPS, (first, second, third, fourth), strict=True))
        for turn in range(TURNS + 1):
            for name in steps if turn % 2 else reversed(steps):
                begin = time.process_time()
                steps[name]()
                if turn:
                    times[name].append(time.process_time() - begin)
    return times


def ratio(times: dict[str, list[float]], name: str, other: str) -> dict[str, float]:
    pairs = [one / two for one, two in zip(times[name], times[other], strict=True)]
    return {"median": statistics.median(pairs), "least": min(pairs), "most": max(pairs)}


def main() -> None:
    torch.set_num_threads(1)
    warnings.filterwarnings("ignore", "Full backward hook")
    if sys.argv[1:2] == ["memory"]:
        print(memory_of(sys.argv[2]))
        return
    child = [sys.executable, "-m", "benchmarks.private_step", "memory"]
    peaks = {
        name: statistics.median(
            float(subprocess.run([*child, name], capture_output=True, text=True, check=True).stdout) for _ in range(3)
        )
        for name in STEPS
    }
    times = seconds()
    result = {
        "network": "CNN() on (1, 28, 28)",
        "batch": BATCH,
        "turns": TURNS,
        "clock": "CPU seconds of one process, one thread; medians",
        "versions": {"python": platform.python_version(), "torch": version("torch"), "opacus": version("opacus")},
        "step_seconds": {name: statistics.median(values) for name, values in times.items()},
        "time_over_plain": {name: ratio(times, name, "plain") for name in STEPS if name != "plain"},
        "time_over_opacus_hooks": {name: ratio(times, name, "opacus_hooks") for name in ("ours", "opacus_ghost")},
        "time_over_opacus_ghost": {"ours": ratio(times, "ours", "opacus_ghost")},
        "peak_mib": peaks,
        "peak_over_plain": {name: peak / peaks["plain"] for name, peak in peaks.items() if name != "plain"},
    }
    OUT.write_text(json.dumps(result, indent=2) + "\n")
    print(OUT.read_text())


if __name__ == "__main__":
    main()
