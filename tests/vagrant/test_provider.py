"""What is decided before any machine is made. The machines themselves: `make test-vagrant`."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path

import pytest
import yaml

from lab_utils.cluster import ClusterRecord, NodeRecord
from lab_utils.embedded import kubeadm
from lab_utils.errors import BadInput, HostLacks
from lab_utils.progress import Silent
from lab_utils.providers import ClusterSpec
from lab_utils.providers.vagrant import PROVIDER
from lab_utils.vagrant.bootstrap import silent
from lab_utils.vagrant.machines import Machines
from lab_utils.vagrant.plan import check_box, check_room, plan, read_settings
from lab_utils.vagrant.settings import Settings


@pytest.fixture(autouse=True)
def own_state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("LAB_STATE", str(tmp_path / "state"))
    monkeypatch.delenv("LAB_VAGRANT_SETTINGS", raising=False)
    monkeypatch.setattr("lab_utils.vagrant.plan.host_kubectl", lambda: "kubectl")
    return tmp_path


def test_without_vagrant_nothing_is_made(own_state: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(own_state))
    assert not PROVIDER.usability().usable
    with pytest.raises(HostLacks, match="Vagrant is not installed"):
        PROVIDER.up(ClusterSpec("lab"), Silent())
    assert not (own_state / "state").exists()


def test_the_users_settings_must_exist(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LAB_VAGRANT_SETTINGS", "/nowhere/mine.yaml")
    with pytest.raises(BadInput, match=r"LAB_VAGRANT_SETTINGS names /nowhere/mine.yaml, and there is no such file"):
        read_settings()


def test_too_little_memory_is_said_before_anything_is_made() -> None:
    with pytest.raises(HostLacks, match=r"the machines take 99999999 MB of memory, and [0-9]+ MB are free"):
        check_room(99999999)


def test_the_plan_says_all_that_down_must_know() -> None:
    record = plan(ClusterSpec("lab", workers=1), Settings(), "virtualbox", "course")
    assert (record.state, record.provider) == ("creating", "vagrant")
    assert {node.name: (node.ip, node.role) for node in record.nodes} == {
        "cp": ("192.168.56.10", "control-plane"),
        "w1": ("192.168.56.11", "worker"),
    }
    assert {key: record.options[key] for key in ("vm_provider", "box", "network", "bare")} == {
        "vm_provider": "virtualbox",
        "box": "course",
        "network": "192.168.56.0/24",
        "bare": False,
    }


def test_a_second_cluster_has_a_network_of_its_own() -> None:
    plan(ClusterSpec("one"), Settings(), "virtualbox", "course").save()
    second = plan(ClusterSpec("two"), Settings(), "virtualbox", "course")
    assert second.options["network"] == "192.168.57.0/24"


def test_the_more_patient_of_setting_and_environment_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LAB_PATIENCE", "3")
    assert plan(ClusterSpec("lab"), Settings(patience=2), "virtualbox", "course").options["patience"] == 3
    assert plan(ClusterSpec("lab"), Settings(patience=8), "virtualbox", "course").options["patience"] == 8


def test_a_box_of_another_architecture_is_refused(own_state: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program = own_state / "vagrant"
    said = ("box-name,course", "box-provider,virtualbox", "box-version,1.0", "box-architecture,arm64")
    program.write_text("#!/bin/sh\n" + "".join(f"echo 1795262361,,{line}\n" for line in said))
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{own_state}:/usr/bin:/bin")
    machines = Machines(own_state / "vagrant-folder", "virtualbox")
    with pytest.raises(BadInput, match="the box course is for arm64, and this host is amd64"):
        check_box(machines, "course", "amd64")
    check_box(machines, "course", "arm64")


def test_down_of_a_cluster_that_is_not_ours_touches_nothing(own_state: Path) -> None:
    ClusterRecord("other", "embedded", "up", "", [NodeRecord("cp", "172.31.64.10", "control-plane")]).save()
    PROVIDER.down("other", Silent())
    PROVIDER.down("never-made", Silent())
    assert json.loads((own_state / "state/clusters/other/cluster.json").read_text())["provider"] == "embedded"


def test_machines_have_flannel_on_the_nodes_own_network() -> None:
    text = kubeadm.flannel(flannel_image="flannel:1", plugin_image="plugin:1", iface=kubeadm.DEVICE_OF_NODE_IP)
    daemon = next(each for each in yaml.safe_load_all(text) if each["kind"] == "DaemonSet")["spec"]["template"]["spec"]["containers"][0]
    assert "--iface=$(NODE_IP)" in daemon["args"]
    # Kubernetes puts a variable of this container in its place: the node's InternalIP, which is what --node-ip says.
    assert {"name": "NODE_IP", "valueFrom": {"fieldRef": {"fieldPath": "status.hostIP"}}} in daemon["env"]


def test_kubeadm_waits_as_long_as_the_settings_say() -> None:
    config = kubeadm.init_config(
        ip="192.168.56.10",
        node="cp",
        token="abcdef.0123456789abcdef",
        kubernetes="v1.36.3",
        cgroup="v2",
        proxy_mode="iptables",
        alone=False,
        etcd_sync=True,
        patience=6,
    )
    init, cluster, kubelet, _ = yaml.safe_load_all(config)
    assert init["timeouts"]["kubernetesAPICall"] == "360s"
    assert init["localAPIEndpoint"]["advertiseAddress"] == "192.168.56.10"
    assert {"name": "node-ip", "value": "192.168.56.10"} in init["nodeRegistration"]["kubeletExtraArgs"]
    assert "etcd" not in cluster, "a machine can lose its power: its etcd writes through"
    assert kubelet["cgroupDriver"] == "systemd"


def test_down_works_where_the_record_cannot_be_read(own_state: Path) -> None:
    folder = own_state / "state/clusters/broken"
    (folder / "vagrant").mkdir(parents=True)
    (folder / "cluster.json").write_text("{")
    PROVIDER.down("broken", Silent())
    assert not folder.exists()


def test_a_node_counts_only_when_its_kubelet_has_spoken_since() -> None:
    leases = [
        {"metadata": {"name": "cp"}, "spec": {"renewTime": "2026-11-21T12:00:10.123456Z"}},
        {"metadata": {"name": "w1"}, "spec": {"renewTime": "2026-11-21T11:00:00.000000Z"}},
    ]
    then = datetime(2026, 11, 21, 12, 0, tzinfo=UTC).timestamp()
    assert silent(leases, ["cp"], then) == ""
    assert silent(leases, ["cp", "w1", "w2"], then) == "silent: w1, w2"
