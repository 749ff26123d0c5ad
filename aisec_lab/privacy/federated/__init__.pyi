from .client_level import ClientLevel
from .federation import Federated, Federation
from .local import Local
from .outcomes import Played, epsilon_by_round, gradient_seen, play
from .rules import FedAvg, Krum, Median, TrimmedMean
from .secure import SecureAggregation
from .split import Dirichlet, evenly

__all__ = [
    "ClientLevel",
    "Dirichlet",
    "FedAvg",
    "Federated",
    "Federation",
    "Krum",
    "Local",
    "Median",
    "Played",
    "SecureAggregation",
    "TrimmedMean",
    "epsilon_by_round",
    "evenly",
    "gradient_seen",
    "play",
]
