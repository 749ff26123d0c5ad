"""HopSkipJump beside ART's, on the same rows, each as long as it takes to ART's median distance.

    python benchmarks/hop_skip_jump.py digits        # or mnist, where AISEC_MIRROR holds it

Times are processor time, which a busy machine changes less than the clock's.
"""

import sys
import tempfile
import time
import warnings

import numpy as np
import torch
from torch import Tensor, nn

from aisec_lab.attacks import L2, Ball, HopSkipJump, Linf, Oracle
from aisec_lab.data import Prepared, prepare
from aisec_lab.defenses import Standard
from aisec_lab.models import CNN, Fit

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    from art.attacks.evasion import HopSkipJump as Peer
    from art.estimators.classification import PyTorchClassifier

ROWS = 40


class Single(nn.Module):
    """ART's line search asks in float64 under NumPy 2."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model
        self.eval()

    def forward(self, x: Tensor) -> Tensor:
        return self.model(x.float())


def compare(model: nn.Module, x: Tensor, y: Tensor, ball: Ball, iterations: int) -> None:
    oracle = Oracle(model)
    classifier = PyTorchClassifier(
        Single(oracle), nn.CrossEntropyLoss(), tuple(x.shape[1:]), 10, clip_values=(0, 1), device_type="cpu"
    )
    np.random.seed(0)
    peer = Peer(classifier, norm=2 if ball.name == "L2" else np.inf, max_iter=iterations, verbose=False)
    start = time.process_time()
    x_adv = torch.from_numpy(peer.generate(x.numpy(), y.numpy()))
    theirs, distance = time.process_time() - start, ball.norm(x_adv - x).median().item()

    budget = oracle.queries // len(x)
    seconds = {}
    found = HopSkipJump(ball, budget)(model, x, y, generator=torch.Generator().manual_seed(0))
    enough = next(q for q in range(1, budget + 1) if found.within(q).median() <= distance)
    for queries in (budget, enough):
        start = time.process_time()
        ours = HopSkipJump(ball, queries)(model, x, y, generator=torch.Generator().manual_seed(0))
        seconds[queries] = time.process_time() - start, ours.distance.median().item()
    print(f"{ball.name}: ART, {iterations} iterations: {budget} queries a row, median {distance:.4f}, {theirs:.2f} s")
    for queries, (ours_s, median) in seconds.items():
        print(
            f"  the lab: {queries} queries a row, median {median:.4f}, {ours_s:.2f} s: {ours_s / theirs:.3f} of ART's"
        )


def main(name: str) -> None:
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        prepare(name, folder)
        splits = Prepared(name)(folder)
    generator = torch.Generator().manual_seed(0)
    model = CNN()(splits.train.shape, 10, generator=generator)
    Fit(epochs=5)(model, splits.train.sample(min(len(splits.train), 5000), seed=0), Standard(), generator=generator)
    x, y = splits.test.x, splits.test.y
    rows = (model(x[:500]).argmax(1) == y[:500]).nonzero()[:ROWS, 0]
    for ball in (L2(0), Linf(0)):
        for iterations in (5, 20):
            compare(model, x[rows], y[rows], ball, iterations)


if __name__ == "__main__":
    main(*sys.argv[1:])
