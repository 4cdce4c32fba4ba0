"""A machine on which kind cannot run: one line that says why and what helps, and nothing half made. The commands here are stand-ins."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

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
