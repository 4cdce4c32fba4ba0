"""A checkout of its own for each test: labs/, solutions/ and state in a temporary folder."""

from __future__ import annotations

from pathlib import Path

import pytest

from lab_utils.labs.catalog import LabFiles, find_lab
from lab_utils.labs.scaffold import new_lab


@pytest.fixture
def checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("LAB_ROOT", str(tmp_path))
    monkeypatch.setenv("LAB_STATE", str(tmp_path / "state"))
    for name in ("LAB_ANSWERS", "LAB_LEARNER", "LAB_CLUSTER", "LAB_CLUSTER_FILE"):
        monkeypatch.delenv(name, raising=False)
    return tmp_path


@pytest.fixture
def example(checkout: Path) -> LabFiles:
    new_lab("99-example")
    return find_lab("99")
