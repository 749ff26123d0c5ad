"""`aisec data`, as a person types it."""

from pathlib import Path

import pytest

from tests.clone import Clone


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Clone:
    return Clone(tmp_path_factory.mktemp("project"))


def test_an_embedded_set_is_prepared_offline(project: Clone) -> None:
    """It says where."""
    assert project.run("aisec", "data", "breast_cancer").strip().endswith("data/breast_cancer")
    assert sorted(path.name for path in (project.root / "data/breast_cancer").iterdir()) == [
        "card.json", "test.npz", "train.npz",
    ]  # fmt: skip


def test_an_unknown_name_is_one_line_and_exit_code_2_and_changes_nothing(project: Clone) -> None:
    """What was given, what there is; nor is a right one prepared that stands before it."""
    before = set((project.root / "data").rglob("*"))
    output = project.run("aisec", "data", "data/beside/digits", "digitz", code=2)
    assert output.startswith("aisec: no dataset 'digitz' in the catalog: did you mean 'digits'?")
    assert len(output.strip().splitlines()) == 1
    assert set((project.root / "data").rglob("*")) == before


def test_a_corrupted_copy_is_one_line_and_exit_code_2_and_nothing_is_kept(
    project: Clone, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """File, expected, found."""
    (tmp_path / "mnist").mkdir()
    (tmp_path / "mnist/mnist.npz").write_bytes(b"half of it")
    monkeypatch.setenv("AISEC_MIRROR", str(tmp_path))
    output = project.run("aisec", "data", "mnist", code=2)
    assert output.startswith(f"aisec: {tmp_path}/mnist/mnist.npz: expected sha256 ceace15f")
    assert ", found " in output
    assert len(output.strip().splitlines()) == 1
    assert not (project.root / "data/mnist").exists()
