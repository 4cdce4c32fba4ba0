"""Faults of an installation, on a node of the suite's cluster: each shows, holds, and is undone."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from lab_utils.checks import CheckSet
from lab_utils.cluster import Cluster
from lab_utils.errors import BadInput
from lab_utils.faults import fault, inject, undo_all
from lab_utils.faults.install import GONE, CgroupDriverWrong, CriSocketWrong
from lab_utils.labs.spec import LabSpec, Needs
from lab_utils.labs.store import Store
from lab_utils.labs.workspace import Workspace

HEALTHY = "curl -sf -m 3 http://127.0.0.1:10248/healthz"
INSTANCE = "containerRuntimeEndpoint: unix:///run/containerd/containerd.sock\nkind: KubeletConfiguration\n"
FLAGS = 'KUBELET_KUBEADM_ARGS="--container-runtime-endpoint=unix:///run/containerd/containerd.sock --pod-infra-container-image=x"\n'


def test_the_socket_is_replaced_in_either_of_the_files_that_may_name_it() -> None:
    assert CriSocketWrong().broken(INSTANCE) == INSTANCE.replace("unix:///run/containerd/containerd.sock", GONE)
    assert CriSocketWrong().broken(FLAGS) == FLAGS.replace("unix:///run/containerd/containerd.sock", GONE)


@pytest.mark.parametrize(("before", "after"), [("true", "false"), ("false", "true")])
def test_the_driver_becomes_the_other_one(before: str, after: str) -> None:
    assert CgroupDriverWrong().broken(f"        SystemdCgroup = {before}\n") == f"        SystemdCgroup = {after}\n"


@pytest.fixture
def lab(cluster: Cluster, tmp_path: Path) -> Iterator[Workspace]:
    spec = LabSpec("96-install", "Install", 5, ("Break things",), Needs(), ("lab-96",))
    made = Workspace(spec, CheckSet(tmp_path / "checks.py"), cluster, "ada", Store("96-install", tmp_path / "store"))
    yield made
    undo_all(made)
    eventually(lambda: made.node("w1").run(HEALTHY).ok)
    cluster.wait("node/w1 condition=Ready", timeout=120)


def eventually(holds: Callable[[], object], timeout: float = 90) -> None:
    deadline = time.monotonic() + timeout
    while not holds():
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.5)


@pytest.mark.cluster
def test_a_kubelet_without_its_runtime_does_not_start_and_comes_back_when_undone(lab: Workspace) -> None:
    worker = lab.node("w1")
    plan = inject(lab, "cri-socket-wrong", node="w1")
    eventually(lambda: not worker.run(HEALTHY).ok)
    eventually(lambda: "dockershim.sock" in worker.run("journalctl -u kubelet -o cat --no-pager -n 50").stdout)
    assert worker.containers(), "what runs, runs without it"
    undo_all(lab)
    assert worker.run(["cat", plan["path"]]).stdout == plan["before"]
    eventually(lambda: worker.run(HEALTHY).ok)


@pytest.mark.cluster
def test_the_kubelet_follows_the_runtimes_driver_whatever_its_own_file_says(lab: Workspace) -> None:
    worker = lab.node("w1")
    said = "journalctl -u kubelet -o cat --no-pager --since -60s | grep -o 'Using cgroup driver.*' | tail -1"
    own = worker.run("grep cgroupDriver /var/lib/kubelet/config.yaml", check=True).stdout.split()[1]
    other = {"systemd": "cgroupfs", "cgroupfs": "systemd"}[own]
    inject(lab, "cgroup-driver-wrong", node="w1")
    eventually(lambda: f'"{other}"' in worker.run(said).stdout)
    undo_all(lab)
    eventually(lambda: f'"{own}"' in worker.run(said).stdout)


@pytest.mark.cluster
def test_a_doubled_machine_id_is_reported_by_both_nodes(lab: Workspace, cluster: Cluster) -> None:
    def ids() -> list[str]:
        items = cluster.get("nodes")["items"]
        return [each["status"]["nodeInfo"]["machineID"] for each in items if each["metadata"]["name"] in ("cp", "w1")]

    assert len(set(ids())) == 2
    inject(lab, "machine-id-doubled", node="w1")
    eventually(lambda: len(set(ids())) == 1)
    undo_all(lab)
    eventually(lambda: len(set(ids())) == 2)


@pytest.mark.cluster
def test_a_clock_that_others_share_is_left_alone(lab: Workspace) -> None:
    if lab.node("w1").run("systemd-detect-virt --container").ok:
        with pytest.raises(BadInput, match="shares its clock"):
            inject(lab, "clock-wrong", node="w1")
        assert not lab.store.faults()
    else:
        inject(lab, "clock-wrong", node="w1", minutes=-30)
        record = lab.store.faults()[-1]
        assert fault("clock-wrong").holds(lab, record["plan"])
        undo_all(lab)
        assert not fault("clock-wrong").holds(lab, record["plan"])
