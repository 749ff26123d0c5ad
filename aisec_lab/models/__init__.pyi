from .architectures import CNN, MLP, ResNet, StridedCNN
from .checkpoints import load_checkpoint, save_checkpoint
from .contexts import copied, frozen, in_mode_of, in_training, seeded, trainable
from .language import CharVocabulary, NeuralNGram, text_bits
from .layers import Architecture, LogProbabilities, Normalised, TwoLogits, refuse_computed, refuse_opaque
from .onnx.export import OnnxClassifier, onnx_bytes, save_onnx
from .passes import PassCounter, called_layers, device_of, logits_of
from .regression import KernelRidge, Ridge
from .scattering import Scattering, ScatteringLinear, ThroughScattering
from .slopes import gradient, leaf, refuse_constant
from .svm import SVM
from .tempered import TemperedCNN
from .text import BagOfEmbeddings, TextClassifier, TextCNN, TextTraining, text_logits
from .training.fit import Callback, Fit, Objective, Step, plain_step
from .training.fit_stack import fit_stack
from .training.parallel import fit_in_parallel
from .training.recipe import TrainingJob, TrainingRecipe, concatenate_records
from .training.stack import ModelStack
from .training.train import train_model
from .tree import DecisionTree, Tree
from .words import Vocabulary, tokenise

__all__ = [
    "CNN",
    "MLP",
    "SVM",
    "Architecture",
    "BagOfEmbeddings",
    "Callback",
    "CharVocabulary",
    "DecisionTree",
    "Fit",
    "KernelRidge",
    "LogProbabilities",
    "ModelStack",
    "NeuralNGram",
    "Normalised",
    "Objective",
    "OnnxClassifier",
    "PassCounter",
    "ResNet",
    "Ridge",
    "Scattering",
    "ScatteringLinear",
    "Step",
    "StridedCNN",
    "TemperedCNN",
    "TextCNN",
    "TextClassifier",
    "TextTraining",
    "ThroughScattering",
    "TrainingJob",
    "TrainingRecipe",
    "Tree",
    "TwoLogits",
    "Vocabulary",
    "called_layers",
    "concatenate_records",
    "copied",
    "device_of",
    "fit_in_parallel",
    "fit_stack",
    "frozen",
    "gradient",
    "in_mode_of",
    "in_training",
    "leaf",
    "load_checkpoint",
    "logits_of",
    "onnx_bytes",
    "plain_step",
    "refuse_computed",
    "refuse_constant",
    "refuse_opaque",
    "save_checkpoint",
    "save_onnx",
    "seeded",
    "text_bits",
    "text_logits",
    "tokenise",
    "train_model",
    "trainable",
]
