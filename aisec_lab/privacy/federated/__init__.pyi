from .client_level import ClientLevel
from .federation import FederatedResult, Federation
from .local import Local
from .outcomes import FederatedHistory, epsilon_by_round, observed_gradient, run_federation
from .rules import FedAvg, Krum, Median, TrimmedMean
from .secure import SecureAggregation
from .split import Dirichlet, split_evenly

__all__ = [
    "ClientLevel",
    "Dirichlet",
    "FedAvg",
    "FederatedHistory",
    "FederatedResult",
    "Federation",
    "Krum",
    "Local",
    "Median",
    "SecureAggregation",
    "TrimmedMean",
    "epsilon_by_round",
    "observed_gradient",
    "run_federation",
    "split_evenly",
]
