"""A machine on which kind cannot run: one line that says why and what helps, and nothing half made. The commands here are stand-ins."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import cast

import pytest

from lab_utils.artifacts.machine import arch
from lab_utils.cluster import ClusterRecord, Node, NodeRecord
from lab_utils.errors import BadInput, HostLacks, Unhealthy
from lab_utils.kind import bootstrap
from lab_utils.progress import Silent
from lab_utils.providers import ClusterSpec, kind, provider
from lab_utils.run import Result

INFO = json.dumps({"ServerVersion": "28.0", "OperatingSystem": "Docker Desktop", "MemTotal": 1 << 30})
NOT_RUNNING = 'echo "Cannot connect to the Docker daemon at unix:///x. Is the docker daemon running?" >&2; echo "{}"; exit 1'
NOT_ALLOWED = 'echo "permission denied while trying to connect to the Docker daemon socket" >&2; echo "{}"; exit 1'
DOCKER = {
    "small": f"case \"$1 $2\" in 'info --format') echo '{INFO}';; 'network inspect') exit 1;; *) ;; esac",
    "foreign": f"case \"$1\" in info) echo '{INFO}';; ps) echo lab;; *) ;; esac",
    "not running": NOT_RUNNING,
    "not allowed": NOT_ALLOWED,
}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A PATH with nothing on it but a shell and what a test puts there."""
    folder = tmp_path / "bin"
    folder.mkdir()
    for name in ("sh", "env"):
        (folder / name).symlink_to(f"/bin/{name}")
    return folder


def command(folder: Path, name: str, script: str) -> None:
    file = folder / name
    file.write_text(f"#!/bin/sh\n{script}\n")
    file.chmod(0o755)


def up(folder: Path, tmp_path: Path, *words: str) -> subprocess.CompletedProcess[str]:
    env = {**os.environ, "PATH": str(folder), "LAB_STATE": str(tmp_path / "state")}
    argv = [sys.executable, "-m", "lab_utils", "up", "--provider", "kind", *words]
    return subprocess.run(argv, capture_output=True, text=True, timeout=60, env=env)


CASES = {
    "no kind": ([], "there is no `kind` command. go install sigs.k8s.io/kind"),
    "no Docker": (["kind"], "there is no `docker` command. Install Docker Engine or Docker Desktop"),
    "Docker not running": (["kind", "not running"], "Docker does not run (Cannot connect to the Docker daemon"),
    "no right to use it": (["kind", "not allowed"], "this user may not use Docker. sudo usermod -aG docker"),
    "too little memory": (["kind", "small"], "3 nodes need about 2100 MB of memory, and Docker has 1024 MB in all. Give Docker more"),
    "a cluster of that name": (
        ["kind", "foreign"],
        "a kind cluster named 'lab' is there, and `lab` did not make it. Choose another --name",
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_one_line_says_what_is_missing_and_nothing_is_recorded(case: str, path: Path, tmp_path: Path) -> None:
    there, expected = CASES[case]
    for name in there:
        command(path, "kind" if name == "kind" else "docker", DOCKER.get(name, "exit 0"))
    said = up(path, tmp_path)
    assert said.returncode == 2
    assert said.stderr.startswith(f"lab: {expected}"), said.stderr
    assert "Traceback" not in said.stderr
    assert not list(tmp_path.rglob("cluster.json"))


def test_a_port_that_cannot_be_one_is_refused_before_anything_is_made(path: Path, tmp_path: Path) -> None:
    command(path, "kind", "exit 0")
    command(path, "docker", f"case \"$1\" in info) echo '{INFO}';; *) ;; esac")
    said = up(path, tmp_path, "--workers", "0", "--port", "http")
    assert (said.returncode, said.stderr) == (2, "lab: --port http cannot be a pair of ports. Write HOST:NODE, such as 8080:30080\n")
    assert not list(tmp_path.rglob("cluster.json"))


def docker_of(architecture: str) -> str:
    info = json.dumps({"ServerVersion": "28.0", "MemTotal": 64 << 30, "Architecture": architecture})
    return f"case \"$1\" in info) echo '{info}';; *) exit 0;; esac"


def test_a_busy_port_is_refused_before_anything_is_made(path: Path, tmp_path: Path) -> None:
    command(path, "kind", "exit 0")
    command(path, "docker", docker_of("x86_64"))
    with socket.socket() as theirs:
        theirs.bind(("127.0.0.1", 0))
        theirs.listen()
        port = theirs.getsockname()[1]
        said = up(path, tmp_path, "--workers", "0", "--port", f"{port}:30080")
    expected = f"lab: --port asks for port {port} of this host, which another program has. Choose another: --port HOST:NODE\n"
    assert (said.returncode, said.stderr) == (2, expected)
    assert not list(tmp_path.rglob("cluster.json"))


def test_one_port_of_the_host_for_two_of_the_nodes_is_refused(path: Path, tmp_path: Path) -> None:
    command(path, "kind", "exit 0")
    command(path, "docker", docker_of("x86_64"))
    said = up(path, tmp_path, "--workers", "0", "--port", "8080:30080", "--port", "8080:30081")
    assert said.returncode == 2 and "--port names port 8080 of this host twice" in said.stderr
    assert not list(tmp_path.rglob("cluster.json"))


def record_of(name: str = "lab", **options: object) -> ClusterRecord:
    nodes = [NodeRecord("cp", "172.18.0.2", "control-plane", {"container": f"{name}-control-plane"})]
    return ClusterRecord(name, "kind", "up", "/nowhere", nodes, options={"workers": 0, "ports": ["8080:30080"], **options})


def test_a_port_that_was_taken_meanwhile_is_named_and_no_other_advice_given() -> None:
    said = ["docker: Error response from daemon: x: Bind for 127.0.0.1:8080 failed: port is already allocated."]
    refused = bootstrap._failed(said, ["8080:30080"])
    assert isinstance(refused, BadInput) and "port 8080 of this host" in refused.what
    other = bootstrap._failed([said[0].replace("8080", "34567")], ["8080:30080"])
    assert isinstance(other, Unhealthy) and "try again" in other.mend


def test_inotify_is_blamed_only_for_nodes_that_did_not_start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "instances").write_text("128\n")
    monkeypatch.setattr(bootstrap, "INSTANCES", tmp_path / "instances")
    assert "inotify" not in bootstrap._failed(["ERROR: failed to create cluster: something else"], []).mend
    assert "inotify" in bootstrap._failed(['could not find a log line that matches "Reached target"'], []).mend


def test_docker_that_does_not_answer_is_no_stopped_node(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(path))
    with pytest.raises(HostLacks, match="'docker' is not on this machine"):
        provider("kind").status(record_of())
    command(path, "docker", NOT_RUNNING)
    with pytest.raises(HostLacks, match=r"Docker does not say which containers there are \(Cannot connect"):
        provider("kind").status(record_of())
    command(path, "docker", "echo '[]'; echo 'Error: No such container: lab-control-plane' >&2; exit 1")
    assert [node.running for node in provider("kind").status(record_of())] == [False]


def test_programs_for_another_architecture_are_said_to_be_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    class Lacking:
        name = "cp"

        def run(self, words: object, check: bool = False) -> Result:
            return Result("", "", 0 if check else 1)

    other = "arm64" if arch() == "amd64" else "amd64"
    with pytest.raises(HostLacks, match=rf"lacks CNI plugins; Docker's containers are {other}, and programs .* cannot be made on {arch()}"):
        bootstrap.furnish(record_of(architecture=other), [cast(Node, Lacking())], Silent())


def test_images_of_another_architecture_stay_in_the_cache() -> None:
    class Told(Silent):
        def note(self, what: str) -> None:
            notes.append(what)

    notes: list[str] = []
    other = "arm64" if arch() == "amd64" else "amd64"
    bootstrap.load_cached_images(record_of(architecture=other), [], Told())
    assert notes == [f"Docker's containers are {other}, and the images in the cache are {arch()}: nodes pull theirs from registries"]


def test_dockers_own_architecture_is_written_down(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lab_utils.kind.docker.network_exists", lambda: True)
    monkeypatch.setattr(kind, "host_kubectl", lambda progress: "kubectl")
    assert kind._plan(ClusterSpec("lab"), {"Architecture": "aarch64"}, Silent()).options["architecture"] == "arm64"
    assert kind._plan(ClusterSpec("lab"), {}, Silent()).options["architecture"] == arch()


def test_options_of_another_provider_are_refused(path: Path, tmp_path: Path) -> None:
    said = up(path, tmp_path, "--node-access", "debug")
    assert said.returncode == 2
    assert "--node-access is for the provider kubeconfig, and this is kind" in said.stderr


def test_doctor_lists_every_provider_and_never_recommends_somebodys_own_cluster_first(path: Path, tmp_path: Path) -> None:
    env = {**os.environ, "PATH": str(path), "LAB_STATE": str(tmp_path)}
    said = subprocess.run([sys.executable, "-m", "lab_utils", "doctor", "--json"], capture_output=True, text=True, timeout=60, env=env)
    report = json.loads(said.stdout)
    assert [each["name"] for each in report["providers"]] == ["embedded", "vagrant", "kind", "kubeconfig"]
    assert all(each["why"] and (each["usable"] or each["mend"]) for each in report["providers"])
    assert report["recommended"] in (None, "kubeconfig")


def test_a_reset_while_docker_is_stopped_leaves_the_cluster_as_it_is(path: Path, tmp_path: Path) -> None:
    file = tmp_path / "state" / "clusters" / "lab" / "cluster.json"
    file.parent.mkdir(parents=True)
    record = {"name": "lab", "provider": "kind", "state": "up", "kubeconfig": "", "nodes": [], "options": {}}
    file.write_text(json.dumps(record))
    command(path, "kind", "exit 0")
    command(path, "docker", NOT_RUNNING)
    env = {**os.environ, "PATH": str(path), "LAB_STATE": str(tmp_path / "state")}
    said = subprocess.run([sys.executable, "-m", "lab_utils", "reset"], capture_output=True, text=True, timeout=60, env=env)
    assert (said.returncode, said.stderr.splitlines()[0].startswith("lab: Docker does not run")) == (2, True), said.stderr
    assert json.loads(file.read_text())["state"] == "up", "or the next `up` would remove it"


OFFLINE = {
    "no flannel": ("ghcr.io", "the image ghcr.io/flannel-io/flannel:", "Let Docker reach that registry, then try again"),
    "no node image": ("kindest", "the node image kindest/node:x cannot be had: dial tcp: no route to host", ""),
}


@pytest.mark.parametrize("case", OFFLINE)
def test_a_reset_that_would_need_a_registry_which_does_not_answer_deletes_nothing(case: str, path: Path, tmp_path: Path) -> None:
    lacking, what, mend = OFFLINE[case]
    file = tmp_path / "state" / "clusters" / "lab" / "cluster.json"
    file.parent.mkdir(parents=True)
    options = {"workers": 0, "image": "kindest/node:x", "proxy_mode": "iptables", "ports": []}
    file.write_text(json.dumps({"name": "lab", "provider": "kind", "state": "up", "kubeconfig": "", "nodes": [], "options": options}))
    command(path, "kind", f'echo "$@" >> {tmp_path}/asked-of-kind')
    answers = f"""case "$1 $3" in
        info*) echo '{INFO}';;
        "image "*{lacking}*) exit 1;;
        pull*) echo "dial tcp: no route to host" >&2; exit 1;;
        *) ;;
    esac"""
    command(path, "docker", answers)
    env = {**os.environ, "PATH": str(path), "LAB_STATE": str(tmp_path / "state"), "LAB_CACHE": str(tmp_path / "cache")}
    said = subprocess.run([sys.executable, "-m", "lab_utils", "reset"], capture_output=True, text=True, timeout=60, env=env)
    last = said.stderr.splitlines()[-1]
    assert said.returncode == 2 and last.startswith(f"lab: {what}") and mend in last, said.stderr
    assert json.loads(file.read_text())["state"] == "up" and not (tmp_path / "asked-of-kind").exists()
