"""Every configuration of an attack and of a ball makes what it says."""

from dataclasses import replace
from pathlib import Path

import pytest
from hydra.utils import instantiate
from omegaconf import OmegaConf

from aisec_lab.attacks import Ball

CONFIGS = Path(__file__).parents[2] / "configs"
BALLS, ATTACKS = sorted((CONFIGS / "ball").glob("*.yaml")), sorted((CONFIGS / "attack").glob("*.yaml"))


@pytest.mark.parametrize("ball", BALLS, ids=lambda path: path.stem)
@pytest.mark.parametrize("attack", ATTACKS, ids=lambda path: path.stem)
def test_attack_is_made_over_the_ball_of_the_threat_model(attack, ball):
    """`ball: ${ball}` takes the top-level threat model; Square alone refuses two of the balls."""
    cfg = OmegaConf.create({"ball": OmegaConf.load(ball), "attack": OmegaConf.load(attack)})
    if attack.stem == "square" and ball.stem in ("l1", "l0"):
        with pytest.raises(Exception, match="Square knows the balls"):
            instantiate(cfg.attack)
        return
    made = instantiate(cfg.attack)
    assert isinstance(made.ball, Ball)
    assert made.ball.name.lower() == ball.stem
    assert made == replace(made, ball=instantiate(cfg.ball))
