"""Learning and telling that no single row can sway far: training, releases, what they promise, and audits of it."""

from aisec_lab.privacy.accounting import (
    SampledGaussian,
    Statement,
    delta_profile,
    epsilon,
    epsilons,
    noise_multiplier,
)
from aisec_lab.privacy.auditing.canaries import CanaryAudit
from aisec_lab.privacy.auditing.mechanism import Hunt
from aisec_lab.privacy.auditing.one_run import OneRunAudit, audit_ceiling
from aisec_lab.privacy.auditing.training import HuntedTraining
from aisec_lab.privacy.clipping import Adaptive, Flat, Ghost, PerLayer
from aisec_lab.privacy.dp_sgd import DPSGD
from aisec_lab.privacy.numeric import GroupMeans, Mean, Quantiles
from aisec_lab.privacy.reconstruction import success_bound, success_by_epsilon
from aisec_lab.privacy.releases import Count, CrossTable, Histogram
from aisec_lab.privacy.stacked import fit_privately_together, mechanism_of_a_member
from aisec_lab.privacy.synthetic import Synthetic

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
