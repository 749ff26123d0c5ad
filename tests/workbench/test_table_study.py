"""A study of a table, with a defense around the model."""

import re
import shutil

import pandas as pd
import pytest

from tests.clone import SMALL, Project

pytestmark = [pytest.mark.xdist_group("study"), pytest.mark.slow]


def test_a_study_of_a_table_runs_through(restored: Project) -> None:
    """Two classes, thirty columns, an attack that suits them; each defended model has its cost and its place.

    In a project whose study was of images: what does not depend on the data is not run again, and the cells that
    the new study does not declare are removed first, as `collect` would say.
    """
    for left_over in ("robustness/evaluate", "poisoning/poison", "poisoning/poisoning_defenses"):
        shutil.rmtree(restored.root / "results" / left_over)
    restored.aisec(
        *("compose", "+experiment=tables", *SMALL),
        *(
            "study.attacks=[apgd_t]",
            "curve.attack=apgd_t",
            "study.defenses=[none,bit_depth]",
            "fit.epochs=5",
            "attacks.apgd_t.steps=3",
            "poisoning.attacks=[label_flips]",
        ),
        "curve.levels=[0.02]",
    )
    output = restored.run("aisec", "repro", "--jobs", "2")
    ran = set(re.findall(r"^ran +(\S+) in", output, re.MULTILINE))
    assert "notebooks/robustness/dvc.yaml:evaluate@standard-bit_depth-apgd_t-0" in ran
    assert not {"extra_data", *(f"notebooks/evasion/dvc.yaml:notebook@{name}" for name in ("text", "control"))} & ran
    table = pd.read_parquet(restored.root / "results/table.parquet")
    table = table[table.study == "robustness"]
    names = {"standard", "standard+bit_depth"}
    for metric in ("clean_accuracy", "robust_accuracy", "training_forward_passes"):
        assert set(table[table.metric == metric].defense) == names
    clean = table[table.metric == "clean_accuracy"].set_index("defense").value
    worst = table[table.attack == "worst_case"].set_index("defense").value
    assert (clean > 0.7).all(), "it learned"
    assert (worst < clean).all(), "and can be attacked"
    page = (restored.root / "reports/robustness.html").read_text()
    assert page.count("data:image/png") == 2, "the inputs are no images: two figures"
    text = re.sub(r"<[^>]*>", " ", page)  # an image's base64 may spell anything
    assert not re.search(r"\bnan\b", text, re.IGNORECASE)
    assert "Breast cancer" in (restored.root / "reports/index.html").read_text()
