"""The declared grid of a study, and where each cell of it lies: the mirror of the matrices in `dvc.yaml`."""

from itertools import product
from pathlib import Path
from typing import NamedTuple

from omegaconf import DictConfig

RESULTS = Path("results")


class Training(NamedTuple):
    """A cell of stage `train`."""

    objective: str
    seed: int

    @property
    def folder(self) -> Path:
        """Where the stage puts its results."""
        return RESULTS / "train" / f"{self.objective}-{self.seed}"


class Evaluation(NamedTuple):
    """A cell of stage `evaluate`."""

    objective: str
    defense: str
    attack: str
    seed: int

    @property
    def folder(self) -> Path:
        """Where the stage puts its results."""
        return RESULTS / "evaluate" / "-".join(map(str, self))

    @property
    def defended_by(self) -> str:
        """The table's name for objective and defense together."""
        return self.objective if self.defense == "none" else f"{self.objective}+{self.defense}"


def trainings(config: DictConfig) -> list[Training]:
    """Every cell of stage `train`, in order."""
    return [Training(*cell) for cell in product(config.study.objectives, config.study.seeds)]


def evaluations(config: DictConfig) -> list[Evaluation]:
    """Every cell of stage `evaluate`, in order."""
    study = config.study
    return [Evaluation(*cell) for cell in product(study.objectives, study.defenses, study.attacks, study.seeds)]
