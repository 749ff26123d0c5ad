from .evasion.adaptive import BPDA, EOT, Adaptive
from .evasion.apgd import APGD, TargetedAPGD
from .evasion.balls import L0, L1, L2, Ball, Linf
from .evasion.basis import DCT, Pixels
from .evasion.batches import InBatches
from .evasion.boundary import Boundary
from .evasion.brendel_bethge import BrendelBethge
from .evasion.carlini_wagner import CarliniWagner
from .evasion.ddn import DDN
from .evasion.deepfool import DeepFool
from .evasion.door import Attack
from .evasion.ead import EAD
from .evasion.fab import FAB, TargetedFAB
from .evasion.fmn import FMN
from .evasion.found import Found
from .evasion.geoda import GeoDA
from .evasion.goals import Targeted, Tolerance, Undetected, Untargeted, aimed
from .evasion.gradient import FGSM, PGD
from .evasion.half import Half
from .evasion.hopskipjump import HopSkipJump
from .evasion.losses import (
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
from .evasion.minimal import MinimumNorm
from .evasion.nearest import Searched
from .evasion.nes import NES
from .evasion.noise import RowNoise
from .evasion.physical.camera import Camera
from .evasion.physical.conditions import Conditions
from .evasion.physical.patch import AdversarialPatch, Patch
from .evasion.physical.poses import RotationTranslation, turned
from .evasion.physical.spatial import Spatial, SpatialGrid, SpatialPGD, SpatialResult, WorstOfK
from .evasion.score import Square
from .evasion.sign_opt import SignOPT
from .evasion.simba import SimBA
from .evasion.sponge import Sponge, activation_density
from .evasion.suite import AutoAttack, Cascade, QuickAutoAttack, RandAutoAttack, Suite, Worst
from .evasion.tables import Table
from .evasion.tabular import Tabular
from .evasion.transfer import MIFGSM
from .evasion.universal import Universal, UniversalPerturbation
from .evasion.within import Within
from .extraction.active import ActiveExtraction
from .extraction.augmentation import Shifts
from .extraction.copycat import Copycat
from .extraction.data_free import DataFree
from .extraction.hyperplane import HyperplaneExtraction
from .extraction.imitation import imitated
from .extraction.jacobian import JacobianAugmentation
from .extraction.knockoff import Knockoff
from .extraction.linear import LinearExtraction
from .extraction.policy import Policy
from .extraction.self_training import SelfTraining
from .extraction.stolen import Extraction, Stolen, published
from .extraction.strategies import KCenter, LargestEntropy, SmallestMargin
from .extraction.trees import TreeExtraction
from .inference.attributes import ConfidenceScores, MostProbable, Sensitive, confusion_of
from .inference.coins import inclusion_coins
from .inference.exposure import Canary, SkewNormal, exact_exposure, sampled_exposure
from .inference.gradient_inversion import GradientInversion
from .inference.imputation import Imputation
from .inference.informed import InnerProducts, Likelihood, Watched
from .inference.inversion import MIFace, PriorInversion, resemblance
from .inference.label_only import LabelOnly
from .inference.lira import LiRA, OfflineLiRA
from .inference.rmia import RMIA, OfflineRMIA
from .inference.shadow_classifier import ShadowClassifier
from .inference.signals import Confidence, Entropy, Loss, ModifiedEntropy, ScaledLogit
from .oracle import Monitor, Oracle
from .poisoning.availability import OptP, PoisonedNumbers
from .poisoning.backdoor import Backdoor, CleanLabel
from .poisoning.federated import ALittleIsEnough, Malicious, ModelReplacement, SignFlip
from .poisoning.flips import LabelFlips, WorstFlips
from .poisoning.logistic import WorstRows
from .poisoning.matching import GradientMatching
from .poisoning.poisoned import Poisoned, Poisoning, Trigger
from .poisoning.svm import SVMPoints
from .poisoning.triggers import Blended, Checkerboard, Sinusoid, Warp
from .text.characters import CharacterEdits
from .text.door import Edited, TextAttack
from .text.greedy import Greedy
from .text.homoglyphs import Homoglyphs
from .text.hotflip import HotFlip
from .text.invisible import Deletions, InvisibleCharacters, Reorderings
from .text.synonyms import Neighbours, Synonyms
from .victims import FunctionClassifier, HTTPClassifier, SklearnClassifier

__all__ = [
    "APGD",
    "BPDA",
    "DCT",
    "DDN",
    "DLR",
    "EAD",
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
    "BrendelBethge",
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
    "Deletions",
    "Edited",
    "Entropy",
    "Extraction",
    "Found",
    "FunctionClassifier",
    "GeoDA",
    "GradientInversion",
    "GradientMatching",
    "Greedy",
    "HTTPClassifier",
    "Half",
    "Homoglyphs",
    "HopSkipJump",
    "HotFlip",
    "HyperplaneExtraction",
    "Imputation",
    "InBatches",
    "InnerProducts",
    "InvisibleCharacters",
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
    "Pixels",
    "Poisoned",
    "PoisonedNumbers",
    "Poisoning",
    "Policy",
    "PriorInversion",
    "QuickAutoAttack",
    "RandAutoAttack",
    "Reorderings",
    "Residual",
    "RotationTranslation",
    "RowNoise",
    "SVMPoints",
    "ScaledLogit",
    "Searched",
    "SelfTraining",
    "Sensitive",
    "ShadowClassifier",
    "Shifts",
    "SignFlip",
    "SignOPT",
    "SimBA",
    "Sinusoid",
    "SkewNormal",
    "SklearnClassifier",
    "SmallestMargin",
    "Spatial",
    "SpatialGrid",
    "SpatialPGD",
    "SpatialResult",
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
    "WorstOfK",
    "WorstRows",
    "activation_density",
    "aimed",
    "confusion_of",
    "exact_exposure",
    "imitated",
    "inclusion_coins",
    "published",
    "resemblance",
    "sampled_exposure",
    "turned",
]
