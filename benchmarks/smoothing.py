"""Certified accuracy of randomised smoothing on Fashion-MNIST, image by image: `python -m benchmarks.smoothing`.

Takes about an hour on one core. The rows are written anew after each sigma, and the curves are drawn from them;
`--draw` only draws.
"""

from pathlib import Path

import click
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import torch
from matplotlib.figure import Figure

from aisec_lab.core import clopper_pearson
from aisec_lab.core.files import written_beside
from aisec_lab.data import Prepared, Splits, prepare
from aisec_lab.defenses import ABSTAIN, GaussianNoise, certify, max_certifiable_radius
from aisec_lab.evaluation.curves import draw
from aisec_lab.evaluation.style import STYLE, WIDTH, add_caption, add_legend, series_styles
from aisec_lab.models import Fit, StridedCNN

DATA, SEED = "fashion_mnist", 0
RADII = [0.0, 0.25, 0.5, 0.75, 1.0, 1.25, 1.5]
GROUP = 50  # images between two lines of progress


def rows_of(splits: Splits, sigma: float, fit: Fit, *, n0: int, n: int, alpha: float) -> pd.DataFrame:
    """Train a base classifier under noise and certify the test split: one record an image."""
    model = StridedCNN()(splits.test.shape, len(splits.test.classes), generator=_seeded())
    fit(model, splits.train, GaussianNoise(sigma), generator=_seeded())
    records = []
    for x, y in zip(splits.test.x.split(GROUP), splits.test.y.split(GROUP), strict=True):
        certificate = certify(model, x, sigma=sigma, n0=n0, n=n, alpha=alpha, generator=_seeded())
        records.append(pd.DataFrame({"label": y, "class": certificate.classes, "radius": certificate.radius}))
        click.echo(f"sigma {sigma:g}: {sum(map(len, records))} of {len(splits.test)} images")
    rows = pd.concat(records, ignore_index=True).rename_axis("row").reset_index()
    return rows.assign(data=DATA, sigma=sigma, n0=n0, n=n, alpha=alpha)


def summary(rows: pd.DataFrame) -> str:
    """Certified accuracy with its 95 % interval at each radius, up to the largest radius that n samples certify."""
    sigma, n, alpha = rows.loc[0, ["sigma", "n", "alpha"]]
    cap = max_certifiable_radius(sigma, int(n), alpha)
    lines = [f"sigma {sigma:g}: {(rows['class'] == ABSTAIN).sum()} of {len(rows)} abstain; no radius above {cap:.3f}"]
    for radius in (radius for radius in RADII if radius < cap):
        certified = int(((rows["class"] == rows.label) & (rows.radius > radius)).sum())
        low, high = clopper_pearson(certified, len(rows))
        lines.append(f"  radius {radius:.2f}: {certified / len(rows):.3f} [{low:.3f}, {high:.3f}]")
    return "\n".join(lines)


def curves(rows: pd.DataFrame) -> Figure:
    """Certified accuracy against the radius, a line for each sigma, dotted where n samples certify no more."""
    n, alpha, images = int(rows.n.iloc[0]), rows.alpha.iloc[0], rows.row.nunique()
    with plt.rc_context(STYLE):
        figure, axes = plt.subplots(figsize=(WIDTH, 3.0))
        for (sigma, own), series in zip(rows.groupby("sigma"), series_styles(), strict=False):
            cap = max_certifiable_radius(sigma, n, alpha)
            levels = np.linspace(0, cap, 60)
            right = [int(((own["class"] == own.label) & (own.radius >= max(level, 1e-12))).sum()) for level in levels]
            ends = [clopper_pearson(count, len(own)) for count in right]
            line = pd.DataFrame(ends, columns=["low", "high"]).assign(level=levels, value=np.array(right) / len(own))
            draw(axes, line, f"sigma {sigma:g}", series | {"marker": ""})
            axes.axvline(cap, color=series["color"], linestyle=":", linewidth=1)
        axes.set(xlabel="radius (L2, inputs in [0, 1])", ylabel="certified accuracy", ylim=(0, 1.02))
        axes.set_xlim(0, None)
        caption = (
            f"Share of {images} test images of Fashion-MNIST whose class is certified within a radius, with 95 % "
            f"Clopper-Pearson bands. {n:,} samples an image, with confidence {1 - alpha:.1%} each, certify no radius "
            "above the dotted lines."
        )
        return add_caption(add_legend(figure), caption)


def _seeded() -> torch.Generator:
    return torch.Generator().manual_seed(SEED)


@click.command(help=__doc__)
@click.option("--root", default="data", help="the folder of prepared data")
@click.option("--out", type=click.Path(path_type=Path), default=Path("benchmarks/smoothing.csv"), show_default=True)
@click.option("--sigma", "sigmas", type=float, multiple=True, default=(0.25, 0.5), show_default=True)
@click.option("--train-size", default=20_000, show_default=True)
@click.option("--test-size", default=500, show_default=True)
@click.option("--epochs", default=15, show_default=True)
@click.option("--n0", default=100, show_default=True)
@click.option("--n", default=10_000, show_default=True)
@click.option("--alpha", default=0.001, show_default=True)
@click.option("--draw", "only_draw", is_flag=True, help="only draw what `out` has")
def main(
    root: str,
    out: Path,
    sigmas: tuple[float, ...],
    train_size: int,
    test_size: int,
    epochs: int,
    n0: int,
    n: int,
    alpha: float,
    only_draw: bool,
) -> None:
    """Certify at each sigma, write the rows, print the certified accuracies."""
    if only_draw:
        curves(pd.read_csv(out)).savefig(out.with_suffix(".png"))
        return
    if not (Path(root) / DATA / "card.json").exists():
        prepare(DATA, root)
    splits = Prepared(DATA, train_size, test_size)(root)
    parts: list[pd.DataFrame] = []
    for sigma in sigmas:
        parts.append(rows_of(splits, sigma, Fit(epochs), n0=n0, n=n, alpha=alpha))
        with written_beside(out) as beside:
            pd.concat(parts).to_csv(beside, index=False)
        click.echo(summary(parts[-1]))
    curves(pd.concat(parts)).savefig(out.with_suffix(".png"))


if __name__ == "__main__":
    main()
