"""Published robust models under the lab's quick suite: `AISEC_MIRROR=… python -m benchmarks.published mnist_0_1`.

A published bound is a test that nobody here could tune: no attack may leave fewer images standing than a certificate
promises, and ours should leave no more than the published attack did. Each model takes some ten minutes on one core.
"""

import json
import os
from pathlib import Path

import click
import torch
from torch import Tensor, nn

from aisec_lab.attacks import Linf, QuickAutoAttack
from aisec_lab.data import Dataset, Prepared, prepare
from aisec_lab.evaluation import attacked, classes_of, clopper_pearson
from aisec_lab.files import sha256_of, write_json

OUT = Path("benchmarks/published.json")
SHA256 = {
    "convex_adversarial/mnist_0_1.pth": "95014ab0c04c73f48b3be0cb7acc42aff60ce4420c6c43bec25e9a1447279e08",
}


def mnist_0_1(root: Path) -> tuple[nn.Module, Dataset, float]:
    """Wong & Kolter's MNIST network (locuslab/convex_adversarial, models/mnist.pth), the test images, and its eps."""
    model = nn.Sequential(
        nn.Conv2d(1, 16, 4, stride=2, padding=1),
        nn.ReLU(),
        nn.Conv2d(16, 32, 4, stride=2, padding=1),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(1568, 100),
        nn.ReLU(),
        nn.Linear(100, 10),
    )
    model.load_state_dict(checkpoint(root, "convex_adversarial/mnist_0_1.pth"))
    prepare("mnist")
    return model.eval(), Prepared("mnist")().test, 0.1


def checkpoint(root: Path, name: str) -> dict[str, Tensor]:
    """The weights of a published file; ValueError where its sha256 is another."""
    path = root / "models" / name
    if sha256_of(path) != SHA256[name]:
        raise ValueError(f"{path}: sha256 {sha256_of(path)}, expected {SHA256[name]}: get it anew")
    weights: dict[str, Tensor] = torch.load(path, map_location="cpu", weights_only=True)
    return weights


MODELS = {"mnist_0_1": mnist_0_1}


@click.command(help=__doc__)
@click.argument("name", type=click.Choice(sorted(MODELS)))
@click.option("--rows", type=int, default=None, help="the first so many test images; all by default")
def main(name: str, rows: int | None) -> None:
    torch.set_num_threads(1)
    model, test, eps = MODELS[name](Path(os.environ["AISEC_MIRROR"]))
    test = test.subset(torch.arange(len(test) if rows is None else rows))
    clean = classes_of(model, test.x, 10) != test.y
    x_adv, passes = attacked(QuickAutoAttack(Linf(eps)), model, test, seed=0)
    wrong = classes_of(model, x_adv, 10) != test.y
    low, high = clopper_pearson(int(wrong.sum()), len(test))
    found = {
        "images": len(test),
        "eps": eps,
        "clean_error": clean.double().mean().item(),
        "robust_error": wrong.double().mean().item(),
        "robust_error_low": low,
        "robust_error_high": high,
        "forward_passes": passes.forward_passes / len(test),
    }
    click.echo(json.dumps(found, indent=2))
    if rows is None:
        known = json.loads(OUT.read_text()) if OUT.exists() else {}
        write_json(OUT, known | {name: found})


if __name__ == "__main__":
    main()
