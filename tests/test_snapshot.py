"""Snapshots are written and read back unchanged, hold no secrets, and never overwrite anything."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import pytest

from lab_utils.cluster import Cluster, Node, NodeRecord
from lab_utils.errors import BadInput
from lab_utils.run import Result, run
from lab_utils.snapshot import read_snapshot, write_snapshot
from lab_utils.snapshot.prune import prune_object
from lab_utils.snapshot.record import record, record_node, script, sections
from lab_utils.topology import Topology

WIRED = Path(__file__).parent / "data" / "snapshots" / "wired"


class ThisMachine(Node):
    """The machine that the tests run on, asked with the very script that nodes are asked with."""

    def run(self, cmd: str | Sequence[str], *, timeout: float = 60, input: str | bytes | None = None, check: bool = False) -> Result:
        assert isinstance(cmd, str)
        return run(["sh", "-c", cmd], timeout=timeout, input=input, check=check)

    def put(self, source: Path | bytes, target: str, mode: int = 0o644) -> None:
        raise NotImplementedError

    def get(self, source: str) -> bytes:
        raise NotImplementedError


def test_what_is_written_is_read_back_the_same(tmp_path: Path) -> None:
    first = read_snapshot(WIRED)
    write_snapshot(first, tmp_path / "copy")
    assert read_snapshot(tmp_path / "copy") == first
    files = {path.relative_to(WIRED): path.read_bytes() for path in WIRED.rglob("*") if path.is_file()}
    assert {path.relative_to(tmp_path / "copy"): path.read_bytes() for path in (tmp_path / "copy").rglob("*") if path.is_file()} == files


def test_a_folder_with_anything_in_it_is_not_touched(tmp_path: Path) -> None:
    (tmp_path / "mine").write_text("precious")
    with pytest.raises(BadInput, match="not an empty folder"):
        write_snapshot(read_snapshot(WIRED), tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["mine"]


def test_environment_annotations_and_volumes_of_a_pod_are_dropped() -> None:
    secret = "hunter2"
    pod = {
        "kind": "Pod",
        "metadata": {"name": "web", "namespace": "shop", "annotations": {"kubectl.kubernetes.io/last-applied-configuration": secret}},
        "spec": {
            "nodeName": "w1",
            "containers": [{"name": "main", "image": "web", "env": [{"name": "PASSWORD", "value": secret}], "args": [secret]}],
            "volumes": [{"name": "t", "secret": {"secretName": secret}}],
        },
        "status": {
            "podIP": "10.0.0.1",
            "containerStatuses": [{"name": "main", "ready": True, "lastState": {"terminated": {"message": secret}}}],
        },
    }
    kept = prune_object(pod)
    assert secret not in json.dumps(kept)
    assert kept["spec"] == {"nodeName": "w1", "containers": [{"name": "main", "image": "web"}]}
    assert kept["status"]["podIP"] == "10.0.0.1"


@pytest.mark.parametrize("kind", ["Secret", "ConfigMap", ""])
def test_other_kinds_are_not_kept_at_all(kind: str) -> None:
    with pytest.raises(ValueError, match="a snapshot holds no"):
        prune_object({"kind": kind, "metadata": {"name": "x"}})


def test_the_script_reads_a_real_machine_in_one_go() -> None:
    """Without containers there are no sandboxes; the machine's own devices are there all the same."""
    node = record_node(ThisMachine(NodeRecord("here", "127.0.0.1", "worker")))
    assert node.inode == Path("/proc/self/ns/net").stat().st_ino
    assert "lo" in {line["ifname"] for line in node.outputs["link"]}
    assert node.kernel == Path("/proc/sys/kernel/random/boot_id").read_text().strip()


def test_an_output_that_stops_in_the_middle_is_refused() -> None:
    whole = run(["sh", "-c", script("=B=")]).stdout
    assert "end" in sections(whole, "=B=")
    with pytest.raises(ValueError, match="stops in the middle"):
        sections(whole[: len(whole) // 2], "=B=")


@pytest.mark.parametrize(
    ("file", "content", "says"),
    [
        ("snapshot.json", None, "not a snapshot folder"),
        ("snapshot.json", "{", "is not JSON"),
        ("snapshot.json", "[]", "does not hold what it should"),
        ("snapshot.json", '{"format": 99}', "format 99"),
        ("snapshot.json", '{"format": 1}', "lacks what a snapshot has"),
        ("api/pods.json", None, "part of the snapshot is missing"),
        ("nodes/w1/netns/host.json", "[]", "does not hold what it should"),
    ],
)
def test_a_damaged_snapshot_is_refused_and_the_file_named(tmp_path: Path, file: str, content: str | None, says: str) -> None:
    write_snapshot(read_snapshot(WIRED), tmp_path / "copy")
    target = tmp_path / "copy" / file
    if content is None:
        target.unlink()
    else:
        target.write_text(content)
    with pytest.raises(BadInput, match=says) as caught:
        read_snapshot(tmp_path / "copy")
    assert Path(file).name in str(caught.value) or str(tmp_path) in str(caught.value)


@pytest.mark.cluster
def test_a_live_cluster_is_recorded_read_back_and_understood(cluster: Cluster, tmp_path: Path) -> None:
    taken = record(cluster)
    write_snapshot(taken, tmp_path / "now")
    assert read_snapshot(tmp_path / "now") == taken
    topology = Topology.from_snapshot(taken)
    assert set(topology.nodes) == {node.name for node in cluster.nodes}
    joined = {cable.pod.key for name in topology.nodes for cable in topology.cables(name) if cable.peer.certain}
    dns = {key for key, pod in topology.pods.items() if pod.name.startswith("coredns-")}
    assert dns and dns <= joined
    path = topology.path(next(iter(topology.nodes)), "service/kube-system/kube-dns", protocol="udp")
    assert path.arrived and {way.pod for way in path.ways} == dns
