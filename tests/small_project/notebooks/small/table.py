# %% [markdown]
# # What does a model of a table learn?
# %% parameters
root = "data"  # the folder with the prepared table
out = "scratch/table"
overrides: list[str] = []
# %%
from aisec_lab.workbench import config_hash, configure

cfg = configure(overrides, reads=["table"])
# %%
from pathlib import Path

import torch
from hydra.utils import instantiate

from aisec_lab.defenses import Standard
from aisec_lab.evaluation import rate, tidy, write_table
from aisec_lab.models import logits_of

Path(out).mkdir(parents=True, exist_ok=True)
splits = instantiate(cfg.table.data)(root)
generator = torch.Generator().manual_seed(cfg.table.seed)
model = instantiate(cfg.table.model, _convert_="all")(splits.train.shape, 2, generator=generator)
instantiate(cfg.table.fit)(model, splits.train, Standard(), generator=generator)
right = int((logits_of(model, splits.test.x).argmax(1) == splits.test.y).sum())
# %%
place = {"study": "small", "data": cfg.table.data.name, "attack": "none", "config": config_hash(cfg)}
table = tidy([rate("clean_accuracy", right, len(splits.test)) | place])
write_table(table, Path(out) / "rows.parquet")
table[list(table)]  # wider than a terminal: how a kernel was started must not show
