"""What a minimum-norm attack gives back."""

from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True, eq=False)
class MinimumNormResult:
    """The nearest adversarial input of each row, and how far it is: one run gives the whole security curve.

    Args:
        x_adv: inputs (N, *input); a row for which nothing was found stays as it was.
        distance: their distances (N,) in the attack's norm: 0 for rows that are won as they are, `inf` where
            nothing was found. A row is broken at eps if its distance is at most eps.
    """

    x_adv: Tensor
    distance: Tensor
