"""What `aisec compose` refuses of names and of settings that belong to no class."""

import re
from functools import cache
from typing import Any

import pytest
from omegaconf import DictConfig, OmegaConf

from aisec_lab.workbench.composition import check, check_names, is_choice
from aisec_lab.workbench.configuration import composed
from aisec_lab.workbench.lookups import lookups_of, paths_of
from aisec_lab.workbench.setting_check import check_plain
from tests.clone import ROOT, SMALL
from tests.small import notebook_of

pytestmark = pytest.mark.xdist_group("probes")  # what takes seconds to compose is composed by one worker
MODELS = "which no stage makes: there are models/adversarial_training-0, .*models/trades-1$"
COUNT = "should be an integer, at least 0$"


@cache
def default() -> DictConfig:
    return composed([])


def changed(place: str, value: Any) -> DictConfig:
    """The default with another value in one place."""
    config = default().copy()
    OmegaConf.update(config, place, value, merge=False, force_add=True)
    return config


@pytest.mark.parametrize(
    ("place", "value", "message"),
    [
        # names of what another stage makes
        ("evasion.objectives", ["nosuch"], f"evasion.objectives: ['nosuch'], .* reads models/nosuch-0, {MODELS}"),
        ("evasion.objectives", ["standard", "standard"], "an axis is neither empty nor has repeats"),
        ("evasion.objectives", [], "an axis is neither empty nor has repeats"),
        ("evasion.seed", 7, f"evasion.seed: 7: .* reads models/standard-7, {MODELS}"),
        ("poisoning.clean", "nosuch", f"poisoning.clean: 'nosuch', .* reads models/nosuch-0, {MODELS}"),
        ("poisoning.seeds", [7], f"poisoning.seeds: [7]: .* reads models/standard-7, {MODELS}"),
        (
            "tf_privacy.names",
            "standard,nosuch",
            "tf_privacy.names: .* results/privacy/dp_training/nosuch, which no stage makes: there are",
        ),
        ("svm.data", "digts", "svm.data: 'digts': .*not in the catalog: did you mean 'digits'?$"),
        ("text.data.name", "moon", "text.data.name: 'moon': .*not in the catalog: there are adult"),
        # names of what a notebook looks up
        (
            "model_inversion.dp_settings",
            ["nosuch"],
            "model_inversion.dp_settings: ['nosuch']: no 'nosuch' among dp_settings, there are ['epsilon_1'",
        ),
        ("reconstruct.dp_setting", "nosuch", "reconstruct.dp_setting: 'nosuch': no 'nosuch' among dp_settings"),
        (
            "poisoning_defenses.retrain",
            ["nosuch"],
            "poisoning_defenses.retrain: ['nosuch']: no 'nosuch' among poisoning_defenses.sanitizers, there are",
        ),
        ("privacy.dp_settings", ["nosuch"], "privacy.dp_settings: ['nosuch']: no 'nosuch' among dp_settings"),
        # settings that no class checks
        ("model_extraction.budgets", [], "model_extraction.budgets: []: should be one or more values, each once"),
        ("model_extraction.budgets", [50, 50], "model_extraction.budgets: [50, 50]: should be one or more values"),
        ("minimum_norm.rows", -1, f"minimum_norm.rows: -1: {COUNT}"),
        ("minimum_norm.rows", "many", f"minimum_norm.rows: 'many': {COUNT}"),
        ("minimum_norm.rows", 1.5, f"minimum_norm.rows: 1.5: {COUNT}"),
        ("minimum_norm.rows", True, f"minimum_norm.rows: True: {COUNT}"),
        ("minimum_norm.rows", None, f"minimum_norm.rows: null: {COUNT}"),
        ("minimum_norm.rows", [3], f"minimum_norm.rows: [3]: {COUNT}"),
        ("minimum_norm.rows", {"first": 3}, f"minimum_norm.rows: a mapping of ['first']: {COUNT}"),
        ("ingest.broken", -3, f"ingest.broken: -3: {COUNT}"),
        ("tf_privacy.epochs", -1, f"tf_privacy.epochs: -1: {COUNT}"),
        (
            "tf_privacy.learning_rate",
            float("inf"),
            "tf_privacy.learning_rate: inf: should be a finite number, at least 0",
        ),
        ("black_box.queries", [50, -1], f"black_box.queries[1]: -1: {COUNT}"),
        ("black_box.queries", 50, "black_box.queries: 50: should be a list"),
        ("curve.levels", [0.1, "much"], "curve.levels[1]: 'much': should be a finite number"),
        ("tables.rules.costs", {"mean area": -2.0}, "tables.rules.costs.mean area: -2.0: should be a finite number"),
        (
            "model_extraction.thieves.labels.noise",
            1,
            "model_extraction.thieves.labels.noise: 1: should be true or false",
        ),
        ("physical.target", 3, "physical.target: 3: should be a text"),
        ("query_monitoring.nosuch", -1, "query_monitoring.nosuch: -1: should be an integer, at least 0"),
        # settings that a class checks, wherever it stands
        ("attacks.apgd_ce.stepz", 3, "attacks.apgd_ce: .*stepz"),
        (
            "query_monitoring.prada.nosuch",
            3,
            "query_monitoring.prada: got an unexpected keyword argument 'nosuch'; there are ['delta', 'every'",
        ),
        ("query_monitoring.prada.delta", -1.0, "query_monitoring.prada: .*delta"),
    ],
    ids=str,
)
def test_what_no_stage_could_run_is_refused(place: str, value: object, message: str) -> None:
    """One line: what was given, and what is accepted."""
    escaped = re.escape(message)
    for sign in (".*", "$"):
        escaped = escaped.replace(re.escape(sign), sign)
    with pytest.raises(ValueError, match=escaped) as refusal:
        check(changed(place, value), default())
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize(
    ("place", "value"),
    [("physical.target", None), ("physical.victim", "3"), ("curve.levels", [1]), ("tf_privacy.learning_rate", 1)],
    ids=str,
)
def test_what_is_of_the_declared_kind_is_accepted(place: str, value: object) -> None:
    """A text may be left out, a whole number is a number, and what is declared as null may be anything."""
    check_plain(OmegaConf.to_container(changed(place, value)), OmegaConf.to_container(default()))


def test_the_small_study_is_accepted() -> None:
    """What the other tests run, a value in place of each of the default's."""
    assert not any(map(is_choice, SMALL))
    assert is_choice("data=mnist")
    assert is_choice("+attack@attacks.new=pgd")
    check(composed(SMALL), default())


CELLS = """# %% parameters
names = "a,b"
folder = "results"
# %%
cfg = configure([], reads=["study", "groups"])
study, other = cfg.study, instantiate(cfg.groups["two"])
kept = {name: 1 for name, part in instantiate(study.parts, _convert_="all").items()}
for name in names.split(","):
    open(f"{folder}/{name}/rows.npz")
chosen = [cfg.groups.one[name] for name in study.wanted]
alone = cfg.groups.one[study.single]
again = {f"{name}!": kept[name] for name in list(study.kept)}
unknown = [other[name] for name in compute(study)] + [kept[name] for name, _ in study.parts.items()]
name = compute(cfg)
late = cfg.groups.one[name]
"""


def test_a_notebook_s_lookups_are_found_in_its_source(tmp_path: Any) -> None:
    """By names in a list, or one name, in a part of the configuration or a dictionary made of one; no others."""
    import nbformat

    notebook = tmp_path / "made.ipynb"
    nbformat.write(notebook_of(CELLS, "aisec-lab"), notebook)
    expected = {("study.wanted", "groups.one"), ("study.single", "groups.one"), ("study.kept", "study.parts")}
    assert lookups_of(notebook) == expected
    assert paths_of(notebook, {"names": "x,y", "folder": "f"}) == {("names", "f/x"), ("names", "f/y")}
    config = OmegaConf.create({"study": {"wanted": ["a"], "single": "b", "kept": []}, "groups": {"one": {"a": 1}}})
    with pytest.raises(ValueError, match=r"^study.single: 'b': no 'b' among groups.one, there are \['a'\]$"):
        check_names(config, notebook)


def test_each_notebook_s_lookups_are_in_the_default() -> None:
    """So that a renamed group cannot silently end a check."""
    found = {pair for notebook in ROOT.glob("notebooks/*/*.ipynb") for pair in lookups_of(notebook)}
    assert {names.split(".")[-1] for names, _ in found} >= {"dp_settings", "dp_setting", "retrain"}
    for names, mapping in found:
        assert OmegaConf.select(default(), names) is not None, names
        assert OmegaConf.select(default(), mapping) is not None, mapping
