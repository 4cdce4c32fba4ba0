"""What is written down about a cluster, read again: by another version, after a full disk, by hand."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lab_utils.cluster import ClusterRecord, NodeRecord, load_record, read_record, record_from
from lab_utils.errors import BadInput

ACCESS = {"user": "root", "port": 22, "key": "/state/id", "host_key": "ssh-ed25519 AAAA", "patience": 2.5, "of-the-provider": [1]}
GOOD = ClusterRecord(
    "lab", "embedded", "up", "/state/kubeconfig", [NodeRecord("cp", "172.31.64.11", "control-plane", ACCESS)], "v1.36.3", {"bare": False}
)


def written(folder: Path, text: str, name: str = "lab") -> Path:
    path = folder / "clusters" / name / "cluster.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


@pytest.fixture
def state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("LAB_STATE", str(tmp_path))
    return tmp_path


def test_a_record_is_read_as_it_was_saved(state: Path) -> None:
    GOOD.save()
    assert load_record("lab") == GOOD


def test_what_a_newer_version_wrote_beside_is_left_out(state: Path) -> None:
    data = asdict(GOOD)
    data["later"] = data["nodes"][0]["later"] = {"a": 1}
    written(state, json.dumps(data))
    assert load_record("lab") == GOOD


def changed(**changes: Any) -> Any:
    return {**asdict(GOOD), **changes}


def node(**changes: Any) -> Any:
    return changed(nodes=[{**asdict(GOOD.nodes[0]), **changes}])


DAMAGED = {
    "null": (None, "the record is no object"),
    "a text": ("x", "the record is no object"),
    "a list": ([], "the record is no object"),
    "nothing": ({}, "the record has no name, no provider, no state, no kubeconfig, no nodes"),
    "a name that is a number": (changed(name=3), "name of the record is not text"),
    "options that are null": (changed(options=None), "options of the record is not an object"),
    "nodes that are null": (changed(nodes=None), "nodes of the record is not a list"),
    "a node that is null": (changed(nodes=[None]), "node 1 is no object"),
    "a node without an address": (changed(nodes=[{"name": "cp", "role": "worker"}]), "node 1 has no ip"),
    "no access": (node(access=None), "access of node 1 is not an object"),
    "a key that is a list": (node(access={"key": []}), "key of node cp is not text"),
    "a port that is a text": (node(access={"port": "x"}), "port of node cp is not a number"),
    "no patience": (node(access={"patience": 0}), "patience of node cp is out of range"),
    "endless patience": (node(access={"patience": float("inf")}), "patience of node cp is out of range"),
    "patience that is none": (node(access={"patience": float("nan")}), "patience of node cp is out of range"),
    "a zero byte": (changed(kubeconfig="a\0b"), "kubeconfig of the record holds a zero byte"),
}


@pytest.mark.parametrize("what", DAMAGED)
def test_a_wrong_shape_is_said_with_the_file_and_the_command_for_this_cluster(what: str, state: Path) -> None:
    data, why = DAMAGED[what]
    path = written(state, json.dumps(data), "team-2")
    with pytest.raises(BadInput) as problem:
        load_record("team-2")
    assert str(problem.value) == (
        f"{path} is not a cluster record ({why}). Remove the cluster with `lab down --name team-2` and make it anew"
    )


@pytest.mark.parametrize("text", ["", "{", "[" * 100_000, '{"name": "lab", "prov'])
def test_what_is_not_json_is_said_in_the_same_way(text: str, state: Path) -> None:
    written(state, text)
    with pytest.raises(BadInput, match=r"is not a cluster record .*`lab down --name lab`"):
        load_record("lab")


def test_bytes_that_are_no_text_are_too(state: Path) -> None:
    written(state, "").write_bytes(b"\xff\xfe{")
    with pytest.raises(BadInput, match="is not a cluster record"):
        load_record("lab")


def test_a_record_elsewhere_names_no_cluster_to_remove(tmp_path: Path, state: Path) -> None:
    path = tmp_path / "handed.json"
    path.write_text("[]")
    with pytest.raises(BadInput) as problem:
        read_record(path)
    assert "lab down" not in str(problem.value)


def test_a_record_that_names_another_cluster_is_not_followed_there(state: Path) -> None:
    written(state, json.dumps(changed(name="../../home")))
    with pytest.raises(BadInput, match=r"the record of another cluster.*lab down --name lab"):
        load_record("lab")


plain = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8)
anything = st.recursive(plain, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=4))


@st.composite
def nearly(draw: st.DrawFn, good: dict[str, Any]) -> dict[str, Any]:
    """A good one, of which some values are anything, and some are gone."""
    data = {**good, **{name: draw(anything) for name in draw(st.sets(st.sampled_from(sorted(good)), max_size=2))}}
    return {name: data[name] for name in data if draw(st.integers(0, 9))}


nodes = st.lists(nearly(asdict(GOOD.nodes[0])) | nearly({**asdict(GOOD.nodes[0]), "access": {}}) | anything, max_size=3)
accesses = nearly(ACCESS).map(lambda access: node(access=access))


@given(anything | nearly(asdict(GOOD)) | nodes.map(lambda each: changed(nodes=each)) | accesses)
def test_whatever_is_there_a_record_can_be_used_or_is_refused(data: Any) -> None:
    try:
        record = record_from(data)
    except ValueError:
        return
    assert all(isinstance(each, str) for each in (record.name, record.provider, record.state, record.kubeconfig, record.kubectl))
    for each in record.nodes:
        assert each.patience > 0 and f"{10 * each.patience:.0f}"
        assert isinstance(each.access.get("key", ""), str) and int(each.access.get("port", 22)) is not None
    assert record_from(json.loads(json.dumps(asdict(record)))) == record
