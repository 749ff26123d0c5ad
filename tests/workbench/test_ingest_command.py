"""`aisec ingest`, as a person types it."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from aisec_lab.data import prepare
from aisec_lab.workbench.command import main
from tests.clone import ROOT


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with breast cancer, prepared."""
    return prepare("breast_cancer", tmp_path_factory.mktemp("data")).parent


@pytest.fixture
def project(tmp_path: Path, prepared: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project with an accepted version and an incoming one, of which a value is missing; a steward asks."""
    (tmp_path / "dvc.yaml").touch()
    shutil.copytree(ROOT / "configs/access", tmp_path / "configs/access")
    shutil.copytree(prepared, tmp_path / "data")
    with np.load(tmp_path / "data/breast_cancer/train.npz") as arrays:
        x, y = arrays["x"].copy(), arrays["y"]
    x[17, 3] = np.nan
    np.savez(tmp_path / "in.npz", x=x, y=y)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("AISEC_ROLE", "steward")
    return tmp_path


def aisec(*words: str, code: int = 0) -> str:
    """What the command prints, on both streams."""
    done = CliRunner().invoke(main, words)
    assert done.exit_code == code, done.output
    return done.output


def test_rows_are_accepted_and_the_line_for_the_ledger_works(project: Path) -> None:
    """Against data/NAME, without being told; what is printed last can be typed."""
    lines = aisec("ingest", "in.npz", "breast_cancer").splitlines()
    assert lines[0].startswith("breast_cancer: ")
    assert "1 missing" in lines[0]
    verdict = json.loads((project / "scratch/ingest/breast_cancer/verdict.json").read_text())
    assert verdict["against"] == json.loads((project / "data/breast_cancer/card.json").read_text())["sha256"]
    assert (project / "scratch/ingest/breast_cancer/docs/index.html").exists()
    object_, why = "scratch/ingest/breast_cancer/breast_cancer", lines[-1].split('"')[1]
    assert lines[-1] == f'aisec ledger append --what accept --object {object_} --why "{why}"'
    aisec("ledger", "init")
    aisec("ledger", "append", "--what", "accept", "--object", object_, "--why", why)
    assert f"accept {object_}" in aisec("ledger", "log")


def test_outside_the_project_there_is_no_line_for_the_ledger(
    project: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """It could not be typed. Nor may what is read lie where it would be replaced."""
    out = tmp_path_factory.mktemp("elsewhere") / "out"
    output = aisec("ingest", "in.npz", "breast_cancer", "--out", str(out))
    assert "aisec ledger append" not in output
    assert output.splitlines()[-1] == f"see {out}/docs/index.html; a ledger records only what lies in the project"
    shutil.copyfile(project / "in.npz", out / "in.npz")
    output = aisec("ingest", str(out / "in.npz"), "breast_cancer", "--out", str(out), code=2)
    assert "which is replaced: choose another --out" in output


def test_stopped_is_one_line_and_exit_code_1(project: Path) -> None:
    """With where to look; as is a file that cannot be read, which leaves nothing."""
    output = aisec("ingest", "in.npz", "breast_cancer", "--most-quarantined", "0", "--out", "out", code=1)
    assert output.startswith("aisec: breast_cancer stopped: ")
    assert len(output.splitlines()) == 1
    assert output.strip().endswith("out.stopped/docs/index.html")
    assert (project / "out.stopped/docs/index.html").exists()
    assert not (project / "out").exists()
    (project / "bad.npz").write_bytes((project / "in.npz").read_bytes()[:-50])
    output = aisec("ingest", "bad.npz", "breast_cancer", "--out", "other", code=1)
    assert output.startswith("aisec: bad.npz refused, nothing written: no npz with arrays x and y")
    assert len(output.splitlines()) == 1
    assert not list(project.glob("other*"))


def test_what_was_typed_wrong_is_exit_code_2(project: Path) -> None:
    """Before anything is read."""
    assert "no file at" in aisec("ingest", "absent.npz", "breast_cancer", code=2)
    output = aisec("ingest", "in.npz", "breast_cancer", "--no-reference", "--against", "data/breast_cancer", code=2)
    assert "give one of them" in output
    assert "must lie in [0, 1]" in aisec("ingest", "in.npz", "breast_cancer", "--most-quarantined", "5", code=2)
    assert "name a dataset by letters, digits and _" in aisec("ingest", "in.npz", "strange name", code=2)


def test_who_may_not_write_data_may_not_ingest_into_them(project: Path) -> None:
    """Elsewhere it is free."""
    output = aisec("ingest", "in.npz", "breast_cancer", "--out", "data/new", "--role", "researcher", code=2)
    assert output.startswith("aisec: researcher may not write data/new")
    assert not (project / "data/new").exists()


def test_a_first_delivery_is_taken_as_it_comes_and_that_is_said(project: Path) -> None:
    """Loudly, and not where a dictionary says what may come; its rules then hold."""
    rows = [f"{30 + i % 40};{i * 7 % 50},5;{'yes' if i % 2 else 'no'}" for i in range(100)]
    (project / "in.TSV").write_text("\n".join(["age;score;label", *rows]) + "\n")
    output = aisec("ingest", "in.TSV", "people")
    assert "WARNING: a first delivery, compared with nothing: all its rows are accepted" in output
    assert "ingest again with --dictionary (README" in output
    assert "note: cells are separated by semicolons" in output
    assert "note: numbers have decimal commas" in output
    (project / "people.csv").write_text(
        "column,type,unit,min,max,values\nage,integer,years,0,60,\nscore,number,,,,\nlabel,category,,,,no|yes\n"
    )
    output = aisec("ingest", "in.TSV", "people", "--dictionary", "people.csv", "--most-quarantined", "0.5")
    assert "WARNING" not in output
    assert " out of range" in output.splitlines()[0]
    assert "note: not checked: ranges" not in output
    output = aisec("ingest", "in.npz", "breast_cancer", "--dictionary", "people.csv", code=2)
    assert "a dictionary is for a first delivery" in output
    assert "no dictionary at" in aisec("ingest", "in.TSV", "people", "--dictionary", "absent.csv", code=2)
