from .evasion.adaptive import BPDA, EOT, Adaptive
from .evasion.attack import Attack
from .evasion.auto_attack import (
    AttackEnsemble,
    AutoAttack,
    SequentialEnsemble,
    WorstCase,
)
from .evasion.batches import InBatches
from .evasion.black_box.basis import DCT, Pixels
from .evasion.black_box.boundary import Boundary
from .evasion.black_box.decision_search import DecisionAttackResult
from .evasion.black_box.geoda import GeoDA
from .evasion.black_box.hopskipjump import HopSkipJump
from .evasion.black_box.nes import NES
from .evasion.black_box.oars import OARS
from .evasion.black_box.sign_opt import SignOPT
from .evasion.black_box.simba import SimBA
from .evasion.black_box.square import Square
from .evasion.fixed_epsilon import FixedEpsilon
from .evasion.geometry.balls import L0, L1, L2, Ball, Linf
from .evasion.gradient.apgd_attacks import APGD, TargetedAPGD
from .evasion.gradient.mifgsm import MIFGSM
from .evasion.gradient.pgd import FGSM, PGD
from .evasion.gradient.sponge import Sponge, activation_density
from .evasion.gradient.universal import Universal, UniversalPerturbation
from .evasion.low_precision import LowPrecision
from .evasion.minimum_norm.brendel_bethge import BrendelBethge
from .evasion.minimum_norm.carlini_wagner import CarliniWagner
from .evasion.minimum_norm.ddn import DDN
from .evasion.minimum_norm.deepfool import DeepFool
from .evasion.minimum_norm.ead import EAD
from .evasion.minimum_norm.fab import FAB, TargetedFAB
from .evasion.minimum_norm.fmn import FMN
from .evasion.minimum_norm.result import MinimumNormResult
from .evasion.minimum_norm.tracker import MinimumNormAttack
from .evasion.physical.camera import PhysicalTransform
from .evasion.physical.conditions import TransformRanges
from .evasion.physical.patch import AdversarialPatch, Patch
from .evasion.physical.poses import RotationTranslation, rotate_translate
from .evasion.physical.spatial import Spatial, SpatialGrid, SpatialPGD, SpatialResult, WorstOfK
from .evasion.search.goals import EvadeDetector, RegressionTolerance, Targeted, Untargeted, with_target
from .evasion.search.losses import (
    DLR,
    AbsoluteError,
    CrossEntropy,
    DetectorAwareMargin,
    KullbackLeibler,
    Margin,
    SignedError,
    TargetedDLR,
    TargetedMargin,
)
from .evasion.tabular.constraints import TabularConstraints
from .evasion.tabular.frank_wolfe import FrankWolfe
from .extraction.active import ActiveExtraction
from .extraction.augmentation import RandomShift
from .extraction.bandit import BanditSampling
from .extraction.copycat import Copycat
from .extraction.data_free import DataFree
from .extraction.hyperplane import HyperplaneExtraction
from .extraction.jacobian import JacobianAugmentation
from .extraction.knockoff import Knockoff
from .extraction.linear import LinearExtraction
from .extraction.result import Extraction, ExtractionResult, published_probabilities
from .extraction.self_training import SelfTraining
from .extraction.strategies import KCenter, LargestEntropy, SmallestMargin
from .extraction.surrogate_training import train_surrogate
from .extraction.trees import TreeExtraction
from .inference.attributes import CSMIA, Fredrikson, SensitiveAttribute, confusion_matrix
from .inference.exposure import Canary, SkewNormal, exact_exposure, sampled_exposure
from .inference.gradient_inversion import GradientInversion
from .inference.imputation import Imputation
from .inference.inclusion import inclusion_mask
from .inference.informed import BayesReconstruction, GradientRecorder, PriorAwareReconstruction
from .inference.inversion import MIFace, PriorInversion, similarity
from .inference.label_only import LabelOnly
from .inference.lira import LiRA, OfflineLiRA
from .inference.rmia import RMIA, OfflineRMIA
from .inference.shadow_classifier import ShadowClassifier
from .inference.signals import ConfidenceSignal, EntropySignal, LossSignal, ModifiedEntropySignal, ScaledLogitSignal
from .oracle import Monitor, Oracle
from .ownership.removal import (
    CompressionAttack,
    ExtractionAttack,
    FineTuningAttack,
    OverwritingAttack,
    RemovalAttack,
)
from .poisoning.availability import OptP, PoisonedRegression
from .poisoning.backdoor import Backdoor, CleanLabel
from .poisoning.federated import ALittleIsEnough, MaliciousClients, ModelReplacement, SignFlip
from .poisoning.gradient_matching import GradientMatching
from .poisoning.gradient_poisoning import GradientPoisoning
from .poisoning.label_flips import InfluenceLabelFlips, LabelFlips
from .poisoning.poisoned import Poisoned, Poisoning, Trigger
from .poisoning.svm import SVMPoisoning
from .poisoning.triggers import Blended, Checkerboard, Sinusoid, Warp
from .text.attack import TextAttack, TextAttackResult
from .text.characters import CharacterEdits
from .text.greedy import GreedyWordReplacement
from .text.homoglyphs import Homoglyphs
from .text.hotflip import HotFlip
from .text.invisible import Deletions, InvisibleCharacters, Reorderings
from .text.synonyms import Synonyms, SynonymTable
from .victims import FunctionClassifier, HTTPClassifier, SklearnClassifier

__all__ = [
    "APGD",
    "BPDA",
    "CSMIA",
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
    "OARS",
    "PGD",
    "RMIA",
    "ALittleIsEnough",
    "AbsoluteError",
    "ActiveExtraction",
    "Adaptive",
    "AdversarialPatch",
    "Attack",
    "AttackEnsemble",
    "AutoAttack",
    "Backdoor",
    "Ball",
    "BanditSampling",
    "BayesReconstruction",
    "Blended",
    "Boundary",
    "BrendelBethge",
    "Canary",
    "CarliniWagner",
    "CharacterEdits",
    "Checkerboard",
    "CleanLabel",
    "CompressionAttack",
    "ConfidenceSignal",
    "Copycat",
    "CrossEntropy",
    "DataFree",
    "DecisionAttackResult",
    "DeepFool",
    "Deletions",
    "DetectorAwareMargin",
    "EntropySignal",
    "EvadeDetector",
    "Extraction",
    "ExtractionAttack",
    "ExtractionResult",
    "FineTuningAttack",
    "FixedEpsilon",
    "FrankWolfe",
    "Fredrikson",
    "FunctionClassifier",
    "GeoDA",
    "GradientInversion",
    "GradientMatching",
    "GradientPoisoning",
    "GradientRecorder",
    "GreedyWordReplacement",
    "HTTPClassifier",
    "Homoglyphs",
    "HopSkipJump",
    "HotFlip",
    "HyperplaneExtraction",
    "Imputation",
    "InBatches",
    "InfluenceLabelFlips",
    "InvisibleCharacters",
    "JacobianAugmentation",
    "KCenter",
    "Knockoff",
    "KullbackLeibler",
    "LabelFlips",
    "LabelOnly",
    "LargestEntropy",
    "LiRA",
    "LinearExtraction",
    "Linf",
    "LossSignal",
    "LowPrecision",
    "MIFace",
    "MaliciousClients",
    "Margin",
    "MinimumNormAttack",
    "MinimumNormResult",
    "ModelReplacement",
    "ModifiedEntropySignal",
    "Monitor",
    "OfflineLiRA",
    "OfflineRMIA",
    "OptP",
    "Oracle",
    "OverwritingAttack",
    "Patch",
    "PhysicalTransform",
    "Pixels",
    "Poisoned",
    "PoisonedRegression",
    "Poisoning",
    "PriorAwareReconstruction",
    "PriorInversion",
    "RandomShift",
    "RegressionTolerance",
    "RemovalAttack",
    "Reorderings",
    "RotationTranslation",
    "SVMPoisoning",
    "ScaledLogitSignal",
    "SelfTraining",
    "SensitiveAttribute",
    "SequentialEnsemble",
    "ShadowClassifier",
    "SignFlip",
    "SignOPT",
    "SignedError",
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
    "SynonymTable",
    "Synonyms",
    "TabularConstraints",
    "Targeted",
    "TargetedAPGD",
    "TargetedDLR",
    "TargetedFAB",
    "TargetedMargin",
    "TextAttack",
    "TextAttackResult",
    "TransformRanges",
    "TreeExtraction",
    "Trigger",
    "Universal",
    "UniversalPerturbation",
    "Untargeted",
    "Warp",
    "WorstCase",
    "WorstOfK",
    "activation_density",
    "confusion_matrix",
    "exact_exposure",
    "inclusion_mask",
    "published_probabilities",
    "rotate_translate",
    "sampled_exposure",
    "similarity",
    "train_surrogate",
    "with_target",
]
