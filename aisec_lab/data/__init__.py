"""What we learn from: datasets, the catalog they come from, and their preparation."""

from aisec_lab.data.cartpole import demonstrations, observed
from aisec_lab.data.catalog import CATALOG, Entry
from aisec_lab.data.dataset import Dataset, Splits, stratified_sample, stratified_split
from aisec_lab.data.preparation import Prepared, prepare
from aisec_lab.data.sources import File
from aisec_lab.data.texts import PreparedTexts, Texts, TextSplits

__all__ = [
    "CATALOG",
    "Dataset",
    "Entry",
    "File",
    "Prepared",
    "PreparedTexts",
    "Splits",
    "TextSplits",
    "Texts",
    "demonstrations",
    "observed",
    "prepare",
    "stratified_sample",
    "stratified_split",
]
