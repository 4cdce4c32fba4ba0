"""A kernel module that a cluster has loaded goes with the last cluster that needs it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from lab_utils.cluster import ClusterRecord, NodeRecord, load_record
from lab_utils.errors import HostLacks
from lab_utils.kind import docker, netfilter
from lab_utils.progress import Silent
from lab_utils.providers.closed import ClosedNode
from lab_utils.run import Result

LOADED = ClusterRecord("lab", "kind", "up", "", [], options={"image": "node", netfilter.LOADED: True})


class Told(Silent):
    def __init__(self) -> None:
        self.notes: list[str] = []

    def note(self, what: str) -> None:
        self.notes.append(what)


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, ...]]:
    words: list[tuple[str, ...]] = []

    def said(*these: str, check: bool) -> Result:
        words.append(these)
        return Result("", "modprobe: FATAL: Module br_netfilter not found", 1)

    monkeypatch.setattr(docker, "docker", said)
    return words


class Machine(ClosedNode):
    """A node whose kernel has the module, or has not."""

    def __init__(self, there: bool) -> None:
        super().__init__(NodeRecord("cp", "192.0.2.1", "control-plane"), "")
        self.there = there

    def run(self, cmd: str | Sequence[str], **options: Any) -> Result:
        assert cmd == ["test", "-e", "/proc/sys/net/bridge/bridge-nf-call-iptables"]
        return Result("", "", 0 if self.there else 1)


def test_a_kernel_that_cannot_load_it_is_one_line(asked: list[tuple[str, ...]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LAB_STATE", str(tmp_path))
    new = LOADED.but(options={"image": "node"})
    assert netfilter.ensure(new, Machine(there=True)) == new and not asked
    with pytest.raises(HostLacks, match=r"no br_netfilter.*Module br_netfilter not found.*sudo modprobe br_netfilter"):
        netfilter.ensure(new, Machine(there=False))
    assert asked[0][:7] == ("run", "--rm", "--pull", "never", "--privileged", "--network", "host")
    assert load_record("lab").options[netfilter.LOADED], "`down` has to know"


@pytest.mark.parametrize(
    ("record", "other", "goes"),
    [
        (LOADED, "vagrant", True),
        (LOADED, "kind", False),
        (LOADED, "embedded", False),
        (LOADED.but(options={"image": "node"}), "vagrant", False),
    ],
    ids=["nobody else needs it", "another kind cluster", "an embedded one", "it was there before"],
)
def test_it_goes_with_the_last(record: ClusterRecord, other: str, goes: bool, asked: list[tuple[str, ...]]) -> None:
    told = Told()
    netfilter.unload(record, [record, ClusterRecord("other", other, "up", "", [])], told)
    assert bool(asked) is bool(told.notes) is goes, "here it does not go, and that is said"
