"""The names of models and defenses in a table."""

import pytest
from hydra.utils import instantiate

from aisec_lab.models import CNN, MLP
from aisec_lab.workbench import class_name, defense_name, model_name


def test_a_model_is_named_with_its_settings() -> None:
    """Two widths are two models of a table, and a file's list of layers is the tuple of Python."""
    assert model_name(CNN(width=16)) == "CNN(width=16, hidden=64)"
    assert model_name(CNN(width=16)) != model_name(CNN(width=32))
    configured = instantiate({"_target_": "aisec_lab.models.MLP", "hidden": [64, 32]}, _convert_="all")
    assert model_name(configured) == model_name(MLP((64, 32))) == "MLP(hidden=(64, 32))"


@pytest.mark.parametrize("other", [CNN, "aisec_lab.models.CNN", object()])
def test_what_has_no_settings_to_name_is_refused(other: object) -> None:
    """The text of any other object may hold its address, which differs from run to run."""
    with pytest.raises(TypeError, match="an architecture is a dataclass"):
        model_name(other)


def test_a_defense_is_named_with_its_objective() -> None:
    assert defense_name("trades", "none") == "trades"
    assert defense_name("trades", "jpeg") == "trades+jpeg"
    assert class_name("aisec_lab.attacks.Linf") == class_name(CNN()).replace("CNN", "Linf") == "Linf"
