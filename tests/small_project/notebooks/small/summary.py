# %% [markdown]
# # What did all of them find?
# %% parameters
table = "results/tables/small/table.parquet"
out = "scratch/summary"
overrides: list[str] = []
# %%
from aisec_lab.workbench import configure

cfg = configure(overrides, reads=["study"])
# %%
from pathlib import Path

import matplotlib.pyplot as plt
from IPython.display import Markdown, display

from aisec_lab.core.files import written_beside
from aisec_lab.evaluation import read_table

Path(out).mkdir(parents=True, exist_ok=True)
measured = read_table(table)
robust = measured[measured.metric == "robust_accuracy"].set_index("attack").value.astype(float)
display(Markdown(f"Of the attacks {', '.join(cfg.study.attacks)} the strongest is `{robust.idxmin()}`."))
figure, axes = plt.subplots()
axes.bar(robust.index, robust)
with written_beside(Path(out) / "levels.png") as beside:
    figure.savefig(beside, format="png")
