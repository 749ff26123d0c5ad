"""How often a model predicts each class, window by window, against a reference."""

import torch
from torch import Tensor

from aisec_lab.guard.checks import check_classes
from aisec_lab.guard.monitor import WindowMonitor
from aisec_lab.guard.rates import check_reachable, least_surprising_count


class ClassBalanceMonitor(WindowMonitor):
    """Alarm when a class is predicted more or less often than in the reference (Fisher's exact tests, Bonferroni).

    Each class has a test for more and a test for less, each at `level / (2 K)`; an alarm is raised if one of them
    rejects. So the level of a window holds whatever the classes' shares are.

    Values of `update`: predicted classes, int64 (N,), in 0..K-1.

    Args:
        reference: predicted classes of rows without a change, int64 (R,), at least one row.
        classes: K, at least 2.
        window: rows in a window, at least 1.
        false_alarms: expected number in 10,000 rows without a change, at most; in (0, 10,000 / window).

    Attributes:
        least, most: for each class (K,), the least count of a window that is too many, and the largest that is too few
            (-1 if even none is not too few).

    Raises:
        ValueError: a setting out of range, or a window so short that no count could raise an alarm.
    """

    def __init__(self, reference: Tensor, classes: int, *, window: int = 50, false_alarms: float = 1.0) -> None:
        super().__init__(window, false_alarms)
        if classes < 2:
            raise ValueError(f"there must be at least two classes, got {classes}")
        self.classes = classes
        counts = torch.bincount(self.checked(reference), minlength=classes).tolist()
        n, level = len(reference), self.level / (2 * classes)
        if not n:
            raise ValueError("a reference has at least one row, got none")
        self.least = torch.tensor([least_surprising_count(count, n, window, level) for count in counts])
        others = [least_surprising_count(n - count, n, window, level) for count in counts]
        self.most = window - torch.tensor(others)  # too few rows of a class are too many of the others
        check_reachable(min(int(self.least.min()), *others), window, false_alarms)

    def checked(self, values: Tensor) -> Tensor:
        """Classes (N,), int64, in 0..K-1."""
        return check_classes(values, "predicted classes", self.classes)

    def differs(self, rows: Tensor) -> bool:
        """Whether a window (w,) has too many or too few of a class."""
        counts = torch.bincount(rows, minlength=self.classes)
        return bool(((counts >= self.least) | (counts <= self.most)).any())
