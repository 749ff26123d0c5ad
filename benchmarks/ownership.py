"""Whether watermarks accuse the innocent, and what they prove: `python -m benchmarks.ownership`.

50 CNNs that nobody marked, each trained on its own half of 1,000 digits, meet 10,000 fresh keys of every mark: the
p-values must be uniform or above. Then each mark is embedded for real, and its p-value, its cost in accuracy and its
silence under another key and on the 50 are measured. It fails where p-values are too small too often, or where a mark
does not reach 1e-6 at a cost of one point of accuracy at most, but for two whose higher price is reported.

What is random is the key; the models are fixed. Every key draws its own projections, bits, labels, classes and served
rows. Only the images of trigger sets and the stamps of entangled marks are shared, by a block of 500 keys, as a forward
pass for each key and model would take hours: given the images, labels and targets are as uniform as before, so a
p-value keeps its distribution.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import click
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import torch
from matplotlib.figure import Figure
from scipy.stats import binom
from sklearn.datasets import load_digits
from torch import Tensor, nn
from tqdm import tqdm

from aisec_lab.attacks.extraction.surrogate_training import train_surrogate
from aisec_lab.attacks.inference.inclusion import inclusion_mask
from aisec_lab.core import binomial
from aisec_lab.core.files import write_json, written_beside
from aisec_lab.data import Dataset
from aisec_lab.defenses import Standard
from aisec_lab.defenses.ownership.dawn import DAWN, DAWNModel
from aisec_lab.defenses.ownership.deepsigns import DeepSigns, class_means
from aisec_lab.defenses.ownership.entangled import EntangledWatermark, tail_probabilities
from aisec_lab.defenses.ownership.entangling import Triggers
from aisec_lab.defenses.ownership.key import Key
from aisec_lab.defenses.ownership.trigger_set import TriggerSet
from aisec_lab.defenses.ownership.uchida import Uchida, mean_filter
from aisec_lab.defenses.ownership.watermark import Watermark, WatermarkedModel, get_layer
from aisec_lab.evaluation.style import STYLE, WIDTH, add_caption, add_legend, series_styles
from aisec_lab.models import CNN, Fit, fit_in_parallel, logits_of

MODELS, KEYS, BLOCK, SEED = 50, 10_000, 500, 0
ALPHAS = (0.5, 0.1, 0.01, 0.001)
STUDY = 0.05  # how often the benchmark may find fault, for one mark and one alpha, with p-values that are exact
SEEDS = range(100, 105)  # of marked models; settings were chosen on others
ASKED = 400  # rows that a client asked of a served model
OUT = Path(__file__).with_suffix(".csv")
NETWORK, FIT = CNN(width=8, hidden=32), Fit(epochs=5, learning_rate=0.01)
TRAINED = Fit(epochs=8, learning_rate=0.01)
THIEF = Fit(epochs=40)
TRIGGERS, WEIGHTS, ACTIVATIONS, SERVED = TriggerSet(), Uchida(), DeepSigns(), DAWN(rate=0.03)
ENTANGLED = EntangledWatermark()
DEAR = ("served", "entangled")  # marks whose price is more than a point, and reported


def seeded(number: int) -> torch.Generator:
    return torch.Generator().manual_seed(number)


def keys_of(count: int, seed: int) -> list[Key]:
    generator = seeded(seed)
    return [Key.drawn(generator) for _ in range(count)]


def answers_of(suspects: Sequence[nn.Module], x: Tensor) -> Tensor:
    """The classes (suspects, N) that suspects give to rows x (N, *shape)."""
    return torch.stack([logits_of(suspect, x).argmax(1) for suspect in suspects])


def p_values(matches: list[Tensor], trials: Sequence[int], rate: float) -> np.ndarray:
    """The binomial tails (keys, suspects) of each key's matches (suspects,) among its own number of trials."""
    tails = {n: np.array([binomial.tail(m, n, rate) for m in range(n + 1)]) for n in set(trials)}
    return np.stack([tails[n][row.numpy()] for row, n in zip(matches, trials, strict=True)])


def trigger_null(mark: TriggerSet, keys: list[Key], suspects: Sequence[nn.Module], like: Dataset) -> np.ndarray:
    """p-values (keys, suspects); the images are those of the first key of each block."""
    matches = []
    for first in range(0, len(keys), BLOCK):
        answers = answers_of(suspects, mark.triggers(keys[first], like).x)
        for key in keys[first : first + BLOCK]:
            matches.append((answers == mark.labels(key, len(like.classes))).sum(1))
    return p_values(matches, [mark.n] * len(keys), 1 / len(like.classes))


def weight_null(mark: Uchida, keys: list[Key], suspects: Sequence[nn.Module], like: Dataset) -> np.ndarray:
    """p-values (keys, suspects); `like` is not looked at."""
    w = torch.stack([mean_filter(get_layer(suspect, mark.layer)).detach() for suspect in suspects])
    matches = []
    for key in tqdm(keys, mininterval=0.5, desc="weights"):
        projection, bits = mark.secret(key, w.shape[1])
        matches.append(((w @ projection.T > 0) == bits).sum(1))
    return p_values(matches, [mark.bits] * len(keys), 0.5)


def activation_null(mark: DeepSigns, keys: list[Key], suspects: Sequence[nn.Module], like: Dataset) -> np.ndarray:
    """p-values (keys, suspects); the rows are the same for all keys, as in a claim."""
    rows = like.sample(mark.rows * len(like.classes), SEED)
    means = torch.stack([class_means(suspect, get_layer(suspect, mark.layer), rows) for suspect in suspects])
    matches = []
    for key in tqdm(keys, mininterval=0.5, desc="activations"):
        chosen, projection, bits = mark.secret(key, *means.shape[1:])
        matches.append(((means[:, chosen] @ projection.T > 0) == bits).sum((1, 2)))
    return p_values(matches, [mark.bits * mark.classes] * len(keys), 0.5)


def served_null(mark: DAWN, keys: list[Key], suspects: Sequence[nn.Module], like: Dataset) -> np.ndarray:
    """p-values (keys, suspects) where a client asked some rows of `like` of a model like the suspects: the first."""
    like = like.sample(min(ASKED, len(like)), SEED)
    served = mark.embed(suspects[0], like, keys[0], generator=seeded(SEED)).model
    assert isinstance(served, DAWNModel)
    right, answers = logits_of(served.model, like.x).argmax(1), answers_of(suspects, like.x)
    matches, trials = [], []
    for key in tqdm(keys, mininterval=0.5, desc="served"):
        where, moves = mark.triggers(served, key, like)
        matches.append((answers[:, where] == (right[where] + moves) % len(like.classes)).sum(1))
        trials.append(len(where))
    return p_values(matches, trials, 1 / (len(like.classes) - 1))


def entangled_null(
    mark: EntangledWatermark, keys: list[Key], suspects: Sequence[nn.Module], like: Dataset
) -> np.ndarray:
    """p-values (keys, suspects); stamps and sources are those of the first key of each block, targets each key's."""
    rows, classes, found = like.sample(mark.rows * len(like.classes), SEED), len(like.classes), []
    for first in tqdm(range(0, len(keys), BLOCK), mininterval=0.5, desc="entangled"):
        stamps = Triggers.of(keys[first], mark.triggers, mark.size, rows.shape, classes)
        steps = torch.stack([Triggers.steps(key, mark.triggers, classes) for key in keys[first : first + BLOCK]])
        targets = (stamps.source + steps) % classes  # (block, J)
        block = []
        for suspect in suspects:
            rank, possible = mark.ranks(suspect, stamps, rows)
            sums = rank.T[targets, torch.arange(mark.triggers)].sum(1)
            block.append(tail_probabilities(rank, possible)[sums.numpy()])
        found.append(np.stack(block, 1))
    return np.concatenate(found)


Null = Callable[[Any, list[Key], Sequence[nn.Module], Dataset], np.ndarray]
NULLS: dict[str, tuple[Any, Null]] = {
    "trigger set": (TRIGGERS, trigger_null),
    "weights": (WEIGHTS, weight_null),
    "activations": (ACTIVATIONS, activation_null),
    "served": (SERVED, served_null),
    "entangled": (ENTANGLED, entangled_null),
}


def records_of(name: str, p: np.ndarray) -> list[dict[str, Any]]:
    """How often p-values (keys, suspects) are as small as each alpha, and what exact ones would hardly pass."""
    keys, suspects = p.shape
    records = []
    for alpha in ALPHAS:
        counts = (p <= alpha).sum(0)
        limit = int(binom.isf(STUDY / suspects, keys, alpha))  # the largest of so many models' counts stays below it
        row = {"mark": name, "alpha": alpha, "keys": keys, "models": suspects, "rate": counts.mean() / keys}
        records.append(
            row | {"worst": counts.max() / keys, "limit": limit / keys, "honest": bool(counts.max() <= limit)}
        )
    return records


def curves(nulls: dict[str, np.ndarray]) -> Figure:
    """How often a p-value is at most alpha, over alpha: the worst of the models, for each mark."""
    keys, suspects = next(iter(nulls.values())).shape
    alphas = np.logspace(-4, 0, 200)
    with plt.rc_context(STYLE):
        figure, axes = plt.subplots(figsize=(WIDTH, 3.2))
        for style, (name, p) in zip(series_styles(), nulls.items(), strict=False):
            rates = np.array([(p <= alpha).mean(0).max() for alpha in alphas])
            axes.step(alphas, rates, where="post", label=name, **(style | {"marker": ""}))
        limit = binom.isf(STUDY / suspects, keys, alphas) / keys
        axes.plot(alphas, alphas, color="black", linewidth=0.8, linestyle="-", marker="", label="exactly uniform")
        axes.fill_between(alphas, alphas, limit, color="#BBBBBB", alpha=0.5, label=f"chance: the worst of {suspects}")
        axes.set(xscale="log", yscale="log", xlabel="alpha", ylabel="P[p <= alpha], worst model", ylim=(5e-5, 1.3))
        caption = (
            f"{suspects} CNNs that nobody marked, {keys:,} fresh keys of each mark; the line is that of the model that "
            "fares worst. What is random is the key. With one key, no false claim in 50 models would prove only that "
            f"fewer than {binomial.upper_bound(0, 50, 0.05):.1%} of models are accused, at 95 % confidence: so keys "
            "are drawn, not models."
        )
        return add_caption(add_legend(figure), caption)


def marked_records(train: Dataset, test: Dataset, suspects: Sequence[nn.Module]) -> list[dict[str, Any]]:
    """Each mark embedded for real, once for each seed, at a cost that is measured on rows that no model has seen."""

    def right(model: nn.Module) -> float:
        return (logits_of(model, test.x).argmax(1) == test.y).double().mean().item()

    records = []
    for seed in SEEDS:
        fresh = NETWORK(train.shape, len(train.classes), generator=seeded(seed))
        clean = NETWORK(train.shape, len(train.classes), generator=seeded(seed))
        TRAINED(clean, train, Standard(), generator=seeded(seed))
        key, other = keys_of(2, 1000 + seed)
        for name, (mark, _) in NULLS.items():
            own, accused, claim = embedded(mark, fresh, clean, train, key, seed)
            records.append(
                {
                    "mark": name,
                    "seed": seed,
                    "p": mark.verify(accused, claim),
                    "p_other_key": mark.verify(accused, replace(claim, key=other)),
                    "p_unmarked_least": min(mark.verify(suspect, claim) for suspect in suspects),
                    "accuracy_lost": right(clean) - right(own),
                }
            )
    return records


def embedded(
    mark: Watermark, fresh: nn.Module, clean: nn.Module, train: Dataset, key: Key, seed: int
) -> tuple[nn.Module, nn.Module, WatermarkedModel]:
    """The owner's model, the one that is accused, and the claim: the same model, or for `served` a thief's copy."""
    if not isinstance(mark, DAWN):
        claim = replace(mark, fit=TRAINED).embed(fresh, train, key, generator=seeded(seed))
        return claim.model, claim.model, claim
    claim = mark.embed(clean, train, key, generator=seeded(seed))
    answers = logits_of(claim.model, train.x).softmax(1)
    thief = train_surrogate(NETWORK, train.x, answers, fit=THIEF, generator=seeded(seed), name="queries")
    return claim.model, thief, mark.with_queries(claim, train.x)


def digits() -> tuple[Dataset, Dataset]:
    """1,000 rows to train on, and the other 797."""
    data = load_digits()
    order = torch.randperm(len(data.target), generator=seeded(SEED))
    x = torch.tensor(data.images, dtype=torch.float32)[order, None] / 16
    whole = Dataset(x, torch.tensor(data.target)[order], tuple("0123456789"), "digits")
    return whole.subset(torch.arange(1000)), whole.subset(torch.arange(1000, len(x)))


@click.command(help=__doc__)
@click.option("--models", default=MODELS, show_default=True)
@click.option("--keys", default=KEYS, show_default=True)
@click.option("--out", type=click.Path(path_type=Path), default=OUT, show_default=True)
def main(models: int, keys: int, out: Path) -> None:
    """Measure, write records and figure, say whether the claims hold."""
    torch.set_num_threads(1)
    train, test = digits()
    included = inclusion_mask(models, len(train), generator=seeded(SEED))
    suspects = fit_in_parallel(NETWORK, train, included, Standard(), fit=FIT, seeds=range(models))
    drawn = keys_of(keys, SEED)
    nulls = {name: null(mark, drawn, suspects, test) for name, (mark, null) in NULLS.items()}
    found = pd.DataFrame([record for name, p in nulls.items() for record in records_of(name, p)])
    with written_beside(out) as beside:
        found.to_csv(beside, index=False, float_format="%.6g")
    figure = curves(nulls)
    figure.savefig(out.with_suffix(".png"), metadata={"Software": None})
    plt.close(figure)
    marked = marked_records(train, test, suspects)
    write_json(
        out.with_suffix(".json"),
        {"marked": marked, "false_claims_below_if_none_in_50": float(binomial.upper_bound(0, 50, 0.05))},
    )
    short = not found.honest.all()
    click.echo(found.to_string(index=False))
    for name, group in pd.DataFrame(marked).groupby("mark", sort=False):
        lost, least, most = group.accuracy_lost.mean(), group.p_unmarked_least.min(), group.p.max()
        short |= bool(most >= 1e-6 or (lost > 0.01 and name not in DEAR))
        click.echo(
            f"{name}: p at most {most:.1e}, {lost:.2%} of accuracy lost; least p of an unmarked model {least:.2g}"
        )
    if short:
        raise SystemExit(1)


if __name__ == "__main__":
    main()
