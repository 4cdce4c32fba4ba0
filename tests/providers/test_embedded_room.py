"""A cluster that would not fit is refused before anything of it is made, and errors keep their kind on the way through sudo."""

from __future__ import annotations

import os
import shutil
from collections import namedtuple
from pathlib import Path
from typing import Any

import pytest

from lab_utils import errors
from lab_utils.cluster import ClusterRecord, load_record
from lab_utils.embedded.privileged import rebuilt
from lab_utils.errors import BadInput, CommandFailed, HostLacks, LabError, Unhealthy
from lab_utils.progress import Silent
from lab_utils.providers import ClusterSpec, Usability, embedded

Usage = namedtuple("Usage", "total used free")


def test_too_little_memory_is_said_with_what_is_needed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(embedded, "MEGABYTES_PER_NODE", 10**9)
    with pytest.raises(HostLacks, match=r"3 nodes need about 3000000000 MB of memory.*--workers 0"):
        embedded.check_room(3)


def test_a_full_disk_is_said_with_the_place(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("LAB_STATE", raising=False)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: Usage(100, 100, 0))
    with pytest.raises(HostLacks, match=r"of disk are needed below /var/lib.*lab down --all"):
        embedded.check_room(1)


def test_the_disk_is_the_one_that_the_state_is_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LAB_STATE", str(tmp_path / "elsewhere"))
    monkeypatch.setattr(shutil, "disk_usage", lambda path: Usage(100, 100, 0))
    with pytest.raises(HostLacks, match=f"of disk are needed below {tmp_path}, and 0 MB"):
        embedded.check_room(1)


class Root:
    """Root's side, and how much room was asked for. It goes no further than that."""

    def __init__(self, running: int, lacks: list[str], made: dict[str, Any]) -> None:
        self.running, self.lacks, self.made = running, lacks, made
        self.asked: list[str] = []
        self.room: list[tuple[int, bool]] = []
        self.request: dict[str, Any] = {}

    def perform(self, operation: str, request: dict[str, Any], progress: object) -> dict[str, Any]:
        self.asked.append(operation)
        if operation == "up":
            self.request = request
            raise LabError("far enough")
        nodes = [{"name": name, "running": number < self.running} for number, name in enumerate(("cp", "w1", "w2"))]
        answers: dict[str, dict[str, Any]] = {
            "status": {"nodes": nodes, "made": self.made},
            "kernel_lacks": {"lacks": self.lacks},
            "prepare": {"kubernetes": "v1.99.0", "kubectl": "kubectl"},
        }
        return answers[operation]

    def check_room(self, nodes: int, *, disk: bool) -> None:
        self.room.append((nodes, disk))


def root(
    monkeypatch: pytest.MonkeyPatch,
    folder: Path,
    *,
    state: str = "",
    running: int = 0,
    lacks: list[str] | None = None,
    made: dict[str, Any] | None = None,
    **recorded: Any,
) -> Root:
    """A host with a cluster in that state, of whose three nodes so many run. Nobody here is root. `made` is what root's side knows."""
    side = Root(running, lacks or [], made or {})
    monkeypatch.setenv("LAB_STATE", str(folder))
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    monkeypatch.setattr(embedded, "perform", side.perform)
    monkeypatch.setattr(embedded, "check_room", side.check_room)
    monkeypatch.setattr(embedded.Embedded, "usability", lambda self: Usability("embedded", True, ""))
    if state:
        options = {"bare": False, "guarded": False, "proxy_mode": "iptables", **recorded}
        ClusterRecord("lab", "embedded", state, str(folder / "kubeconfig"), [], options=options).save()
    return side


@pytest.mark.parametrize(
    ("state", "running", "room"),
    [
        ("", 0, [(3, True)]),
        ("up", 3, []),
        ("up", 2, [(1, False)]),
        ("up", 0, [(3, False)]),
        ("creating", 0, [(3, True)]),
    ],
    ids=["new", "running", "one node stopped", "all stopped", "half made"],
)
def test_room_is_asked_for_what_does_not_run_yet(
    state: str, running: int, room: list[tuple[int, bool]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    side = root(monkeypatch, tmp_path, state=state, running=running)
    with pytest.raises(LabError, match="far enough"):
        embedded.PROVIDER.up(ClusterSpec("lab"), Silent())
    assert side.room == room


def test_a_kernel_that_cannot_is_said_before_anything_is_built(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    side = root(monkeypatch, tmp_path, lacks=["VXLAN devices", "bridges"])
    with pytest.raises(HostLacks, match=r"cannot run here: this kernel has no VXLAN devices, no bridges\. Load the modules"):
        embedded.PROVIDER.up(ClusterSpec("lab"), Silent())
    assert side.asked == ["status", "kernel_lacks"]
    assert not list(tmp_path.rglob("*.json")), "nothing was recorded"


OPEN = {"bare": False, "guarded": False, "proxy_mode": "iptables", "kubernetes": "v1.36.3"}


@pytest.mark.parametrize(
    ("asked", "why"),
    [
        (ClusterSpec("lab", guarded=True), "was not made with guarded nodes"),
        (ClusterSpec("lab", bare=True), "was not made with bare nodes"),
        (ClusterSpec("lab", proxy_mode="nftables"), "was not made with kube-proxy in nftables mode"),
    ],
)
def test_a_lost_record_makes_no_other_cluster_of_one_that_is_there(
    asked: ClusterSpec, why: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a record calls guarded, a grader trusts."""
    side = root(monkeypatch, tmp_path, running=3, made=OPEN)
    with pytest.raises(BadInput, match=why):
        embedded.PROVIDER.up(asked, Silent())
    assert "up" not in side.asked and not list(tmp_path.rglob("*.json"))


def test_what_is_there_is_started_as_it_was_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    side = root(monkeypatch, tmp_path, state="up", made={**OPEN, "bare": True}, storage=True)
    with pytest.raises(LabError, match="far enough"):
        embedded.PROVIDER.up(ClusterSpec("lab"), Silent())
    assert side.request["bare"] is True, "root's side knows better than the record"


@pytest.mark.parametrize("bare", [True, False])
def test_a_killed_up_does_not_say_how_the_next_one_makes_it(bare: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    side = root(monkeypatch, tmp_path, state="creating", bare=not bare, guarded=True)
    with pytest.raises(LabError, match="far enough"):
        embedded.PROVIDER.up(ClusterSpec("lab", bare=bare), Silent())
    assert (side.request["bare"], side.request["guarded"]) == (bare, False)


def test_labs_are_as_patient_as_lab_up_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root(monkeypatch, tmp_path, state="creating")
    monkeypatch.setenv("LAB_PATIENCE", "3")
    answer = {"kubeconfig": "", "nodes": [{"name": "cp", "ip": "172.31.64.11", "role": "control-plane"}]}
    embedded._finish(load_record("lab"), answer, {"host_key_public": "ssh-ed25519 AAAA"})
    assert load_record("lab").nodes[0].patience == 3


@pytest.mark.parametrize("kind", [HostLacks, Unhealthy, errors.Busy, errors.NoSuchCluster, LabError])
def test_an_error_from_behind_sudo_is_the_same_error(kind: type[LabError]) -> None:
    error = rebuilt(kind, {"what": "the what", "mend": "the mend"})
    assert type(error) is kind
    assert (str(error), error.exit_code) == ("the what. the mend", kind.exit_code)


def test_an_error_with_a_shape_of_its_own_keeps_its_words() -> None:
    error = rebuilt(CommandFailed, {"what": "`kubeadm init` ended with code 1", "mend": ""})
    assert (str(error), error.exit_code) == ("`kubeadm init` ended with code 1", 2)


def test_the_smallest_cluster_fits_here(tmp_path: Path) -> None:
    embedded.check_room(1)
