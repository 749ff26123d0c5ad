from .cartpole import demonstrations, observed
from .catalog import CATALOG, CatalogEntry
from .dataset import Dataset, Splits, stratified_sample, stratified_split
from .preparation import Prepared, prepare
from .sources import File
from .targets import TargetDataset
from .texts import PreparedTexts, Texts, TextSplits, as_strings, as_texts

__all__ = [
    "CATALOG",
    "CatalogEntry",
    "Dataset",
    "File",
    "Prepared",
    "PreparedTexts",
    "Splits",
    "TargetDataset",
    "TextSplits",
    "Texts",
    "as_strings",
    "as_texts",
    "demonstrations",
    "observed",
    "prepare",
    "stratified_sample",
    "stratified_split",
]
