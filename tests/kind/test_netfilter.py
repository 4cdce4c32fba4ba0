"""A kernel module that a cluster has loaded goes with the last cluster that needs it."""

from __future__ import annotations

import pytest

from lab_utils.cluster import ClusterRecord
from lab_utils.errors import HostLacks
from lab_utils.kind import docker, netfilter
from lab_utils.run import Result

LOADED = ClusterRecord("lab", "kind", "up", "", [], options={"image": "node", netfilter.LOADED: True})


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, ...]]:
    words: list[tuple[str, ...]] = []

    def said(*these: str, check: bool) -> Result:
        words.append(these)
        return Result("", "modprobe: FATAL: Module br_netfilter not found", 1)

    monkeypatch.setattr(docker, "docker", said)
    return words


def test_a_kernel_without_it_is_one_line(asked: list[tuple[str, ...]]) -> None:
    with pytest.raises(HostLacks, match=r"no br_netfilter.*Module br_netfilter not found.*sudo modprobe br_netfilter"):
        netfilter.load("node")
    assert asked[0][:6] == ("run", "--rm", "--privileged", "--network", "host", "--volume")


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
    netfilter.unload(record, [record, ClusterRecord("other", other, "up", "", [])])
    assert bool(asked) is goes
