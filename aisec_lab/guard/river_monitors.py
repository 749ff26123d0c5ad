"""Drift detectors of river (Montiel et al., 2021, arXiv:2012.04740), with parameters from a rate of false alarms."""

from collections.abc import Iterator

import torch
from torch import Tensor

from aisec_lab.guard.checks import check_numbers
from aisec_lab.guard.monitor import ROWS, StreamMonitor

CLOCK = 32  # rows from one check of ADWIN to the next: river's default
STRIDE = 50  # rows from one test of KSWIN to the next; a test takes half a millisecond


class ADWINMonitor(StreamMonitor):
    """Adaptive windows by river's ADWIN (Bifet & Gavalda, 2007): alarm when the mean changes.

    ADWIN keeps all rows since the last change, and cuts where the means of the older and the newer part differ. Its
    theorem 3.1 bounds the probability of a false cut at each check by `delta`, for values in [0, 1]. With a check every
    32 rows, `delta = 32 false_alarms / 10,000` gives the stated rate.

    The theorem does not cover all of it: it divides delta by the length of the window, the authors' implementation and
    river's only by its logarithm, with a normal approximation of the means. Therefore the rate is held by simulation,
    in `tests/guard/test_river_monitors.py`. There it is far below the stated one.

    The range of the reference is mapped to [0, 1], and a value outside counts as its end. So a few extreme values in
    the reference make ADWIN slow.

    Values of `update`: shape (N,), finite.

    Args:
        reference: values without a change (R,), finite, not all equal; it sets the range and is not tested against.
        false_alarms: expected number in 10,000 rows without a change, at most; in (0, 312.5).

    Raises:
        ValueError: a setting out of range.
        ImportError: river is not installed.
    """

    def __init__(self, reference: Tensor, *, false_alarms: float = 1.0) -> None:
        super().__init__(false_alarms)
        numbers = check_numbers(reference, (), "the reference")
        delta = false_alarms * CLOCK / ROWS
        if not len(numbers) or not numbers.min() < numbers.max() or not delta < 1:
            raise ValueError(
                f"ADWIN needs a reference with two different values, and false alarms below {ROWS / CLOCK:g}, got "
                f"{len(numbers)} values and {false_alarms}"
            )
        self.low, self.high = float(numbers.min()), float(numbers.max())
        from river.drift import ADWIN

        self._detector = ADWIN(delta=delta, clock=CLOCK)

    def checked(self, values: Tensor) -> Tensor:
        """Numbers (N,), scaled to [0, 1]."""
        numbers = check_numbers(values, (), "monitored values")
        return ((numbers - self.low) / (self.high - self.low)).clamp(0, 1)

    def alarms(self, values: Tensor) -> Iterator[int]:
        """The places at which ADWIN cuts; it then begins anew."""
        for place, value in enumerate(values.tolist()):
            self._detector.update(value)
            if self._detector.drift_detected:
                yield place


class KSWINMonitor(StreamMonitor):
    """Sliding windows by river's KSWIN (Raab et al., 2020, arXiv:2007.05432, section 3).

    KSWIN compares the latest rows with as many that it draws from the rows before them, by the exact test of Kolmogorov
    and Smirnov. Without a change, each test has the level alpha. With a test every 50 rows,
    `alpha = 50 false_alarms / 10,000` gives the stated rate, by the linearity of expectation. As successive tests share
    most of their rows and the detector begins anew after an alarm, the true rate is lower.

    KSWIN has no reference but its own past: a gradual change can become its past unseen. A change of few rows is hardly
    noticed, however far they move, since the test sees distribution functions.

    Values of `update`: shape (N,), finite.

    Args:
        recent: latest rows that are compared, at least 2.
        window: rows that are remembered, at least twice as many.
        false_alarms: expected number in 10,000 rows without a change, at most; in (0, 200).
        generator: seeds the draws of KSWIN.

    Raises:
        ValueError: a setting out of range.
        ImportError: river is not installed.
    """

    def __init__(
        self, *, recent: int = 100, window: int = 300, false_alarms: float = 1.0, generator: torch.Generator
    ) -> None:
        super().__init__(false_alarms)
        alpha = false_alarms * STRIDE / ROWS
        if recent < 2 or window < 2 * recent or not alpha < 1:
            raise ValueError(
                f"KSWIN compares two rows or more with as many of a window, and has false alarms below "
                f"{ROWS // STRIDE}, got {recent}, {window} and {false_alarms}"
            )
        self.recent, self.window, self._alpha = recent, window, alpha
        self._seed = int(torch.randint(2**31, (), generator=generator))
        self._begin()

    def _begin(self) -> None:
        """A detector that has seen nothing, with new draws."""
        from river.drift import KSWIN

        self._seed += 1
        self._detector = KSWIN(self._alpha, window_size=self.window, stat_size=self.recent, seed=self._seed)

    def checked(self, values: Tensor) -> Tensor:
        """Numbers (N,)."""
        return check_numbers(values, (), "monitored values")

    def alarms(self, values: Tensor) -> Iterator[int]:
        """The places at which a test rejects; it then begins anew."""
        first = self.rows - len(values)
        for place, value in enumerate(values.tolist(), 1):
            if (first + place) % STRIDE:
                self._detector.window.append(value)
                continue
            self._detector.update(value)  # which tests
            if self._detector.drift_detected:
                self._begin()
                yield place - 1
