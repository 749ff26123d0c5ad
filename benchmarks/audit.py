"""How often a hunt finds what is broken and accuses what is correct: `python -m benchmarks.audit` writes audit.json.

Each hunt simulates 5,000 runs with a canary and as many without. Takes some minutes on one core.
"""

import json
import math
from pathlib import Path
from typing import Any

import click
import torch

from aisec_lab.core import clopper_pearson
from aisec_lab.core.files import write_json
from aisec_lab.privacy.accounting import SampledGaussian
from aisec_lab.privacy.auditing.mechanism import MechanismAudit
from aisec_lab.privacy.auditing.simulated import CorrectMechanism, HalfNoise, NoClipping, ShuffledMechanism

OUT = Path(__file__).with_suffix(".json")
SEED = 0
CLAIMS = [
    SampledGaussian(0.25, 0.5, 4),
    SampledGaussian(0.1, 0.5, 10),
    SampledGaussian(0.5, 0.6, 4),
    SampledGaussian(0.01, 1.0, 100),
    SampledGaussian(1.0, 4.0, 10),
]
EDGE = [SampledGaussian(0.25, sigma, 4) for sigma in (0.6, 0.7, 0.8, 1.0)]  # where shuffling is about to hide
ALLOWED = 73  # of 1,000: the 99.95 % quantile of a binomial at 5 %


def tried(kind: type[CorrectMechanism], claimed: SampledGaussian, repetitions: int, runs: int) -> dict[str, Any]:
    """How many of so many hunts end with an accusation, and at which epsilon."""
    hunt, generator = MechanismAudit(claimed, runs=runs), torch.Generator().manual_seed(SEED)
    found = [hunt(kind(claimed), generator=generator) for _ in range(repetitions)]
    accused = [verdict.epsilon for verdict in found if verdict.rejected]
    low, high = clopper_pearson(len(accused), repetitions)
    return {
        "mechanism": kind.__name__,
        "q": claimed.q,
        "sigma": claimed.sigma,
        "steps": claimed.steps,
        "runs": runs,
        "hunts": repetitions,
        "accused": len(accused),
        "rate": len(accused) / repetitions,
        "rate_low": low,
        "rate_high": high,
        "median_margin": sorted(verdict.margin for verdict in found)[repetitions // 2],
        "epsilons": [min(accused), max(accused)] if accused else [],
    }


@click.command(help=__doc__)
@click.option("--repetitions", default=1000, show_default=True, help="hunts of each mechanism")
@click.option("--runs", default=5000, show_default=True, help="of each hunt, with the canary and as many without")
def main(repetitions: int, runs: int) -> None:
    torch.set_num_threads(1)
    pairs = [(CorrectMechanism, claimed) for claimed in CLAIMS]
    for kind in (HalfNoise, NoClipping, ShuffledMechanism):
        pairs += [(kind, claimed) for claimed in CLAIMS if kind is not ShuffledMechanism or 0.1 <= claimed.q < 1]
    pairs += [(ShuffledMechanism, claimed) for claimed in EDGE]
    records = []
    for kind, claimed in pairs:
        records.append(tried(kind, claimed, repetitions, runs))
        click.echo(json.dumps(records[-1]))
    most = max(record["accused"] / record["hunts"] for record in records if record["mechanism"] == "Correct")
    least = min(record["rate"] for record in records[: len(records) - len(EDGE)] if record["mechanism"] != "Correct")
    result = {"level": MechanismAudit(CLAIMS[0]).level, "allowed": math.floor(ALLOWED * repetitions / 1000)}
    write_json(OUT, result | {"most_correct_accused": most, "least_power": least, "mechanisms": records})


if __name__ == "__main__":
    main()
