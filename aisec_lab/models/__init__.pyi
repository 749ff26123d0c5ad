from .architectures import CNN, MLP, ResNet, StridedCNN
from .checkpoints import load_checkpoint, save_checkpoint
from .contexts import copied, frozen, in_mode_of, in_training, seeded, trainable, with_modes
from .export import OnnxClassifier, onnx_bytes, save_onnx
from .fit import Course, Fit, Objective, Probe, Step, in_turn, plain
from .language import Characters, NeuralNGram, text_bits
from .layers import Architecture, LogProbabilities, Normalised, TwoLogits, refuse_computed, refuse_opaque
from .parallel import fit_in_parallel
from .passes import Counted, called, device_of, logits_of
from .regression import KernelRidge, Ridge
from .scattering import Scattering, ScatteringLinear, ThroughScattering
from .slopes import gradient, leaf, refuse_constant
from .stack import Stack
from .stacked import fit_together
from .svm import SVM
from .tempered import TemperedCNN
from .text import BagOfEmbeddings, TextClassifier, TextCNN, TextTraining, text_logits
from .tree import DecisionTree, Tree
from .words import Vocabulary, tokenise

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
    "LogProbabilities",
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
    "TwoLogits",
    "Vocabulary",
    "called",
    "copied",
    "device_of",
    "fit_in_parallel",
    "fit_together",
    "frozen",
    "gradient",
    "in_mode_of",
    "in_training",
    "in_turn",
    "leaf",
    "load_checkpoint",
    "logits_of",
    "onnx_bytes",
    "plain",
    "refuse_computed",
    "refuse_constant",
    "refuse_opaque",
    "save_checkpoint",
    "save_onnx",
    "seeded",
    "text_bits",
    "text_logits",
    "tokenise",
    "trainable",
    "with_modes",
]
