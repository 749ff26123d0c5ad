# %% [markdown]
# # What did the other notebook count?
# %% parameters
counts = "results/small/words/counts.json"
out = "scratch/reader"
# %%
import json
from pathlib import Path

from aisec_lab.evaluation import tidy, write_table

counted = json.loads(Path(counts).read_text())
Path(out).mkdir(parents=True, exist_ok=True)
table = tidy([{"study": "small", "data": "words", "metric": name, "value": float(counted[name])} for name in counted])
write_table(table, Path(out) / "rows.parquet")
table[["metric", "value"]]
