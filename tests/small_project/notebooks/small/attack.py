# %% [markdown]
# # What does this attack leave of the model?
# %% parameters
attack = "apgd_ce"  # a name under `attacks`
checkpoint = "models/standard-0"
out = "scratch/attack"
overrides: list[str] = []
# %%
from aisec_lab.workbench import config_hash, configure

cfg = configure(overrides, reads=["attack", "data", "device", "model", f"attacks.{attack}"])
# %%
from pathlib import Path

import matplotlib.pyplot as plt
import torch
from hydra.utils import instantiate
from IPython.display import Markdown, display

from aisec_lab.core.files import write_json
from aisec_lab.evaluation import rate, tidy, write_table
from aisec_lab.models import load_checkpoint

Path(out).mkdir(parents=True, exist_ok=True)
splits = instantiate(cfg.data)()
model = load_checkpoint(checkpoint, instantiate(cfg.model, _convert_="all"), splits.card).to(cfg.device)
sample = splits.test.sample(cfg.attack.rows, seed=0)
attacker = instantiate(cfg.attacks[attack])
x_adv = attacker(model, sample.x, sample.y, generator=torch.Generator().manual_seed(cfg.attack.seed))
left = int((model(x_adv).argmax(1) == sample.y).sum())
# %%
place = {
    "study": "small",
    "data": cfg.data.name,
    "model": "cnn",
    "defense": "standard",
    "attack": attack,
    "seed": cfg.attack.seed,
}
robust = rate("robust_accuracy", left, len(sample), knob="Linf", level=attacker.ball.eps, config=config_hash(cfg))
display(Markdown(f"`{attack}` leaves {robust['value']:.0%} of {len(sample)} answers right."))
image = plt.imshow(x_adv[0, 0])
# %%
write_table(tidy([robust | place]), Path(out) / "rows.parquet")
write_json(Path(out) / "metrics.json", {"robust_accuracy": robust["value"]})
