"""The error rate of a model whose labels come late, or never."""

from collections.abc import Iterator, Mapping

import torch
from torch import Tensor

from aisec_lab.guard.checks import check_classes
from aisec_lab.guard.monitor import StreamMonitor
from aisec_lab.guard.rates import RateMonitor


class ErrorRateMonitor(StreamMonitor):
    """Alarm when the model errs more often than on the reference, on rows whose labels come later.

    `update` remembers predictions and raises no alarm; `label` brings labels, in any order, and raises the alarms. Rows
    are tested in windows of labelled rows, in the order of their labels, by `RateMonitor`.

    A row without a label is no evidence. If labels do not come, the monitor cannot alarm: watch `unlabelled`. The
    stated rate needs labels to come equally soon and equally often for right and for wrong answers. It does not hold if
    users report errors alone.

    Values of `update`: predicted classes, int64 (N,), at least 0.

    Args:
        reference: whether the model erred, of rows without a change that it was not trained on, bool (R,).
        window: labelled rows in a window, at least 1.
        false_alarms: expected number in 10,000 rows without a change, at most; in (0, 10,000 / window).
        patience: rows after which a row without a label is given up, at least 1. The memory holds so many predictions.

    Attributes:
        labelled: how many rows have had a label in time.
        given_up: how many rows have had no label in time.
        late: how many labels came for rows that were given up; they are not used.

    Raises:
        ValueError: a setting out of range.
    """

    def __init__(
        self, reference: Tensor, *, window: int = 50, false_alarms: float = 1.0, patience: int = 10_000
    ) -> None:
        super().__init__(false_alarms)
        if patience < 1:
            raise ValueError(f"patience must be at least 1 row, got {patience}")
        self.patience = patience
        self._errors = RateMonitor(reference, window=window, false_alarms=false_alarms)
        self._pending: dict[int, int] = {}  # from the number of a row to its prediction, oldest first
        self.labelled = self.given_up = self.late = 0

    @property
    def unlabelled(self) -> float:
        """The share of rows whose time for a label is over and that had none; 0 if there are no such rows yet."""
        over = max(self.rows - self.patience, 0)
        return self.given_up / over if over else 0.0

    def checked(self, values: Tensor) -> Tensor:
        """Classes (N,), int64, at least 0."""
        return check_classes(values, "predicted classes")

    def alarms(self, values: Tensor) -> Iterator[int]:
        """None: predictions are remembered until their labels come."""
        self._pending.update(enumerate(values.tolist(), self.rows - len(values)))
        while self._pending and (oldest := next(iter(self._pending))) < self.rows - self.patience:
            del self._pending[oldest]
            self.given_up += 1
        yield from ()

    def label(self, labels: Mapping[int, int]) -> list[int]:
        """Bring true classes of rows that were seen before.

        Args:
            labels: from the number of a row to its class, in the order in which the labels came.

        Returns:
            The numbers of the rows whose labels completed a window with an alarm, in the order of the labels.

        Raises:
            ValueError: a row that was not seen yet, or that has a label already. No label is then used.
        """
        for row in labels:
            if not 0 <= row < self.rows:
                raise ValueError(f"rows 0..{self.rows - 1} were seen, got a label of row {row}: first call update")
            if row not in self._pending and row >= self.rows - self.patience:
                raise ValueError(f"row {row} has a label already: each row has one")
        known = [row for row in labels if row in self._pending]
        self.late += len(labels) - len(known)
        self.labelled += len(known)
        wrong = torch.tensor([self._pending.pop(row) != labels[row] for row in known], dtype=torch.bool)
        first = self._errors.rows
        return [known[place - first] for place in self._errors.update(wrong)]
