"""What a notebook may know of the configuration."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from aisec_lab.workbench import config_hash, configure, visible
from aisec_lab.workbench.configuration import TRACKED

PARAMS = """
data: {name: digits, train_size: 10}
fit: {learning_rate: 1e-3}
attacks:
  pgd: {steps: 40}
  fgsm: {ball: 1}
"""


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A project with nothing but a configuration, entered from its notebooks folder."""
    (tmp_path / "notebooks").mkdir()
    (tmp_path / "dvc.yaml").touch()
    (tmp_path / "params.yaml").write_text(PARAMS)
    monkeypatch.chdir(tmp_path / "notebooks")
    monkeypatch.delenv(TRACKED, raising=False)
    return tmp_path


def test_by_hand_nothing_is_cut(project: Path) -> None:
    """The whole file, from the project's root; 1e-3 is a number; nothing can be changed behind the file's back."""
    config = configure([])
    assert Path.cwd() == project
    assert config.fit.learning_rate == 0.001
    assert visible(config) == OmegaConf.to_container(OmegaConf.create(PARAMS))
    with pytest.raises(OmegaConfBaseException):
        config.fit.learning_rate = 1


def test_a_stage_sees_what_it_tracks_and_reading_more_is_an_error(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A whole group, one member of a group, and an error that names what to add to dvc.yaml."""
    monkeypatch.setenv(TRACKED, json.dumps(["data", "attacks.pgd"]))
    config = configure([])
    assert config.data.name == "digits"
    assert config.attacks.pgd.steps == 40
    for read in (lambda: config.fit.learning_rate, lambda: config.fit, lambda: config.attacks.fgsm):
        with pytest.raises(OmegaConfBaseException, match="this stage does not track `(fit|attacks.fgsm)`: name it"):
            read()
    assert visible(config) == {"data": {"name": "digits", "train_size": 10}, "attacks": {"pgd": {"steps": 40}}}


def test_the_hash_follows_what_is_visible_and_nothing_else(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Else a forced second run would write another hash than the first one, which DVC had no reason to repeat."""
    monkeypatch.setenv(TRACKED, json.dumps(["attacks.pgd"]))
    before = config_hash(configure([]))
    (project / "params.yaml").write_text(PARAMS.replace("ball: 1", "ball: 2").replace("fgsm", "other"))
    assert config_hash(configure([])) == before
    (project / "params.yaml").write_text(PARAMS.replace("steps: 40", "steps: 41"))
    assert config_hash(configure([])) != before


def test_overrides_are_refused_inside_a_stage(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """DVC would not see them."""
    monkeypatch.setenv(TRACKED, "[]")
    with pytest.raises(ValueError, match="use `aisec compose`"):
        configure(["fit.epochs=1"])


def test_outside_a_project_the_way_in_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No dvc.yaml anywhere above."""
    monkeypatch.chdir(tmp_path)
    with pytest.raises(FileNotFoundError, match="go into your clone"):
        configure([])
