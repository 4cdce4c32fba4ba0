"""What is decided before any machine is made. The machines themselves: `make test-vagrant`."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import cast

import pytest
import yaml

from lab_utils.artifacts.machine import arch
from lab_utils.cluster import ClusterRecord, Node, NodeRecord
from lab_utils.embedded import kubeadm
from lab_utils.errors import BadInput, HostLacks, LabError, NoSuchCluster, Unhealthy
from lab_utils.progress import Silent
from lab_utils.providers import ClusterSpec
from lab_utils.providers.vagrant import PROVIDER
from lab_utils.run import Result
from lab_utils.vagrant import machines
from lab_utils.vagrant.bootstrap import Bootstrap, silent
from lab_utils.vagrant.machines import Machines
from lab_utils.vagrant.plan import check_box, check_room, plan, read_settings, write_settings
from lab_utils.vagrant.settings import Settings


@pytest.fixture(autouse=True)
def own_state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("LAB_STATE", str(tmp_path / "state"))
    monkeypatch.delenv("LAB_VAGRANT_SETTINGS", raising=False)
    monkeypatch.setattr("lab_utils.vagrant.plan.host_kubectl", lambda progress: "kubectl")
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


def test_the_users_settings_must_be_utf8(own_state: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mine = own_state / "mine.yaml"
    mine.write_text("workers: 1\n", encoding="utf-16")
    monkeypatch.setenv("LAB_VAGRANT_SETTINGS", str(mine))
    with pytest.raises(BadInput, match=r"mine.yaml is not text in UTF-8. Save it as UTF-8"):
        read_settings()


def test_a_home_of_nobody_holds_no_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LAB_VAGRANT_SETTINGS", "~no-such-user/mine.yaml")
    with pytest.raises(BadInput, match="there is no such file"):
        read_settings()


def test_too_little_memory_is_said_before_anything_is_made() -> None:
    with pytest.raises(HostLacks, match=r"the machines take 99999999 MB of memory, and [0-9]+ MB are free"):
        check_room(99999999)


def test_the_plan_says_all_that_down_must_know() -> None:
    record = plan(ClusterSpec("lab", workers=1), Settings(), "virtualbox", "course", Silent())
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
    plan(ClusterSpec("one"), Settings(), "virtualbox", "course", Silent()).save()
    second = plan(ClusterSpec("two"), Settings(), "virtualbox", "course", Silent())
    assert second.options["network"] == "192.168.57.0/24"


def test_a_damaged_record_of_another_cluster_is_no_hindrance(own_state: Path) -> None:
    (own_state / "state/clusters/damaged").mkdir(parents=True)
    (own_state / "state/clusters/damaged/cluster.json").write_text("{")
    assert plan(ClusterSpec("two"), Settings(), "virtualbox", "course", Silent()).options["network"] == "192.168.56.0/24"


def test_the_vagrantfile_is_told_what_was_decided(own_state: Path) -> None:
    record = plan(ClusterSpec("lab", workers=1), Settings(), "virtualbox", "course", Silent())
    write_settings(record, Settings(packaged=True), Silent())
    told = yaml.safe_load((record.folder / "vagrant/settings.yaml").read_text())
    assert (told["cluster"]["architecture"], told["cluster"]["box"]) == (arch(), "course")


def test_the_more_patient_of_setting_and_environment_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LAB_PATIENCE", "3")
    assert plan(ClusterSpec("lab"), Settings(patience=2), "virtualbox", "course", Silent()).options["patience"] == 3
    assert plan(ClusterSpec("lab"), Settings(patience=8), "virtualbox", "course", Silent()).options["patience"] == 8


def program(folder: Path, monkeypatch: pytest.MonkeyPatch, **scripts: str) -> None:
    """Programs of these names that do what their script says; nothing else but the system's own is on PATH."""
    for name, script in scripts.items():
        (folder / name).write_text(f"#!/bin/bash\n{script}\n")
        (folder / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:/usr/bin:/bin")


def box_list(*architectures: str) -> str:
    said = [("box-name,course", "box-provider,virtualbox", "box-version,1.0", f"box-architecture,{one}") for one in architectures]
    return "\n".join(f"echo 1795262361,,{line}" for box in said for line in box)


def test_a_box_of_another_architecture_is_refused(own_state: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = Machines(own_state / "vagrant-folder", "virtualbox")
    program(own_state, monkeypatch, vagrant=box_list("arm64"))
    with pytest.raises(BadInput, match="the box course is for arm64, and this host is amd64"):
        check_box(found, "course", "amd64")
    check_box(found, "course", "arm64")


def test_up_with_a_box_of_another_architecture_leaves_nothing(own_state: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    other = "arm64" if arch() == "amd64" else "amd64"
    program(own_state, monkeypatch, vagrant=box_list(other), VBoxManage="exit 0")
    settings(own_state, monkeypatch, "provider: virtualbox\nbox: course\n")
    with pytest.raises(BadInput, match=f"the box course is for {other}"):
        PROVIDER.up(ClusterSpec("wrong"), Silent())
    assert not (own_state / "state/clusters/wrong").exists(), "not even Vagrant's own words"


def test_doctor_says_what_up_would(own_state: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program(own_state, monkeypatch, vagrant="exit 0", VBoxManage="exit 0", prlctl="exit 0")
    monkeypatch.setattr("lab_utils.vagrant.hypervisors._plugins", lambda: {"vagrant-parallels"})
    said = PROVIDER.usability()
    assert not said.usable and said.why == "several VM providers can run here: virtualbox, parallels"
    assert said.mend == "Choose one: export VAGRANT_DEFAULT_PROVIDER=virtualbox"
    settings(own_state, monkeypatch, "provider: parallels\n")
    assert PROVIDER.usability().why == "virtual machines by parallels"


def settings(folder: Path, monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    (folder / "mine.yaml").write_text(text)
    monkeypatch.setenv("LAB_VAGRANT_SETTINGS", str(folder / "mine.yaml"))


@pytest.mark.parametrize("architectures", [("n/a",), ("unknown",), ("arm64", "amd64")])
def test_a_box_that_may_fit_is_taken(architectures: tuple[str, ...], own_state: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program(own_state, monkeypatch, vagrant=box_list(*architectures))
    check_box(Machines(own_state / "vagrant-folder", "virtualbox"), "course", "amd64")


def made(name: str, **options: object) -> ClusterRecord:
    record = plan(ClusterSpec(name, workers=1), Settings(), "libvirt", "course", Silent()).but(state="up")
    record = record.but(options={**record.options, "snapshots": True, **options})
    record.save()
    (record.folder / "vagrant" / "dot").mkdir(parents=True)
    (record.folder / "vagrant" / "settings.yaml").touch()
    return record


def test_what_was_looked_at_before_it_was_described_is_removed_without_vagrant(own_state: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`lab status` during the downloads of `lab up`: without settings.yaml the Vagrantfile cannot be read, and nothing was made."""
    program(own_state, monkeypatch, vagrant="exit 1", virsh="exit 0")
    record = made("early").but(state="creating")
    record.save()
    (record.folder / "vagrant" / "settings.yaml").unlink()
    assert [status.running for status in PROVIDER.status(record)] == [False, False]
    PROVIDER.down("early", Silent())
    assert not record.folder.exists()


def test_a_cluster_whose_removal_cannot_be_seen_is_not_forgotten(own_state: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """libvirtd is down: neither Vagrant nor virsh can remove or find a machine, and both say so by failing."""
    program(own_state, monkeypatch, vagrant="exit 1", virsh="echo 'error: Failed to connect socket' >&2; exit 1")
    record = made("lost")
    with pytest.raises(LabError, match="the machines could not be removed"):
        PROVIDER.down("lost", Silent())
    assert (record.folder / "cluster.json").exists(), "or no later `down` would look for them"
    program(own_state, monkeypatch, vagrant="exit 0", virsh="exit 0")
    PROVIDER.down("lost", Silent())
    assert not record.folder.exists()


@pytest.mark.parametrize("command", ["up", "reset"])
def test_machines_that_are_gone_are_not_made_anew_by_halves(command: str, own_state: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program(own_state, monkeypatch, vagrant="echo 1,cp,state,running; echo 1,w1,state,not_created", virsh="exit 0")
    made("holed")
    with pytest.raises(NoSuchCluster, match=r"lost its machines w1.*lab down --name holed; lab up --name holed"):
        if command == "up":
            PROVIDER.up(ClusterSpec("holed", workers=1), Silent())
        else:
            PROVIDER.reset("holed", Silent())


def test_whoever_says_no_number_means_the_workers_that_there_are(own_state: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`lab status` says of a stopped cluster that `lab up --name holed` starts it again, and that must do so with one worker, too."""
    program(own_state, monkeypatch, vagrant="echo 1,cp,state,running; echo 1,w1,state,running", virsh="exit 0")
    made("small", bare=True)
    done = subprocess.run([sys.executable, "-m", "lab_utils", "up", "--name", "small"], capture_output=True, text=True)
    assert done.returncode == 0 and "small is up: cp, w1" in done.stderr
    more = subprocess.run([sys.executable, "-m", "lab_utils", "up", "--name", "small", "--workers", "3"], capture_output=True, text=True)
    assert more.returncode == 2 and "exists with 1 workers, not 3" in more.stderr


def test_an_interrupted_vagrant_may_tidy_up_first(own_state: Path) -> None:
    script = "trap 'sleep 0.3; touch tidy; exit 1' INT; touch ready; while :; do sleep 0.1; done"
    process = subprocess.Popen(["bash", "-c", script], cwd=own_state, start_new_session=True)
    while not (own_state / "ready").exists():
        time.sleep(0.02)
    machines._interrupt(process.pid)
    assert (own_state / "tidy").exists()
    assert process.wait(10) is not None


def test_the_settings_say_how_many_workers_are_usual(own_state: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (own_state / "mine.yaml").write_text("workers: 4\n")
    monkeypatch.setenv("LAB_VAGRANT_SETTINGS", str(own_state / "mine.yaml"))
    assert PROVIDER.usual_workers() == 4


def test_down_of_a_cluster_that_is_not_ours_touches_nothing(own_state: Path) -> None:
    ClusterRecord("other", "embedded", "up", "", [NodeRecord("cp", "172.31.64.10", "control-plane")]).save()
    PROVIDER.down("other", Silent())
    PROVIDER.down("never-made", Silent())
    assert json.loads((own_state / "state/clusters/other/cluster.json").read_text())["provider"] == "embedded"


def test_machines_have_flannel_on_the_nodes_own_network() -> None:
    images = {"flannel": "flannel:1", "flannel-cni-plugin": "plugin:1"}
    text = kubeadm.flannel(api="192.168.56.10", images=images, iface=kubeadm.DEVICE_OF_NODE_IP)
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
    assert "unsafe-no-fsync" not in str(cluster.get("etcd")), "a machine can lose its power: its etcd writes through"
    assert kubelet["cgroupDriver"] == "systemd"


@pytest.mark.parametrize(("code", "asked"), [("DeadlineExceeded", 3), ("Unavailable", 1)])
def test_a_runtime_that_answers_late_is_asked_again(code: str, asked: int, own_state: Path) -> None:
    lines = []

    class Slow:
        name = "w1"

        def put(self, *_: object) -> None: ...

        def run(self, words: list[str], **_: object) -> Result:
            lines.append(words)
            return Result("", f"[ERROR CRI]: no answer: rpc error: code = {code}", 1)

    record = made("slow")
    with pytest.raises(Unhealthy, match=r"kubeadm join failed on node w1: \[ERROR CRI\]"):
        Bootstrap(record, [], 1, Silent())._kubeadm(cast(Node, Slow()), "join", "")
    assert [words[:2] for words in lines] == [["kubeadm", "join"]] * asked


def test_down_works_where_the_record_cannot_be_read(own_state: Path) -> None:
    folder = own_state / "state/clusters/broken"
    (folder / "vagrant").mkdir(parents=True)
    (folder / "cluster.json").write_text("{")
    PROVIDER.down("broken", Silent())
    assert not folder.exists()


@pytest.mark.parametrize("text", ["", "provider: [", "- 1", "provider: libvirt"])
def test_down_works_where_neither_record_nor_settings_can_be_read(text: str, own_state: Path) -> None:
    folder = own_state / "state/clusters/broken"
    (folder / "vagrant").mkdir(parents=True)
    (folder / "cluster.json").write_text("{")
    (folder / "vagrant/settings.yaml").write_text(text)
    PROVIDER.down("broken", Silent())
    assert not folder.exists()


def test_a_state_that_vagrant_does_not_tell_is_no_stopped_machine(own_state: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    record = made("dumb")
    program(own_state, monkeypatch, vagrant="exit 1")
    with pytest.raises(LabError, match="`vagrant status` failed"):
        PROVIDER.status(record)
    monkeypatch.setenv("PATH", str(own_state / "nowhere"))
    with pytest.raises(HostLacks, match="Vagrant is not installed"):
        PROVIDER.status(record)


def test_a_node_counts_only_when_its_kubelet_has_spoken_since() -> None:
    leases = [
        {"metadata": {"name": "cp"}, "spec": {"renewTime": "2026-11-21T12:00:10.123456Z"}},
        {"metadata": {"name": "w1"}, "spec": {"renewTime": "2026-11-21T11:00:00.000000Z"}},
    ]
    then = datetime(2026, 11, 21, 12, 0, tzinfo=UTC).timestamp()
    assert silent(leases, ["cp"], then) == ""
    assert silent(leases, ["cp", "w1", "w2"], then) == "silent: w1, w2"
