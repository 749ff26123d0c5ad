from .accounting import delta_profile, epsilon, epsilons, noise_multiplier
from .auditing.canaries import CanaryAudit
from .auditing.mechanism import Hunt
from .auditing.one_run import OneRunAudit, audit_ceiling
from .auditing.training import HuntedTraining
from .clipping import Adaptive, Flat, Ghost, PerLayer, RowByRow
from .dp_sgd import DPSGD
from .mechanisms import SampledGaussian, Statement
from .numeric import GroupMeans, Mean, Quantiles
from .reconstruction import success_bound, success_by_epsilon
from .releases import Count, CrossTable, Histogram
from .stacked import fit_privately_together, mechanism_of_a_member
from .synthetic import Synthetic

__all__ = [
    "DPSGD",
    "Adaptive",
    "CanaryAudit",
    "Count",
    "CrossTable",
    "Flat",
    "Ghost",
    "GroupMeans",
    "Histogram",
    "Hunt",
    "HuntedTraining",
    "Mean",
    "OneRunAudit",
    "PerLayer",
    "Quantiles",
    "RowByRow",
    "SampledGaussian",
    "Statement",
    "Synthetic",
    "audit_ceiling",
    "delta_profile",
    "epsilon",
    "epsilons",
    "fit_privately_together",
    "mechanism_of_a_member",
    "noise_multiplier",
    "success_bound",
    "success_by_epsilon",
]
