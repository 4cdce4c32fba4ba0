"""A checkout of its own for each test: labs/, solutions/ and state in a temporary folder."""

from __future__ import annotations

import json
import os
from dataclasses import asdict
from pathlib import Path

import pytest

from lab_utils.cluster import Cluster
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


@pytest.fixture
def found(cluster: Cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The record of the suite's cluster, which a lab takes for its own. The environment is put back: a lab sets KUBECONFIG and PATH."""
    record = tmp_path / "cluster.json"
    record.write_text(json.dumps(asdict(cluster.record)))
    monkeypatch.setenv("LAB_CLUSTER_FILE", str(record))
    for name in ("KUBECONFIG", "PATH"):
        monkeypatch.setenv(name, os.environ.get(name, ""))
    return record
