"""configs/ and params.yaml."""

import os
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest
from click.testing import CliRunner
from dvc.utils.hydra import compose_and_dump
from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf

from aisec_lab.data import prepare
from aisec_lab.workbench.command import main
from aisec_lab.workbench.composition import compose_params
from aisec_lab.workbench.configuration import composed
from tests.clone import ROOT, Clone

FILES = sorted((ROOT / "configs").rglob("*/*.yaml"))
OTHER_NORM = dict.fromkeys(("boundary", "carlini_wagner", "ddn"), "l2") | {"ead": "l1"}  # attacks that know no other
composes = pytest.mark.xdist_group("probes")  # what takes seconds to compose is composed by one worker


OTHER = ["data=mnist", "study.seeds=[3]", "evasion.seed=3", "poisoning.seeds=[3]", "fit.learning_rate=1e-5"]


@pytest.mark.parametrize("overrides", [[], OTHER], ids=str)
def test_dvc_would_write_the_same_bytes(overrides: list[str], tmp_path: Path) -> None:
    """`dvc exp run` overwrites params.yaml: it must not differ from what `aisec compose` commits."""
    compose_and_dump(tmp_path / "params.yaml", str(ROOT / "configs"), None, "config", str(ROOT), overrides)
    assert compose_params(overrides) == (tmp_path / "params.yaml").read_text()


@cache
def probes(ball: str) -> DictConfig:
    """The default, and beside it every file that may be part of it under one threat model: composing takes seconds."""
    places = [
        (file.parent.name, file.stem)
        for file in FILES
        if file.parent.name != "experiment" and OTHER_NORM.get(file.stem, "linf") == ball
    ]
    return composed([f"ball={ball}", *(f"+{group}@probes.{group}.{name}={name}" for group, name in places)])


@composes
@pytest.mark.parametrize("file", FILES, ids=lambda file: f"{file.parent.name}/{file.stem}")
def test_every_file_of_the_tree_builds_what_it_names(file: Path) -> None:
    """A class, or what belongs to one notebook; an experiment as it would be composed."""
    group, name = file.parent.name, file.stem
    if group == "experiment":
        compose_params([f"+experiment={name}"])
        return
    built = instantiate(probes(OTHER_NORM.get(name, "linf")).probes[group][name], _convert_="all")
    written = OmegaConf.load(file)
    if "_target_" in written:
        assert type(built).__name__ == written._target_.rsplit(".")[-1]


def test_every_file_of_a_study_has_its_place() -> None:
    """It is a notebook's in the default, or another choice for one of these, whose name it begins with."""
    lines = re.findall(r"^  - (\w+)@(\w+): (\w+)", (ROOT / "configs/config.yaml").read_text(), re.MULTILINE)
    for study in {path.name for path in (ROOT / "notebooks").iterdir()}:
        places = {name: place for group, place, name in lines if group == study}
        assert len(places) == len(set(places.values()))
        for file in (ROOT / "configs" / study).glob("*.yaml"):
            assert any(file.stem == name or file.stem.startswith(f"{name}_") for name in places), file


def test_the_default_data_can_be_prepared_offline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a mirror and without a network."""
    monkeypatch.delenv("AISEC_MIRROR", raising=False)
    prepare(composed([]).data.name, tmp_path)
    assert instantiate(composed([]).data)(tmp_path).train.shape == (1, 8, 8)


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["data=digitz"], "digitz"),
        (["data.name=digitz"], "did you mean 'digits'"),
        (["evasion.objectives=[nosuch]"], "reads models/nosuch-0, which no stage makes: there are models/"),
        (["model_inversion.dp_settings=[nosuch]"], "no 'nosuch' among dp_settings, there are"),
        (["minimum_norm.rows=-1"], "minimum_norm.rows: -1: should be an integer, at least 0"),
        (["ball.eps=-0.1"], "eps"),
        (["attacks.apgd_ce.ball.eps=-1"], "attacks.apgd_ce: eps of Linf must be"),
        (["attacks.apgd_ce.stepz=3"], "stepz"),
        (["objectives.trades.beta=-1"], "beta weighs robustness"),
        (["fit.epochs=0"], "epochs"),
        (["fit.epochs=[["], "mismatched|LexerNoViableAlt|no viable|missing"),
        (["nonsense"], "nonsense"),
        (["study.seeds=[]"], "neither empty nor has repeats"),
        (["study.seeds=[0,0]"], "neither empty nor has repeats"),
        (["study.seeds=[-1]"], "an integer from 0 up"),
        (["study.seeds=[a]"], "an integer from 0 up"),
        (["study.attacks=[pgd2]"], "no 'pgd2' among attacks, there are"),
        (["study.attacks=[a-b]"], "a-z, 0-9 and _"),
        (["curve.attack=none"], "curve.attack is 'none': name one of study.attacks"),
        (["study.attacks=[square]"], "curve.attack is 'apgd_ce': name one of study.attacks"),
        (["--check", "fit.epochs=3"], "takes no overrides"),
    ],
    ids=str,
)
def test_bad_input_is_one_line_and_exit_code_2_and_changes_nothing(
    overrides: list[str], message: str, project: Clone
) -> None:
    """What, where and the mend; params.yaml and everything else as before."""
    done = CliRunner().invoke(main, ["compose", *overrides])
    assert done.exit_code == 2
    assert len(done.output.strip().splitlines()) == 1, done.output
    assert done.output.startswith("aisec: ")
    assert re.search(message, done.output)
    assert project.git("status", "--porcelain") == ""


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Clone]:
    """A clone, in which one stands."""
    with pytest.MonkeyPatch.context() as patch:
        clone = Clone(tmp_path_factory.mktemp("project"))
        patch.chdir(clone.root)
        yield clone


def test_check_notices_a_params_file_that_configs_does_not_give(clone: Clone) -> None:
    """The committed file is the composed one; `--check` says so, and when it is not; first as a person types it."""
    clone.run("aisec", "compose", "--check")
    clone.aisec("compose", "fit.epochs=3")
    assert "run `aisec compose` and commit it" in clone.aisec("compose", "--check", code=2)
    clone.aisec("compose")
    clone.aisec("compose", "--check")
    assert os.listdir(clone.root).count("params.yaml") == 1
