"""The result of a minimum-norm attack."""

from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True, eq=False)
class MinimumNormResult:
    """The nearest adversarial input of each row and its distance: one run gives the whole security curve.

    Args:
        x_adv: inputs (N, *input); a row without an adversarial point is the clean one.
        distance: distances (N,) in the attack's norm: 0 for rows misclassified without an attack, `inf` for rows
            without an adversarial point. A row is adversarial at eps if its distance is at most eps.
    """

    x_adv: Tensor
    distance: Tensor
