"""Classifiers, the one training loop, and checkpoints."""

from aisec_lab.models.architectures import CNN, MLP, ResNet, StridedCNN
from aisec_lab.models.checkpoints import load_checkpoint, save_checkpoint
from aisec_lab.models.contexts import frozen, seeded
from aisec_lab.models.export import OnnxClassifier, onnx_bytes, save_onnx
from aisec_lab.models.fit import Course, Fit, Objective, Probe, Step, in_turn, plain
from aisec_lab.models.language import Characters, NeuralNGram, text_bits
from aisec_lab.models.layers import Architecture, Normalised
from aisec_lab.models.parallel import fit_in_parallel
from aisec_lab.models.passes import Counted, logits_of
from aisec_lab.models.regression import KernelRidge, Ridge
from aisec_lab.models.scattering import Scattering, ScatteringLinear, ThroughScattering
from aisec_lab.models.stack import Stack
from aisec_lab.models.stacked import fit_together
from aisec_lab.models.svm import SVM
from aisec_lab.models.tempered import TemperedCNN
from aisec_lab.models.text import BagOfEmbeddings, TextClassifier, TextCNN, TextTraining, text_logits
from aisec_lab.models.tree import DecisionTree, Tree
from aisec_lab.models.words import Vocabulary, tokenise

__all__ = [
    "CNN",
    "MLP",
    "SVM",
    "Architecture",
    "BagOfEmbeddings",
    "Characters",
    "Counted",
    "Course",
    "DecisionTree",
    "Fit",
    "KernelRidge",
    "NeuralNGram",
    "Normalised",
    "Objective",
    "OnnxClassifier",
    "Probe",
    "ResNet",
    "Ridge",
    "Scattering",
    "ScatteringLinear",
    "Stack",
    "Step",
    "StridedCNN",
    "TemperedCNN",
    "TextCNN",
    "TextClassifier",
    "TextTraining",
    "ThroughScattering",
    "Tree",
    "Vocabulary",
    "fit_in_parallel",
    "fit_together",
    "frozen",
    "in_turn",
    "load_checkpoint",
    "logits_of",
    "onnx_bytes",
    "plain",
    "save_checkpoint",
    "save_onnx",
    "seeded",
    "text_bits",
    "text_logits",
    "tokenise",
]
