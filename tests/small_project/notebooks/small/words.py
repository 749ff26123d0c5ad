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
Path(out, "counts.json").write_text(json.dumps({"words": len(found), "first": found[0]}) + "\n")
print(f"{len(found)} words, the first is {found[0]}.")
