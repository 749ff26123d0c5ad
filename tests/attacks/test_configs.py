"""Every configuration of an attack and of a ball makes what it says."""

from dataclasses import replace
from pathlib import Path

import pytest
from hydra.utils import instantiate
from omegaconf import OmegaConf

from aisec_lab.attacks import Ball, RotationTranslation, Spatial

CONFIGS = Path(__file__).parents[2] / "configs"
KNOWS = {
    "square": {"linf", "l2", "l1"},
    "hop_skip_jump": {"linf", "l2"},
    "boundary": {"l2"},
    "autoattack": {"linf", "l2", "l1"},
    "autoattack_half": {"linf", "l2", "l1"},
    "deepfool": {"linf", "l2"},
    "carlini_wagner": {"l2"},
    "ddn": {"l2"},
    "fab": {"linf", "l2", "l1"},
    "fab_t": {"linf", "l2", "l1"},
    "simba": {"linf", "l2"},
    "simba_dct": {"linf", "l2"},
    "sign_opt": {"linf", "l2"},
    "geoda": {"linf", "l2", "l1"},
    "ead": {"l1"},
    "brendel_bethge": {"linf", "l2", "l1"},
}
BALLS, ATTACKS = sorted((CONFIGS / "ball").glob("*.yaml")), sorted((CONFIGS / "attack").glob("*.yaml"))


@pytest.mark.parametrize("ball", BALLS, ids=lambda path: path.stem)
@pytest.mark.parametrize("attack", ATTACKS, ids=lambda path: path.stem)
def test_attack_is_made_over_the_ball_of_the_threat_model(attack, ball):
    """`ball: ${ball}` takes the top-level threat model; some attacks know only some of the balls, and say so."""
    cfg = OmegaConf.create({"ball": OmegaConf.load(ball), "attack": OmegaConf.load(attack)})
    if ball.stem not in KNOWS.get(attack.stem, {ball.stem}):
        with pytest.raises(Exception, match="knows the ball"):
            instantiate(cfg.attack)
        return
    made = instantiate(cfg.attack)
    if isinstance(made, Spatial):  # a threat of its own
        assert made.threat == RotationTranslation(30, 3)
        return
    assert isinstance(made.ball, Ball)
    assert made.ball.name.lower() == ball.stem
    assert made == replace(made, ball=instantiate(cfg.ball))
