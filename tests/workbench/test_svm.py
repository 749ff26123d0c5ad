"""Support vector machines, trained and attacked by SecML in one kernel, attacked by the lab in the other."""

import json

import numpy as np
import papermill
import pytest
import torch
from jupyter_client.kernelspec import KernelSpecManager
from omegaconf import OmegaConf

from aisec_lab.evaluation import read_table
from aisec_lab.models import SVM
from tests.clone import ROOT, Clone

SETTINGS = OmegaConf.load(ROOT / "params.yaml").svm
INSTALLED = "aisec-legacy" in KernelSpecManager().find_kernel_specs()


def test_by_hand_the_notebook_has_the_settings_of_the_study() -> None:
    """It cannot read params.yaml: what a stage passes to it stands there a second time."""
    declared = papermill.inspect_notebook(str(ROOT / "notebooks/evasion/svm_secml.ipynb"))
    written = {name: OmegaConf.create(f"value: {declared[name]['default']}").value for name in declared}
    assert {name: SETTINGS[name] for name in written if name not in ("data", "out")} == {
        name: value for name, value in written.items() if name not in ("data", "out")
    }


@pytest.mark.legacy
@pytest.mark.skipif(not INSTALLED, reason="there is no kernel aisec-legacy: `make legacy` makes it")
def test_ours_are_as_strong_as_secml_on_its_own_machines(clone: Clone) -> None:
    """A run by SecML, and the lab's attacks on what crossed between the kernels."""
    clone.run("aisec", "data", "digits")
    out = clone.root / "results/svm_secml"
    clone.run("aisec", "run", "notebooks/evasion/svm_secml.ipynb", str(out), "-p", "rows=12", "-p", "budgets=2")
    assert {path.name for path in out.iterdir()} == {"svm_secml.ipynb", "svm_secml.html", "svm.npz"}
    assert "data:image/png;base64" in (out / "svm_secml.html").read_text()

    with np.load(out / "svm.npz") as file:
        arrays = dict(file)
    x, levels = torch.from_numpy(arrays["x"]), [0, 0.75, 1.5]
    for name, gamma in {"linear": None, "rbf": SETTINGS.gamma}.items():
        parts = (arrays[f"{name}/{part}"] for part in ("support_vectors", "dual_coefficients", "intercept"))
        f = SVM(*parts, gamma)(x).diff()[:, 0]
        assert f.numpy() == pytest.approx(arrays[f"{name}/decision"], abs=1e-12)
        moved = np.linalg.norm(arrays[f"{name}/x_adv"] - arrays["x"], axis=2).max(axis=1)
        assert (moved <= np.array(levels) + 1e-9).all()
        assert (moved[1:] > 0).all()

    clone.run("aisec", "run", "notebooks/evasion/svm.ipynb", "results/svm", "-p", "secml=results/svm_secml/svm.npz")
    assert json.loads((clone.root / "results/svm/metrics.json").read_text())["most_rows_behind_secml"] <= 1
    table = read_table(clone.root / "results/svm/rows.parquet")
    assert set(table.study) == {"evasion"}
    assert set(table.level.dropna()) == set(levels[1:])
    assert len(table) == 2 * (1 + 5 * 2), "for each machine its clean accuracy, and five attacks at two budgets"
