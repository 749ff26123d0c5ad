"""Learning together without pooling the rows: clients, servers, what each may see, and what is promised to whom."""

from aisec_lab.privacy.federated.client_level import ClientLevel
from aisec_lab.privacy.federated.federation import Federated, Federation
from aisec_lab.privacy.federated.local import Local
from aisec_lab.privacy.federated.outcomes import Played, epsilon_by_round, gradient_seen, play
from aisec_lab.privacy.federated.rules import Krum, Mean, Median, TrimmedMean
from aisec_lab.privacy.federated.secure import SecureAggregation
from aisec_lab.privacy.federated.split import Dirichlet, evenly

__all__ = [
    "ClientLevel",
    "Dirichlet",
    "Federated",
    "Federation",
    "Krum",
    "Local",
    "Mean",
    "Median",
    "Played",
    "SecureAggregation",
    "TrimmedMean",
    "epsilon_by_round",
    "evenly",
    "gradient_seen",
    "play",
]
