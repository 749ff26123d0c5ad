"""How often intervals and tests hold where they need not: `python -m benchmarks.coverage` writes coverage.json.

What is exact is held by tests. Here is what the docstrings of `tpr_at_fpr`, `over_seeds` and `DatasetInference` quote:
few models whose scores move together, few seeds, and the t-test that dataset inference does not use. Some five minutes
of one core.
"""

import math
from pathlib import Path
from typing import Any

import click
import numpy as np
import pandas as pd
import torch
from scipy.stats import norm, ttest_ind

from aisec_lab.core.files import write_json
from aisec_lab.defenses.ownership.dataset_inference import mann_whitney_p_value
from aisec_lab.evaluation import over_seeds, rate, tidy, tpr_at_fpr

OUT = Path(__file__).with_suffix(".json")
GAP, FPR = 1.5, 0.05


def few_models(models: int, spread: float, runs: int) -> dict[str, Any]:
    """`tpr_at_fpr` on 120 records of models whose normal scores are shifted by `spread` times their deviation."""
    generator = torch.Generator().manual_seed(0)
    true = norm.cdf(GAP / math.sqrt(1 + spread**2) - norm.isf(FPR))
    low = high = 0
    for _ in range(runs):
        members = torch.rand(models, 120, generator=generator) < 0.5
        scores = GAP * members + torch.randn(models, 120, generator=generator, dtype=torch.float64)
        scores += spread * torch.randn(models, 1, generator=generator, dtype=torch.float64)
        found = tpr_at_fpr(scores, members, FPR, generator=generator, resamples=100)
        low, high = low + (true < found.low), high + (true > found.high)
    covered = 1 - (low + high) / runs
    return {"interval": "tpr_at_fpr", "models": models, "spread": spread, "covered": covered, "too_high": low / runs}


def few_seeds(seeds: int, spread: float, rows: int, runs: int) -> dict[str, Any]:
    """`over_seeds` of accuracies on so many rows, whose true values are normal around 0.5, or one in five collapses."""
    rng = np.random.default_rng(0)
    collapse = np.isnan(spread)
    true = np.where(rng.random((runs, seeds)) < 0.2, 0.1, 0.9) if collapse else rng.normal(0.5, spread, (runs, seeds))
    true = true.clip(0, 1)
    table = tidy(
        rate("accuracy", int(k), rows, defense=f"{run:06}", seed=seed)
        for run, counts in enumerate(rng.binomial(rows, true))
        for seed, k in enumerate(counts)
    )

    def covered(mean: Any, population: bool) -> float:
        low, high = over_seeds(table, population=population)[["low", "high"]].to_numpy(dtype=float).T
        return float(((low <= mean) & (mean <= high)).mean())

    of_all = 0.74 if collapse else 0.5
    return {
        "interval": "over_seeds",
        "seeds": seeds,
        "rows": rows,
        "spread": "one in five collapses" if collapse else spread,
        "covered_these": covered(true.mean(1), False),
        "covered_all": covered(of_all, False),
        "covered_all_population": covered(of_all, True),
    }


def unequal_groups(private: int, public: int, level: float, runs: int) -> dict[str, Any]:
    """How often tests accuse at a level where log-normal numbers (n,) and (m,) have one law."""
    drawn = np.exp(np.random.default_rng(0).normal(size=(runs, private + public)))
    parts = drawn[:, :private], drawn[:, private:]
    welch = ttest_ind(*parts, axis=1, equal_var=False, alternative="greater").pvalue
    exact = np.array([mann_whitney_p_value(*pair) for pair in zip(*parts, strict=True)])
    return {
        "test": "dataset inference",
        "private": private,
        "public": public,
        "level": level,
        "accused_by_t": float((welch <= level).mean()),
        "accused": float((exact <= level).mean()),
    }


@click.command(help=__doc__)
@click.option("--runs", type=int, default=1000)
def main(runs: int) -> None:
    torch.set_num_threads(1)
    rows = [few_seeds(s, d, 1000, runs) for s in (2, 3, 5, 10) for d in (0.0, 0.05, 0.15, np.nan)]
    rows += [unequal_groups(n, m, a, 10 * runs) for n, m in ((100, 5), (20, 20)) for a in (0.05, 0.01, 0.001)]
    rows += [few_models(k, s, runs // 4) for k in (2, 3, 10, 24, 64) for s in (0.6, 2.0)]
    click.echo(pd.DataFrame(rows).to_string())
    write_json(OUT, {"runs": runs, "rows": rows})


if __name__ == "__main__":
    main()
