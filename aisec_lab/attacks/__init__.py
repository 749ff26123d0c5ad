"""Attacks: what can be done to a model, one room a threat."""

from aisec_lab.attacks.evasion.adaptive import BPDA, EOT, Adaptive
from aisec_lab.attacks.evasion.apgd import APGD, TargetedAPGD
from aisec_lab.attacks.evasion.balls import L0, L1, L2, Ball, Linf
from aisec_lab.attacks.evasion.boundary import Boundary
from aisec_lab.attacks.evasion.carlini_wagner import CarliniWagner
from aisec_lab.attacks.evasion.ddn import DDN
from aisec_lab.attacks.evasion.deepfool import DeepFool
from aisec_lab.attacks.evasion.door import Attack
from aisec_lab.attacks.evasion.fab import FAB, TargetedFAB
from aisec_lab.attacks.evasion.fmn import FMN
from aisec_lab.attacks.evasion.found import Found
from aisec_lab.attacks.evasion.goals import Targeted, Tolerance, Undetected, Untargeted
from aisec_lab.attacks.evasion.gradient import FGSM, PGD
from aisec_lab.attacks.evasion.half import Half
from aisec_lab.attacks.evasion.hopskipjump import HopSkipJump
from aisec_lab.attacks.evasion.losses import (
    DLR,
    AbsoluteError,
    CrossEntropy,
    KullbackLeibler,
    Margin,
    Residual,
    TargetedDLR,
    TargetedMargin,
    UndetectedMargin,
)
from aisec_lab.attacks.evasion.minimal import MinimumNorm
from aisec_lab.attacks.evasion.nearest import Searched
from aisec_lab.attacks.evasion.nes import NES
from aisec_lab.attacks.evasion.noise import RowNoise
from aisec_lab.attacks.evasion.physical.camera import Camera
from aisec_lab.attacks.evasion.physical.conditions import Conditions
from aisec_lab.attacks.evasion.physical.patch import AdversarialPatch, Patch
from aisec_lab.attacks.evasion.score import Square
from aisec_lab.attacks.evasion.sponge import Sponge, activation_density
from aisec_lab.attacks.evasion.suite import AutoAttack, Cascade, QuickAutoAttack, RandAutoAttack, Suite, Worst
from aisec_lab.attacks.evasion.tables import Table
from aisec_lab.attacks.evasion.tabular import Tabular
from aisec_lab.attacks.evasion.transfer import MIFGSM
from aisec_lab.attacks.evasion.universal import Universal, UniversalPerturbation
from aisec_lab.attacks.evasion.within import Within
from aisec_lab.attacks.extraction.active import ActiveExtraction
from aisec_lab.attacks.extraction.augmentation import Shifts
from aisec_lab.attacks.extraction.copycat import Copycat
from aisec_lab.attacks.extraction.data_free import DataFree
from aisec_lab.attacks.extraction.hyperplane import HyperplaneExtraction
from aisec_lab.attacks.extraction.imitation import imitated
from aisec_lab.attacks.extraction.jacobian import JacobianAugmentation
from aisec_lab.attacks.extraction.knockoff import Knockoff
from aisec_lab.attacks.extraction.linear import LinearExtraction
from aisec_lab.attacks.extraction.policy import Policy
from aisec_lab.attacks.extraction.self_training import SelfTraining
from aisec_lab.attacks.extraction.stolen import Extraction, Stolen, published
from aisec_lab.attacks.extraction.strategies import KCenter, LargestEntropy, SmallestMargin
from aisec_lab.attacks.extraction.trees import TreeExtraction
from aisec_lab.attacks.inference.attributes import ConfidenceScores, MostProbable, Sensitive, confusion_of
from aisec_lab.attacks.inference.coins import inclusion_coins
from aisec_lab.attacks.inference.exposure import Canary, SkewNormal, exact_exposure, sampled_exposure
from aisec_lab.attacks.inference.gradient_inversion import GradientInversion
from aisec_lab.attacks.inference.imputation import Imputation
from aisec_lab.attacks.inference.informed import InnerProducts, Likelihood, Watched
from aisec_lab.attacks.inference.inversion import MIFace, PriorInversion, resemblance
from aisec_lab.attacks.inference.label_only import LabelOnly
from aisec_lab.attacks.inference.lira import LiRA, OfflineLiRA
from aisec_lab.attacks.inference.rmia import RMIA, OfflineRMIA
from aisec_lab.attacks.inference.shadow_classifier import ShadowClassifier
from aisec_lab.attacks.inference.signals import Confidence, Entropy, Loss, ModifiedEntropy, ScaledLogit
from aisec_lab.attacks.oracle import Monitor, Oracle
from aisec_lab.attacks.poisoning.availability import OptP, PoisonedNumbers
from aisec_lab.attacks.poisoning.backdoor import Backdoor, CleanLabel
from aisec_lab.attacks.poisoning.federated import ALittleIsEnough, Malicious, ModelReplacement, SignFlip
from aisec_lab.attacks.poisoning.flips import LabelFlips, WorstFlips
from aisec_lab.attacks.poisoning.logistic import WorstRows
from aisec_lab.attacks.poisoning.matching import GradientMatching
from aisec_lab.attacks.poisoning.poisoned import Poisoned, Poisoning, Trigger
from aisec_lab.attacks.poisoning.svm import SVMPoints
from aisec_lab.attacks.poisoning.triggers import Blended, Checkerboard, Sinusoid, Warp
from aisec_lab.attacks.text.characters import CharacterEdits
from aisec_lab.attacks.text.door import Edited, TextAttack
from aisec_lab.attacks.text.greedy import Greedy
from aisec_lab.attacks.text.homoglyphs import Homoglyphs
from aisec_lab.attacks.text.hotflip import HotFlip
from aisec_lab.attacks.text.synonyms import Neighbours, Synonyms

__all__ = [
    "APGD",
    "BPDA",
    "DDN",
    "DLR",
    "EOT",
    "FAB",
    "FGSM",
    "FMN",
    "L0",
    "L1",
    "L2",
    "MIFGSM",
    "NES",
    "PGD",
    "RMIA",
    "ALittleIsEnough",
    "AbsoluteError",
    "ActiveExtraction",
    "Adaptive",
    "AdversarialPatch",
    "Attack",
    "AutoAttack",
    "Backdoor",
    "Ball",
    "Blended",
    "Boundary",
    "Camera",
    "Canary",
    "CarliniWagner",
    "Cascade",
    "CharacterEdits",
    "Checkerboard",
    "CleanLabel",
    "Conditions",
    "Confidence",
    "ConfidenceScores",
    "Copycat",
    "CrossEntropy",
    "DataFree",
    "DeepFool",
    "Edited",
    "Entropy",
    "Extraction",
    "Found",
    "GradientInversion",
    "GradientMatching",
    "Greedy",
    "Half",
    "Homoglyphs",
    "HopSkipJump",
    "HotFlip",
    "HyperplaneExtraction",
    "Imputation",
    "InnerProducts",
    "JacobianAugmentation",
    "KCenter",
    "Knockoff",
    "KullbackLeibler",
    "LabelFlips",
    "LabelOnly",
    "LargestEntropy",
    "LiRA",
    "Likelihood",
    "LinearExtraction",
    "Linf",
    "Loss",
    "MIFace",
    "Malicious",
    "Margin",
    "MinimumNorm",
    "ModelReplacement",
    "ModifiedEntropy",
    "Monitor",
    "MostProbable",
    "Neighbours",
    "OfflineLiRA",
    "OfflineRMIA",
    "OptP",
    "Oracle",
    "Patch",
    "Poisoned",
    "PoisonedNumbers",
    "Poisoning",
    "Policy",
    "PriorInversion",
    "QuickAutoAttack",
    "RandAutoAttack",
    "Residual",
    "RowNoise",
    "SVMPoints",
    "ScaledLogit",
    "Searched",
    "SelfTraining",
    "Sensitive",
    "ShadowClassifier",
    "Shifts",
    "SignFlip",
    "Sinusoid",
    "SkewNormal",
    "SmallestMargin",
    "Sponge",
    "Square",
    "Stolen",
    "Suite",
    "Synonyms",
    "Table",
    "Tabular",
    "Targeted",
    "TargetedAPGD",
    "TargetedDLR",
    "TargetedFAB",
    "TargetedMargin",
    "TextAttack",
    "Tolerance",
    "TreeExtraction",
    "Trigger",
    "Undetected",
    "UndetectedMargin",
    "Universal",
    "UniversalPerturbation",
    "Untargeted",
    "Warp",
    "Watched",
    "Within",
    "Worst",
    "WorstFlips",
    "WorstRows",
    "activation_density",
    "confusion_of",
    "exact_exposure",
    "imitated",
    "inclusion_coins",
    "published",
    "resemblance",
    "sampled_exposure",
]
