"""What we learn from: datasets, the catalog they come from, and their preparation."""

from aisec_lab.data.catalog import CATALOG, Entry
from aisec_lab.data.dataset import Dataset, Splits, stratified_sample, stratified_split
from aisec_lab.data.prepare import Prepared, prepare
from aisec_lab.data.sources import File

__all__ = [
    "CATALOG",
    "Dataset",
    "Entry",
    "File",
    "Prepared",
    "Splits",
    "prepare",
    "stratified_sample",
    "stratified_split",
]
