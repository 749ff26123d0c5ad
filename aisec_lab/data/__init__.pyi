from .cartpole import demonstrations, observed
from .catalog import CATALOG, Entry
from .dataset import Dataset, Splits, stratified_sample, stratified_split
from .preparation import Prepared, prepare
from .sources import File
from .targets import TargetDataset
from .texts import PreparedTexts, Texts, TextSplits

__all__ = [
    "CATALOG",
    "Dataset",
    "Entry",
    "File",
    "Prepared",
    "PreparedTexts",
    "Splits",
    "TargetDataset",
    "TextSplits",
    "Texts",
    "demonstrations",
    "observed",
    "prepare",
    "stratified_sample",
    "stratified_split",
]
