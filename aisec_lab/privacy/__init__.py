"""Learning that no single row can sway far."""

from aisec_lab.privacy.dp_sgd import DPSGD

__all__ = ["DPSGD"]
