"""Three accountants on fifty random trainings: `python -m benchmarks.accounting` writes accounting.json.

The trainings are drawn as people run them: q from 1e-3 to 0.3, steps from 10 to 5,000 and delta from 1e-7 to 1e-4, all
log-uniform, and epsilon from 0.3 to 10 log-uniform, for which the noise is then chosen. The draw is seeded.
"""

import json
import math
import time
from importlib.metadata import version
from pathlib import Path
from random import Random
from typing import NamedTuple

from aisec_lab.privacy.accounting import SampledGaussian, epsilons, noise_multiplier

OUT = Path(__file__).with_suffix(".json")
COUNT, SEED = 50, 0
ACCOUNTANTS = ("rdp", "prv", "pld")


class Training(NamedTuple):
    """What is accounted for; `target` is what its noise was chosen for."""

    q: float
    steps: int
    delta: float
    target: float

    def mechanism(self) -> SampledGaussian:
        """Its noise, to two digits as people write it."""
        sigma = noise_multiplier(self.target, self.delta, self.q, self.steps)
        return SampledGaussian(self.q, float(f"{sigma:.2g}"), self.steps)


def trainings(count: int = COUNT) -> list[Training]:
    random = Random(SEED)

    def drawn(low: float, high: float) -> float:
        return math.exp(random.uniform(math.log(low), math.log(high)))

    return [Training(drawn(1e-3, 0.3), round(drawn(10, 5000)), drawn(1e-7, 1e-4), drawn(0.3, 10)) for _ in range(count)]


def main() -> None:
    rows = []
    for training in trainings():
        mechanism = training.mechanism()
        found, seconds = {}, {}
        for name in ACCOUNTANTS:
            start = time.process_time()
            found |= epsilons([mechanism], training.delta, accountants=[name])
            seconds[name] = round(time.process_time() - start, 3)
        rows.append(
            {
                "q": mechanism.q,
                "sigma": mechanism.sigma,
                "steps": mechanism.steps,
                "delta": training.delta,
                **found,
                "prv_over_pld": found["prv"] / found["pld"],
                "rdp_over_pld": found["rdp"] / found["pld"],
                "seconds": seconds,
            }
        )
        print(rows[-1], flush=True)
    apart = [abs(row["prv_over_pld"] - 1) for row in rows]
    result = {
        "trainings": COUNT,
        "seed": SEED,
        "prv_within_0.005_of_pld": sum(each <= 0.005 for each in apart),
        "prv_furthest_from_pld": max(apart),
        "rdp_below_pld": sum(row["rdp_over_pld"] < 1 for row in rows),
        "rdp_over_pld_median": sorted(row["rdp_over_pld"] for row in rows)[COUNT // 2],
        "versions": {name: version(name) for name in ("dp-accounting", "opacus")},
        "rows": rows,
    }
    OUT.write_text(json.dumps(result, indent=2) + "\n")
    print(json.dumps({name: value for name, value in result.items() if name != "rows"}, indent=2))


if __name__ == "__main__":
    main()
