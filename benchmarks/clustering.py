"""Which reduction activation clustering should use: `python -m benchmarks.clustering` (three minutes of one core).

Poisoned models of digits, four networks, three triggers, two rates and two seeds that no study and no test has, are
clustered with each reduction. It writes `clustering.csv`, a row for each model and reduction.
"""

from collections.abc import Iterator
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any

import click
import pandas as pd
import torch
from torch import nn

from aisec_lab.attacks import Backdoor, Blended, Checkerboard, Warp
from aisec_lab.core.files import written_beside
from aisec_lab.data import Dataset, Prepared, prepare
from aisec_lab.defenses import ActivationClustering, Standard
from aisec_lab.defenses.poisoning.clustering import NoComponentsError
from aisec_lab.models import CNN, MLP, Architecture, Fit, Normalised, StridedCNN

SEEDS = (100, 101)
TARGET = 3
RATES = (0.04, 0.1)  # of all rows: some 30 and 50 % of the target's class, on both sides of what is small
ROWS, FIT = 800, Fit(epochs=8)
TRIGGERS = {"checkerboard": Checkerboard(2), "blended": Blended(0.3), "warp": Warp(strength=0.5)}
OUT = Path(__file__).with_suffix(".csv")


def batch_normed(shape: tuple[int, ...], classes: int, *, generator: torch.Generator) -> nn.Sequential:
    """Two convolutions with batch norm, the mean over pixels, one linear layer."""
    torch.manual_seed(int(torch.randint(2**31, (), generator=generator)))
    return nn.Sequential(
        Normalised(),
        *(nn.Conv2d(shape[0], 16, 3, 1, 1), nn.BatchNorm2d(16), nn.ReLU()),
        *(nn.Conv2d(16, 48, 3, 2, 1), nn.BatchNorm2d(48), nn.ReLU()),
        *(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(48, classes)),
    )


NETWORKS: dict[str, Architecture] = {
    "CNN": CNN(),
    "StridedCNN": StridedCNN(),
    "MLP": MLP(),
    "BatchNorm": batch_normed,
}


def rows_of(train: Dataset, test: Dataset) -> Iterator[dict[str, Any]]:
    """Train each poisoned model, and cluster it with each reduction: one record of each."""
    for seed in SEEDS:
        for trigger_name, trigger in TRIGGERS.items():
            for rate, (network_name, network) in product(RATES, NETWORKS.items()):
                poisoned = Backdoor(trigger, TARGET, rate)(train, generator=torch.Generator().manual_seed(seed))
                generator = torch.Generator().manual_seed(seed)
                model = network(train.shape, len(train.classes), generator=generator)
                FIT(model, poisoned.dataset, Standard(), generator=generator)
                with torch.no_grad():
                    marked = model(trigger.apply(test.x[test.y != TARGET])).argmax(1) == TARGET
                for reduction in ("ica", "pca"):
                    settings = replace(ActivationClustering(), reduction=reduction)
                    flagged, failed = torch.zeros(len(train), dtype=torch.bool), False
                    try:
                        generator = torch.Generator().manual_seed(seed)
                        flagged = settings(poisoned.dataset, model=model, generator=generator).flagged
                    except NoComponentsError:
                        failed = True
                    yield {
                        "network": network_name,
                        "trigger": trigger_name,
                        "seed": seed,
                        "rate": rate,
                        "reduction": reduction,
                        "attack_success": marked.double().mean().item(),
                        "poisoned": int(poisoned.poison_mask.sum()),
                        "found": int((flagged & poisoned.poison_mask).sum()),
                        "clean": int((~poisoned.poison_mask).sum()),
                        "false": int((flagged & ~poisoned.poison_mask).sum()),
                        "failed": int(failed),
                    }


@click.command(help=__doc__)
@click.option("--root", type=click.Path(path_type=Path), default=Path("data"), help="the folder of prepared data")
@click.option("--out", type=click.Path(path_type=Path), default=OUT, show_default=True)
def main(root: Path, out: Path) -> None:
    """Measure each model, write the rows, print what each network's are in all."""
    torch.set_num_threads(1)
    if not (root / "digits" / "card.json").exists():
        prepare("digits", root)
    splits = Prepared("digits", ROWS)(root)
    records = pd.DataFrame(rows_of(splits.train, splits.test))
    counts = ["poisoned", "found", "clean", "false", "failed"]
    click.echo(records.groupby(["rate", "network", "reduction"])[counts].sum().to_string())
    click.echo(records.groupby(["rate", "reduction"])[counts].sum().to_string())
    with written_beside(out) as beside:
        records.to_csv(beside, index=False, float_format="%.6g")


if __name__ == "__main__":
    main()
