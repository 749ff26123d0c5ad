"""The declared grid of a study, and where each cell of it lies: the mirror of the matrices in `dvc.yaml`."""

from itertools import product
from pathlib import Path
from typing import NamedTuple

from omegaconf import DictConfig

RESULTS = Path("results")
ON_MODELS = ("smallest", "black_box")  # notebooks of the evasion study that look at models of the robustness study
ALONE = ("certify", "physical", "tables", "text", "control", "svm_ours")  # and those that train their own
# Those of the poisoning study that do.
ALONE_POISONED = ("ingest", "incident", "partition", "matching", "availability", "poison_svm_ours")
# Those of the privacy study that do.
ALONE_PRIVATE = ("mechanism", "release", "reconstruct", "memorise", "invert", "federated", "private_peers")
EXTRACTION = ("steal", "publish", "watch", "claim", "compress")  # all of the extraction study, of one victim


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


class Closer(NamedTuple):
    """A cell of a notebook that looks closer at one model, or at models of its own."""

    notebook: str
    cell: tuple[str, ...] = ()

    @property
    def folder(self) -> Path:
        """Where the stage puts its results."""
        return RESULTS / self.notebook / "-".join(self.cell)


def trainings(config: DictConfig) -> list[Training]:
    """Every cell of stage `train`, in order."""
    return [Training(*cell) for cell in product(config.study.objectives, config.study.seeds)]


def evaluations(config: DictConfig) -> list[Evaluation]:
    """Every cell of stage `evaluate`, in order."""
    study = config.study
    return [Evaluation(*cell) for cell in product(study.objectives, study.defenses, study.attacks, study.seeds)]


def verdicts(config: DictConfig) -> list[Closer]:
    """Every cell of stage `diagnose`, in order: one for each defended model."""
    study = config.study
    cells = product(study.objectives, study.defenses, study.seeds)
    return [Closer("diagnose", (objective, defense, str(seed))) for objective, defense, seed in cells]


def evasions(config: DictConfig) -> list[Closer]:
    """Every cell of the evasion study, in the order in which it is read."""
    models = [Closer(notebook, (name,)) for notebook in ON_MODELS for name in config.evasion.objectives]
    return models + [Closer(notebook) for notebook in ALONE]


def poisonings(config: DictConfig) -> list[Closer]:
    """Every cell of the poisoning study, in the order in which it is read."""
    cells = [(name, str(seed)) for name, seed in product(config.poisoning.attacks, config.poisoning.seeds)]
    return [
        *(Closer(notebook, cell) for notebook in ("poison", "cleanse") for cell in cells),
        *map(Closer, ALONE_POISONED),
    ]


def privacies(config: DictConfig) -> list[Closer]:
    """Every cell of the privacy study, in the order in which it is read."""
    return [*(Closer("private", (name,)) for name in config.privacy.promises), *map(Closer, ALONE_PRIVATE)]


def extractions() -> list[Closer]:
    """Every cell of the extraction study, in the order in which it is read."""
    return [Closer(notebook) for notebook in EXTRACTION]
