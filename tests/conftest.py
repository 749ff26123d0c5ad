"""What the tests of several floors share."""

from pathlib import Path

import pytest
import torch

from tests.clone import Clone


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Slow tests begin first, so that no worker waits for one at the end."""
    items.sort(key=lambda item: item.get_closest_marker("slow") is None)


@pytest.fixture(autouse=True, scope="session")
def _one_thread() -> None:
    """As a stage runs: two workers with a thread for each core would only wait for each other."""
    torch.set_num_threads(1)


@pytest.fixture
def clone(tmp_path: Path) -> Clone:
    """A fresh copy of the project."""
    (tmp_path / "project").mkdir()
    return Clone(tmp_path / "project")
