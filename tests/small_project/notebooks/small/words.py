# %% [markdown]
# # How many words are there?
# %% parameters
words = "data/words/words.txt"
out = "scratch/words"
# %%
import json
from pathlib import Path

found = Path(words).read_text().split()
Path(out).mkdir(parents=True, exist_ok=True)
beside = Path(out, "counts.json.part")
beside.write_text(json.dumps({"words": len(found), "first": found[0]}) + "\n")
beside.rename(Path(out, "counts.json"))
print(f"{len(found)} words, the first is {found[0]}.")
