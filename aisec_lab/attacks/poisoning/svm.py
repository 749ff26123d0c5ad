"""Poisoning of a support vector machine by gradient ascent."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from aisec_lab.attacks.poisoning.ascent import Ascent, gradient_ascent
from aisec_lab.attacks.poisoning.label_flips import LabelFlips
from aisec_lab.attacks.poisoning.poisoned import Poisoned, Poisoning
from aisec_lab.data import Dataset
from aisec_lab.models import SVM

TOLERANCE = 1e-10  # of LIBSVM's stopping rule: the gradient holds at the optimum only
ROUNDS = 1_000_000  # of LIBSVM at most, which may otherwise never end
MARGIN = 1e-6  # of C: a multiplier nearer to 0 or C than this lies on the bound
TINY = 1e-9  # on the diagonal, should margin vectors be linearly dependent
SMALLEST = 1e-3  # step of the line search, in widths of the box


@dataclass(frozen=True)
class SVMPoisoning(Poisoning):
    """Add rows with a wrong label to the training set of a support vector machine, so that its loss rises most.

    Biggio et al. (2012, arXiv:1206.6389, algorithm 1). The added rows start as training rows with the other label.
    They move along the gradient of the mean hinge loss on the targets, inside [0, 1]. The gradient is computed through
    the machine's optimality conditions (eq. 8-10). One ascent moves all rows together, another moves one row after the
    other as in the paper, and the result with the larger loss is kept.

    Call contract: docs/poisoning-attacks.md. The dataset has two classes. `targets` are needed: rows and their true
    classes, on which the loss is to rise. `surrogate` is unused, since the attack trains the machine itself. The added
    rows come after the clean ones.

    Args:
        points: rows to add, at least 1 and at most those of the dataset.
        C: penalty of the machine, positive.
        gamma: of its RBF kernel, positive, as in `SVM`; None for the linear kernel.
        steps: of one ascent at most, at least 1.
        sweeps: ascents of each row where they go one after the other, at least 1.

    Raises:
        ValueError: settings that are not positive; on a call also a dataset that has not two classes.
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

    def _poison(
        self, dataset: Dataset, surrogate: nn.Module | None, targets: Dataset | None, generator: torch.Generator
    ) -> Poisoned:
        if len(dataset.classes) != 2:
            raise ValueError(f"SVMPoisoning needs a dataset of two classes, {dataset.name} has {len(dataset.classes)}")
        harmed = self._require_targets(targets, dataset)
        flipped = LabelFlips(self.points / len(dataset))(dataset, generator=generator)
        added = self.ascend(dataset, flipped.dataset.subset(flipped.poison_mask.nonzero().squeeze(1)), harmed)
        whole = append_rows(dataset, added)
        return Poisoned(whole, torch.arange(len(whole)) >= len(dataset))

    def ascend(self, dataset: Dataset, begin: Dataset, targets: Dataset) -> Dataset:
        """Move rows so that the loss on the targets rises most.

        Args:
            dataset: clean rows of two classes.
            begin: P rows to add, with their labels, as the ascent starts from them.
            targets: rows and their true classes.

        Returns:
            The P rows, moved inside [0, 1]; their labels are those of `begin`.
        """
        every = torch.arange(len(begin))
        tries = [self._ascend(dataset, begin, targets, order) for order in ([every], every.split(1) * self.sweeps)]
        return max(tries, key=lambda tried: self._loss(dataset, tried, targets)[0])

    def _ascend(self, dataset: Dataset, added: Dataset, targets: Dataset, order: Sequence[Tensor]) -> Dataset:
        """Move one group of rows after the other, each until no step raises the loss."""

        def loss(x: Tensor) -> tuple[float, Tensor]:
            return self._loss(dataset, replace(added, x=x), targets)

        now = Ascent(added.x, *loss(added.x))
        for rows in order:

            def move(at: Ascent, step: float, rows: Tensor = rows) -> Tensor:
                x, grad = at.point.clone(), at.gradient[rows]
                if grad.any():
                    x[rows] = (x[rows] + step * grad / grad.abs().max()).clamp(0, 1)
                return x

            now = gradient_ascent(now, loss, move, steps=self.steps, growth=2, smallest=SMALLEST)
        return replace(added, x=now.point)

    def _loss(self, dataset: Dataset, added: Dataset, targets: Dataset) -> tuple[float, Tensor]:
        """The mean hinge loss on the targets after training on all rows, and its gradient in the added ones."""
        whole = append_rows(dataset, added)
        sides = [2.0 * part.y.double() - 1 for part in (whole, targets)]
        loss, grad = hinge_gradient(
            whole.x.flatten(1).double(), sides[0], targets.x.flatten(1).double(), sides[1], self.C, self.gamma
        )
        return loss, grad[len(dataset) :].view_as(added.x).to(added.x)


def append_rows(dataset: Dataset, added: Dataset) -> Dataset:
    """A dataset with the rows and classes of another one appended; names and features are those of the first."""
    return replace(dataset, x=torch.cat([dataset.x, added.x]), y=torch.cat([dataset.y, added.y]))


def fit_svm(dataset: Dataset, cost: float = 1.0, gamma: float | None = None) -> SVM:
    """Train a support vector machine with LIBSVM.

    Args:
        dataset: rows of two classes.
        cost: C of the machine, positive.
        gamma: of its RBF kernel; None for the linear kernel.

    Returns:
        The machine as a torch classifier of two classes.
    """
    rows, side = dataset.x.flatten(1).double(), 2.0 * dataset.y.double() - 1
    weight, intercept = _solve(rows, side, cost, gamma)
    support = weight != 0
    return SVM(rows[support], weight[support], intercept, gamma)


def _solve(rows: Tensor, side: Tensor, cost: float, gamma: float | None) -> tuple[Tensor, Tensor]:
    """The multipliers times their sides (N,), zero except for support vectors, and the intercept ()."""
    from sklearn.svm import SVC  # a second that nothing else should pay

    machine = SVC(C=cost, kernel="precomputed", tol=TOLERANCE, max_iter=ROUNDS).fit(
        _kernel(rows, rows, gamma).numpy(), side.numpy()
    )
    weight = torch.zeros_like(side)
    weight[torch.from_numpy(machine.support_).long()] = torch.from_numpy(machine.dual_coef_[0])
    return weight, torch.tensor(machine.intercept_[0])


def _kernel(a: Tensor, b: Tensor, gamma: float | None) -> Tensor:
    """The kernel's values (n, m) of rows (n, D) and (m, D)."""
    if gamma is None:
        return a @ b.T
    return torch.exp(-gamma * (a[:, None] - b).square().sum(2))


def hinge_gradient(
    rows: Tensor, side: Tensor, harmed: Tensor, truth: Tensor, cost: float, gamma: float | None
) -> tuple[float, Tensor]:
    """The mean hinge loss of a machine on other rows, and its gradient in each row that the machine is trained on.

    Each training row is a margin, an error or a reserve vector. While no row changes its kind, f stays at -1 or 1 on
    the margin vectors, and the multipliers of all other rows stay at their bounds. The change of f follows from the
    derivatives of these conditions (Biggio et al., 2012, eq. 5-8).

    Args:
        rows, side: training rows (N, D) and -1 or 1 for each (N,), float64.
        harmed, truth: the other rows (M, D) and -1 or 1 for each (M,), float64.
        cost, gamma: C of the machine, and its kernel's gamma or None.

    Returns:
        The loss, and the gradient (N, D), float64.
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
        answer = torch.linalg.solve(conditions, effect)[:-1]  # how the margin vectors' own conditions react
        objective = objective - answer @ (_kernel(z[margin], z, gamma) @ weight)
    (grad,) = torch.autograd.grad(objective, z)
    return slack.clamp(min=0).mean().item(), grad
