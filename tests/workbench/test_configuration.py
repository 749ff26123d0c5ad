"""What a notebook may know of the configuration."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from aisec_lab.workbench import config_hash, configure, visible

PARAMS = """
data: {name: digits, train_size: 10}
fit: {learning_rate: 1e-3}
attacks:
  pgd: {steps: 40}
  fgsm: {ball: 1}
"""


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A project with nothing but a configuration and a study, entered from the study's folder."""
    (tmp_path / "notebooks/small").mkdir(parents=True)
    (tmp_path / "dvc.yaml").touch()
    (tmp_path / "notebooks/small/dvc.yaml").touch()
    (tmp_path / "params.yaml").write_text(PARAMS)
    monkeypatch.chdir(tmp_path / "notebooks/small")
    monkeypatch.delenv("DVC_STAGE", raising=False)
    return tmp_path


def test_a_notebook_stands_at_the_project_s_root_and_changes_nothing(project: Path) -> None:
    """Not in its study, which has a dvc.yaml too; 1e-3 is a number."""
    config = configure(reads=["data", "fit", "attacks"])
    assert Path.cwd() == project
    assert config.fit.learning_rate == 0.001
    assert visible(config) == OmegaConf.to_container(OmegaConf.create(PARAMS))
    with pytest.raises(OmegaConfBaseException):
        config.fit.learning_rate = 1


@pytest.mark.parametrize(
    "read", [lambda cfg: cfg.fit.learning_rate, lambda cfg: cfg.fit, lambda cfg: cfg.attacks.fgsm], ids=range(3)
)
@pytest.mark.parametrize("stage", [None, "notebooks/small/dvc.yaml:train"])
def test_a_notebook_sees_what_it_reads_and_reading_more_is_an_error(
    read: Callable[[DictConfig], object], stage: str | None, project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By hand as in a stage: a whole group, one member of a group, and an error that says where to name the rest."""
    if stage:
        monkeypatch.setenv("DVC_STAGE", stage)
    config = configure(reads=["data", "attacks.pgd"])
    assert visible(config) == {"data": {"name": "digits", "train_size": 10}, "attacks": {"pgd": {"steps": 40}}}
    assert config.attacks.pgd.steps == 40
    with pytest.raises(OmegaConfBaseException, match="(fit|attacks.fgsm)` is not among what this notebook reads: name"):
        read(config)


def test_what_the_configuration_lacks_cannot_be_read(project: Path) -> None:
    """The name, and where the names are."""
    with pytest.raises(KeyError, match="no `attacks.pgd2`, which `reads` names: see params.yaml"):
        configure(reads=["data", "attacks.pgd2"])


def test_the_hash_follows_what_is_visible_and_nothing_else(project: Path) -> None:
    """Else a forced second run would write another hash than the first one, which DVC had no reason to repeat."""
    before = config_hash(configure(reads=["attacks.pgd"]))
    (project / "params.yaml").write_text(PARAMS.replace("ball: 1", "ball: 2").replace("fgsm", "other"))
    assert config_hash(configure(reads=["attacks.pgd"])) == before
    (project / "params.yaml").write_text(PARAMS.replace("steps: 40", "steps: 41"))
    assert config_hash(configure(reads=["attacks.pgd"])) != before


def test_overrides_are_refused_inside_a_stage(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """DVC would not see them."""
    monkeypatch.setenv("DVC_STAGE", "notebooks/small/dvc.yaml:train")
    with pytest.raises(ValueError, match="use `aisec compose`"):
        configure(["fit.epochs=1"], reads=["fit"])


def test_a_project_without_params_says_how_to_make_them(project: Path) -> None:
    """One line."""
    (project / "params.yaml").unlink()
    with pytest.raises(FileNotFoundError, match="no params.yaml: run `aisec compose`"):
        configure(reads=[])


def test_outside_a_project_the_way_in_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No dvc.yaml anywhere above."""
    monkeypatch.chdir(tmp_path)
    with pytest.raises(FileNotFoundError, match="go into your clone"):
        configure(reads=[])
