from .accounting import delta_profile, epsilon, epsilons, noise_multiplier
from .auditing.canaries import CanaryAudit
from .auditing.mechanism import MechanismAudit
from .auditing.one_run import OneRunAudit, max_certifiable_epsilon
from .auditing.training import TrainingMechanism
from .clipping import AdaptiveClipping, FlatClipping, GhostClipping, PerLayerClipping, RowByRowClipping
from .dp_sgd import DPSGD
from .mechanisms import PrivacyStatement, SampledGaussian
from .numeric import GroupMeans, Mean, Quantiles
from .reconstruction import success_bound, success_by_epsilon
from .releases import Count, CrossTable, Histogram
from .stacked import fit_private_stack, member_mechanism
from .synthetic import Synthetic

__all__ = [
    "DPSGD",
    "AdaptiveClipping",
    "CanaryAudit",
    "Count",
    "CrossTable",
    "FlatClipping",
    "GhostClipping",
    "GroupMeans",
    "Histogram",
    "Mean",
    "MechanismAudit",
    "OneRunAudit",
    "PerLayerClipping",
    "PrivacyStatement",
    "Quantiles",
    "RowByRowClipping",
    "SampledGaussian",
    "Synthetic",
    "TrainingMechanism",
    "delta_profile",
    "epsilon",
    "epsilons",
    "fit_private_stack",
    "max_certifiable_epsilon",
    "member_mechanism",
    "noise_multiplier",
    "success_bound",
    "success_by_epsilon",
]
