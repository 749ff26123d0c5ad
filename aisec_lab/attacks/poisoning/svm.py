"""Poisoning of a support vector machine: rows that move its boundary to where it errs."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from aisec_lab.attacks.poisoning.label_flips import LabelFlips
from aisec_lab.attacks.poisoning.poisoned import Poisoned
from aisec_lab.data import Dataset
from aisec_lab.models import SVM

TOLERANCE = 1e-10  # of LIBSVM's stopping rule: the gradient needs the optimum, not its neighbourhood
ROUNDS = 1_000_000  # of LIBSVM at most, which may otherwise never end
MARGIN = 1e-6  # of C: a multiplier nearer to 0 or C than this lies on the bound
TINY = 1e-9  # on the diagonal, should margin vectors be linearly dependent
FIRST, LAST = 1.0, 1e-3  # steps of the line search, in widths of the box


@dataclass(frozen=True)
class SVMPoisoning:
    """Rows with a false label added to a support vector machine's training set, where they do most harm.

    Biggio et al. (2012, arXiv:1206.6389, algorithm 1). The rows begin as training rows with the other label and climb
    the gradient of the mean hinge loss on the targets through the machine's optimality conditions (eq. 8-10), inside
    [0, 1]: once all together, once one after the other as in the paper; the way that raises the loss more is kept.

    Args:
        points: how many rows are added.
        C: of the machine.
        gamma: of its kernel, as in `SVM`; None for the linear one.
        steps: of a climb, at most.
        sweeps: how many times each row climbs, where they do so one after the other.

    Args of the call: `dataset` of two classes; `targets` rows and their true classes, whose loss shall rise; no
    surrogate, since the machine is trained along the way.

    Returns:
        The clean rows to the bit, with the added ones behind them; `where` is over all these.

    Raises:
        ValueError: no point, or more than there are rows to begin with; a C, gamma, steps or sweeps that are
            not positive; not two classes; no targets.
    """

    points: int
    C: float = 1.0
    gamma: float | None = None
    steps: int = 20
    sweeps: int = 2

    def __post_init__(self) -> None:
        positive = min(self.C, 1.0 if self.gamma is None else self.gamma) > 0
        if min(self.points, self.steps, self.sweeps) < 1 or not positive:
            raise ValueError(f"points, C, gamma, steps and sweeps must be positive: {self}")

    def __call__(
        self,
        dataset: Dataset,
        *,
        surrogate: nn.Module | None = None,
        targets: Dataset | None = None,
        generator: torch.Generator,
    ) -> Poisoned:
        if targets is None or len(dataset.classes) != 2:
            raise ValueError(
                f"SVMPoints needs a dataset of two classes, and targets whose loss shall rise: got "
                f"{len(dataset.classes)} classes and {'no targets' if targets is None else targets.name}"
            )
        flipped = LabelFlips(self.points / len(dataset))(dataset, generator=generator)
        added = self.climb(dataset, flipped.dataset.subset(flipped.poison_mask.nonzero().squeeze(1)), targets)
        whole = joined(dataset, added)
        return Poisoned(whole, torch.arange(len(whole)) >= len(dataset))

    def climb(self, dataset: Dataset, begin: Dataset, targets: Dataset) -> Dataset:
        """Rows to add, from those that they begin as; their labels stay."""
        every = torch.arange(len(begin))
        tries = [self._climb(dataset, begin, targets, order) for order in ([every], every.split(1) * self.sweeps)]
        return max(tries, key=lambda tried: self._loss(dataset, tried, targets)[0])

    def _climb(self, dataset: Dataset, added: Dataset, targets: Dataset, order: Sequence[Tensor]) -> Dataset:
        """Move one group of rows after the other, each until no step raises the loss."""
        best, grad = self._loss(dataset, added, targets)
        for rows in order:
            step = FIRST
            for _ in range(self.steps):
                if step < LAST or not grad[rows].any():
                    break
                x = added.x.clone()
                x[rows] = (x[rows] + step * grad[rows] / grad[rows].abs().max()).clamp(0, 1)
                tried = replace(added, x=x)
                loss, slope = self._loss(dataset, tried, targets)
                if loss > best:
                    added, best, grad, step = tried, loss, slope, min(2 * step, FIRST)
                else:
                    step /= 2
        return added

    def _loss(self, dataset: Dataset, added: Dataset, targets: Dataset) -> tuple[float, Tensor]:
        whole = joined(dataset, added)
        sides = [2.0 * part.y.double() - 1 for part in (whole, targets)]
        loss, grad = hinge_gradient(
            whole.x.flatten(1).double(), sides[0], targets.x.flatten(1).double(), sides[1], self.C, self.gamma
        )
        return loss, grad[len(dataset) :].view_as(added.x).to(added.x)


def joined(dataset: Dataset, added: Dataset) -> Dataset:
    """The rows of one, and behind them those of the other."""
    return replace(dataset, x=torch.cat([dataset.x, added.x]), y=torch.cat([dataset.y, added.y]))


def fit_svm(dataset: Dataset, cost: float = 1.0, gamma: float | None = None) -> SVM:
    """The machine that LIBSVM finds for a dataset of two classes, as a classifier of the lab; cost is its C."""
    rows, side = dataset.x.flatten(1).double(), 2.0 * dataset.y.double() - 1
    weight, intercept = _solve(rows, side, cost, gamma)
    support = weight != 0
    return SVM(rows[support], weight[support], intercept, gamma)


def _solve(rows: Tensor, side: Tensor, cost: float, gamma: float | None) -> tuple[Tensor, Tensor]:
    """The multipliers times their sides (N,), zero but for support vectors, and the intercept ()."""
    from sklearn.svm import SVC  # a second that nothing else should pay

    machine = SVC(C=cost, kernel="precomputed", tol=TOLERANCE, max_iter=ROUNDS).fit(
        _kernel(rows, rows, gamma).numpy(), side.numpy()
    )
    weight = torch.zeros_like(side)
    weight[torch.from_numpy(machine.support_).long()] = torch.from_numpy(machine.dual_coef_[0])
    return weight, torch.tensor(machine.intercept_[0])


def _kernel(a: Tensor, b: Tensor, gamma: float | None) -> Tensor:
    if gamma is None:
        return a @ b.T
    return torch.exp(-gamma * (a[:, None] - b).square().sum(2))


def hinge_gradient(
    rows: Tensor, side: Tensor, harmed: Tensor, truth: Tensor, cost: float, gamma: float | None
) -> tuple[float, Tensor]:
    """The mean hinge loss of a machine on harmed rows, and its gradient in each row that the machine learns from.

    As long as no row changes between the three kinds, f stays at its side on margin vectors and the multipliers of all
    others stay at their bounds. These conditions, differentiated, give the change of f (Biggio et al., 2012, eq. 5-8).

    Args:
        rows, side: training rows (N, D) and -1 or 1 for each (N,), float64.
        harmed, truth: other rows (M, D) and theirs (M,), float64.
        cost, gamma: of the machine: its C, and its kernel's gamma or None.

    Returns:
        The loss, and the gradient (N, D).
    """
    weight, intercept = _solve(rows, side, cost, gamma)
    slack = 1 - truth * (_kernel(harmed, rows, gamma) @ weight + intercept)
    pull = torch.where(slack > 0, -truth, torch.zeros_like(truth)) / len(truth)  # of f on the harmed rows
    margin = ((weight.abs() > MARGIN * cost) & (weight.abs() < (1 - MARGIN) * cost)).nonzero().squeeze(1)
    z = rows.clone().requires_grad_()
    objective = pull @ (_kernel(harmed, z, gamma) @ weight)
    if len(margin):
        known = rows[margin]
        one = torch.ones(len(margin), 1, dtype=rows.dtype)
        conditions = torch.cat(
            [
                torch.cat([_kernel(known, known, gamma) + TINY * torch.eye(len(margin), dtype=rows.dtype), one], 1),
                torch.cat([one.T, torch.zeros_like(one[:1])], 1),
            ]
        )
        effect = torch.cat([_kernel(known, harmed, gamma) @ pull, pull.sum()[None]])
        answer = torch.linalg.solve(conditions, effect)[:-1]  # how the margin vectors' own condition pulls back
        objective = objective - answer @ (_kernel(z[margin], z, gamma) @ weight)
    (grad,) = torch.autograd.grad(objective, z)
    return slack.clamp(min=0).mean().item(), grad
