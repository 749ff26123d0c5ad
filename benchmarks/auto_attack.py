"""Our `AutoAttack` beside the reference implementations: `python -m benchmarks.auto_attack` writes auto_attack.json.

Six models of 1,000 digits, and two of Fashion-MNIST where AISEC_MIRROR is set: what each attacker leaves standing, and
in how many CPU seconds. `python -m benchmarks.auto_attack digits` (or `fashion_mnist`) runs one of them and keeps the
other's rows. foolbox has no AutoAttack; its minimum-norm attacks are compared in tests/parity.
"""

import json
import multiprocessing
import os
import platform
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

import click
import torch
from art.attacks.evasion import AutoAttack as ArtAutoAttack
from art.attacks.evasion import AutoProjectedGradientDescent, DeepFool, SquareAttack
from art.estimators.classification import PyTorchClassifier
from torch import Tensor, nn

from aisec_lab.attacks import BPDA, PGD, Attack, AttackEnsemble, AutoAttack, Ball, Linf, LowPrecision
from aisec_lab.core.files import write_json
from aisec_lab.data import Dataset, Prepared, Splits, prepare, stratified_split
from aisec_lab.defenses import (
    TRADES,
    AdversarialTraining,
    BitDepth,
    DefensiveDistillation,
    Ensemble,
    Standard,
    WarmStart,
)
from aisec_lab.models import CNN, MLP, Fit, Objective, TrainingRecipe
from benchmarks.attacks import LIBRARIES, strength
from benchmarks.peers import Peer, of_art, of_torchattacks

sys.modules.setdefault("multiprocess", multiprocessing)  # a fork of it that ART imports, and uses for pools alone

OUT = Path(__file__).with_suffix(".json")
DIGITS = 1000  # under attack
STEPS, TARGETS, QUERIES = 100, 9, 5000  # the paper's
SLACK = 1e-4  # of eps, by which ART lets a point lie outside the ball

Attacker = Callable[[nn.Module, Tensor, Tensor, int], Iterator[tuple[str, Tensor]]]  # each stage's name and x_adv


class Subject(NamedTuple):
    """A model, what every attacker is given in its place, the rows, and the ball."""

    model: nn.Module
    view: nn.Module
    sample: Dataset
    ball: Ball


def ours(suite: AttackEnsemble) -> Attacker:
    """The lab's own, stage by stage; the clean rows are its first."""

    def attack(model: nn.Module, x: Tensor, y: Tensor, seed: int) -> Iterator[tuple[str, Tensor]]:
        runs = suite.run(model, x, y, generator=torch.Generator().manual_seed(seed))
        for name, worst in zip(("clean", *suite.stages(classes=10)), runs, strict=True):
            yield name, worst.x_adv

    return attack


def whole(attack: Attack) -> Attacker:
    """An attack of the lab's that is no suite."""
    return lambda model, x, y, seed: iter([("all", attack(model, x, y, generator=torch.Generator().manual_seed(seed)))])


def chained(stages: dict[str, Peer]) -> Attacker:
    """Each stage on the rows that those before have left standing, as torchattacks' own AutoAttack passes them on."""

    def attack(model: nn.Module, x: Tensor, y: Tensor, seed: int) -> Iterator[tuple[str, Tensor]]:
        x_adv, rows = x.clone(), torch.arange(len(x))
        for name, stage in {"clean": lambda model, x, y, seed: x, **stages}.items():
            if len(rows):
                z = stage(model, x[rows], y[rows], seed)
                with torch.no_grad():
                    right = model(z).argmax(1) == y[rows]
                x_adv[rows], rows = z, rows[right]
            yield name, x_adv

    return attack


def torchattacks_stages(ball: Ball, queries: int) -> Attacker:
    """Its four stages, float32, as its `AutoAttack` lines them up; there every stage but Square has 10 steps."""
    settings: dict[str, Any] = {"norm": ball.name, "steps": STEPS}
    return chained(
        {
            "apgd_ce": of_torchattacks("APGD", ball, loss="ce", **settings),
            "apgd_t": of_torchattacks("APGDT", ball, n_classes=TARGETS + 1, **settings),
            "fab_t": of_torchattacks("FAB", ball, multi_targeted=True, n_classes=TARGETS + 1, **settings),
            "square": of_torchattacks("Square", ball, norm=ball.name, n_queries=queries),
        }
    )


class ArtStages(ArtAutoAttack):
    """ART's AutoAttack with the stages that it has: nothing is targeted, and DeepFool's steps are Euclidean.

    They are as it lines them up, but that Square has one start, as in the paper, and not five of 5,000 queries each.
    """

    def __init__(
        self, classifier: PyTorchClassifier, norm: float, eps: float, eps_step: float, batch_size: int
    ) -> None:
        common = {"batch_size": batch_size, "verbose": False}
        climb = {"norm": norm, "eps": eps, "eps_step": eps_step, "max_iter": STEPS, "nb_random_init": 5} | common
        stages = [
            AutoProjectedGradientDescent(classifier, loss_type="cross_entropy", **climb),
            AutoProjectedGradientDescent(classifier, loss_type="difference_logits_ratio", **climb),
            DeepFool(classifier, max_iter=STEPS, epsilon=1e-3, nb_grads=10, **common),
            SquareAttack(classifier, norm=norm, eps=eps, max_iter=QUERIES, **common),
        ]
        super().__init__(classifier, norm=norm, eps=eps, attacks=stages, batch_size=batch_size)


def art(ball: Ball) -> Attacker:
    """ART's run as a whole; its first step is told to be the paper's, 2 eps."""
    attack = of_art(ArtStages, ball, eps_step=2 * ball.eps)
    return lambda model, x, y, seed: iter([("all", attack(model, x, y, seed))])


def standing(subject: Subject, x_adv: Tensor) -> int:
    """Rows that the model itself gets right as they are and at x_adv; a point outside ball or box breaks nothing."""
    x, y, ball = subject.sample.x, subject.sample.y, subject.ball
    inside = (ball.norm(x_adv - x) <= ball.eps * (1 + SLACK)) & ((x_adv >= 0) & (x_adv <= 1)).flatten(1).all(1)
    with torch.no_grad():
        clean, after = (subject.model(z).argmax(1) == y for z in (x, x_adv))
    return int((clean & (after | ~inside)).sum())


def measured(attacker: Attacker, subject: Subject, seed: int) -> dict[str, Any]:
    """One run: CPU seconds of its stages and together, and the rows standing after each and in the end."""
    stages, begin = {}, time.process_time()
    for name, x_adv in attacker(subject.view, subject.sample.x, subject.sample.y, seed):
        seconds = time.process_time() - begin
        stages[name] = {"seconds": seconds, "standing": standing(subject, x_adv)}
        begin = time.process_time()
    total = sum(stage["seconds"] for stage in stages.values())
    return {"seconds": total, "standing": stages[name]["standing"], "stages": stages}


class Setting(NamedTuple):
    """Who attacks what, and how often."""

    subject: Subject
    mine: dict[str, Attacker]
    peers: dict[str, Attacker]
    repeats: int
    once: tuple[str, ...] = ()  # peers that are too slow for more


def compared(setting: Setting) -> list[dict[str, Any]]:
    """All attackers in turn, another first each time: a row for each, ours with what sets it against each peer."""
    attackers, rows = setting.mine | setting.peers, len(setting.subject.sample)
    runs: dict[str, list[dict[str, Any]]] = {name: [] for name in attackers}
    for seed in range(setting.repeats):
        first = seed % len(attackers)
        for name in [*attackers, *attackers][first : first + len(attackers)]:
            if not seed or name not in setting.once:
                runs[name].append(measured(attackers[name], setting.subject, seed))
                click.echo(f"  {name}: {runs[name][-1]}")
    return [
        {
            "attacker": name,
            "robust_accuracy": statistics.mean(run["standing"] for run in own) / rows,
            "standing": [run["standing"] for run in own],
            "seconds": statistics.median(run["seconds"] for run in own),
            "stages": {
                stage: {
                    "seconds": statistics.median(run["stages"][stage]["seconds"] for run in own),
                    "standing": [run["stages"][stage]["standing"] for run in own],
                }
                for stage in own[0]["stages"]
            },
            "against": {peer: against(own, runs[peer]) for peer in setting.peers if name in setting.mine},
        }
        for name, own in runs.items()
    ]


def against(mine: list[dict[str, Any]], theirs: list[dict[str, Any]]) -> dict[str, Any]:
    """The ratio of times inside each turn, and how many more rows ours leaves standing, mean against mean."""
    ratios = [a["seconds"] / b["seconds"] for a, b in zip(mine, theirs, strict=False)]  # some peers run but once
    more = statistics.mean(run["standing"] for run in mine) - statistics.mean(run["standing"] for run in theirs)
    return {
        "ratio": statistics.median(ratios),
        "ratio_low": min(ratios),
        "ratio_high": max(ratios),
        "rows_more": more,
        "strength": strength(more),
    }


def trained(splits: Splits, objective: Objective | TrainingRecipe, fit: Fit) -> nn.Module:
    """The network of the default study."""
    generator = torch.Generator().manual_seed(0)
    model = CNN()(splits.train.shape, len(splits.train.classes), generator=generator)
    fit(model, splits.train, objective, generator=generator)
    return model


def digits(root: str) -> Splits:
    """797 rows to learn from and 1,000 to attack: the test split of 500 and as many that move over to it."""
    prepare("digits", root)
    splits = Prepared("digits")(root)
    train, test = splits.train, splits.test
    kept, moved = map(torch.from_numpy, stratified_split(train.y.numpy(), DIGITS - len(test), seed=0))
    x, y = torch.cat([test.x, train.x[moved]]), torch.cat([test.y, train.y[moved]])
    return Splits({"train": train.subset(kept), "test": Dataset(x, y, test.classes, test.name)}, splits.card)


def adversarial(ball: Ball) -> AdversarialTraining:
    """Of the default study."""
    return AdversarialTraining(PGD(ball, steps=7, step_size=0.25, early_stop=False))


def six(splits: Splits, ball: Ball) -> dict[str, Subject]:
    """The models of the strength part."""
    fit = Fit()
    plain = trained(splits, Standard(), fit)
    others = Ensemble([CNN(width=8, hidden=32), MLP()], fit, Standard())
    models = {
        "plain": plain,
        "adversarially trained": trained(splits, adversarial(ball), fit),
        "TRADES": trained(splits, TRADES(PGD(ball, steps=7, step_size=0.25)), fit),
        "squeezed": BitDepth()(plain),
        "ensembled": others(plain, data=splits),
        "distilled": trained(splits, DefensiveDistillation(), fit),
    }
    views = models | {"squeezed": BPDA()(models["squeezed"])}
    return {name: Subject(model, views[name], splits.test, ball) for name, model in models.items()}


def on_digits(root: str) -> Iterator[tuple[str, Setting]]:
    """The six models."""
    ball = Linf(0.15)
    mine = {"ours": ours(AutoAttack(ball, steps=STEPS, targets=TARGETS, queries=QUERIES))}
    half = {"ours, bf16": whole(LowPrecision(ball, partial(AutoAttack, steps=STEPS, targets=TARGETS, queries=QUERIES)))}
    peers = {"torchattacks": torchattacks_stages(ball, QUERIES), "ART": art(ball)}
    for name, subject in six(digits(root), ball).items():
        also = half if name in ("adversarially trained", "TRADES") else {}
        yield name, Setting(subject, mine | also, peers, repeats=3, once=("ART",))


def on_fashion_mnist(root: str) -> Iterator[tuple[str, Setting]]:
    """Larger images, and fewer of them: for the speed. From random weights the adversarial training collapses here."""
    prepare("fashion_mnist", root)
    splits, ball, queries = Prepared("fashion_mnist", train_size=4000, test_size=200)(root), Linf(0.1), 1000
    mine = {
        "ours": ours(AutoAttack(ball, steps=STEPS, targets=TARGETS, queries=queries)),
        "ours, bf16": whole(LowPrecision(ball, partial(AutoAttack, steps=STEPS, targets=TARGETS, queries=queries))),
    }
    peers = {"torchattacks": torchattacks_stages(ball, queries)}
    objectives: dict[str, Objective | TrainingRecipe] = {
        "plain": Standard(),
        "adversarially trained": WarmStart(adversarial(ball)),
    }
    for name, objective in objectives.items():
        model = trained(splits, objective, Fit(epochs=5))
        yield name, Setting(Subject(model, model, splits.test, ball), mine, peers, repeats=2)


DATA = {"digits": on_digits, "fashion_mnist": on_fashion_mnist}


@click.command(help=__doc__)
@click.argument("names", nargs=-1, type=click.Choice(sorted(DATA)))
@click.option("--model", "models", multiple=True, help="only this one; its rows replace those that the file has of it")
@click.option("--repeats", type=int, default=None, help="in place of the setting's own")
def main(names: tuple[str, ...], models: tuple[str, ...], repeats: int | None) -> None:
    torch.set_num_threads(1)
    found = json.loads(OUT.read_text()) if OUT.exists() else {}
    found["setting"] = {
        "steps": STEPS,
        "targets": TARGETS,
        "threads": torch.get_num_threads(),
        "clock": "CPU seconds of the process",
        "instructions": torch.backends.cpu.get_cpu_capability(),
        "versions": {"python": platform.python_version()} | {library: version(library) for library in LIBRARIES},
    }
    for name in names or [name for name in DATA if name == "digits" or "AISEC_MIRROR" in os.environ]:
        found[name] = [row for row in found.get(name, []) if models and row["model"] not in models]
        with tempfile.TemporaryDirectory() as root:
            for model, setting in DATA[name](root):
                if models and model not in models:
                    continue
                setting = setting._replace(repeats=repeats or setting.repeats)
                sample, ball = setting.subject.sample, setting.subject.ball
                about = {"model": model, "rows": len(sample), "ball": str(ball)}
                about["clean_accuracy"] = standing(setting.subject, sample.x) / len(sample)
                for row in compared(setting):
                    click.echo(json.dumps(about | row))
                    found[name].append(about | row)
                write_json(OUT, found)  # after each model, so that little is lost


if __name__ == "__main__":
    main()
