"""A lab that gives no access to nodes: its notebook runs on every provider, and is told so when it asks for one all the same."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest

from lab_utils.cluster import ClusterRecord, NodeRecord, connect
from lab_utils.errors import NoNodeAccess
from lab_utils.grading import access
from lab_utils.grading.arena import RECORD
from lab_utils.kubeconfig.access import closed
from lab_utils.providers import PROVIDERS

ACCESS = {"container": "lab-worker", "key": "/nowhere", "patience": 4.0}


@pytest.mark.parametrize("provider", PROVIDERS)
def test_the_notebook_has_its_cluster_and_no_way_to_a_node(provider: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    record = ClusterRecord("lab", provider, "up", "/nowhere", [NodeRecord("w1", "10.0.0.1", "worker", ACCESS)])
    (tmp_path / "cluster.json").write_text(access.no_nodes(record).files[RECORD])
    monkeypatch.setenv("LAB_CLUSTER_FILE", str(tmp_path / "cluster.json"))
    cluster = connect()
    assert (cluster.node("w1").ip, cluster.patience) == ("10.0.0.1", 4.0)
    with pytest.raises(NoNodeAccess, match="this lab gives no access to nodes"):
        cluster.node("w1").run("id")
    assert not cluster.node("w1").reachable


def test_what_was_never_given_on_nodes_is_not_taken_back_from_them() -> None:
    asked: list[tuple[str, ...]] = []
    node = closed(ClusterRecord("theirs", "kubeconfig", "up", "", []), NodeRecord("w1", "10.0.0.1", "worker"))
    access.revoke(SimpleNamespace(nodes=[node], kubectl=lambda *words: asked.append(words)))  # type: ignore[arg-type]
    assert asked and access.LABEL in asked[0], "of the API, everything is"
