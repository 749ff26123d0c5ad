from .client_level import ClientLevel
from .client_update import ClientUpdate
from .federation import FederatedResult, Federation
from .outcomes import FederatedHistory, epsilon_by_round, observed_gradient, run_federation
from .rules import FedAvg, Krum, Median, TrimmedMean
from .secure import SecureAggregation
from .split import Dirichlet, split_evenly

__all__ = [
    "ClientLevel",
    "ClientUpdate",
    "Dirichlet",
    "FedAvg",
    "FederatedHistory",
    "FederatedResult",
    "Federation",
    "Krum",
    "Median",
    "SecureAggregation",
    "TrimmedMean",
    "epsilon_by_round",
    "observed_gradient",
    "run_federation",
    "split_evenly",
]
