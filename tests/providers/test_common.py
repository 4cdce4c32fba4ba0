from __future__ import annotations

from pathlib import Path

import pytest

from lab_utils.cluster import patiently
from lab_utils.errors import BadInput
from lab_utils.progress import Progress, Silent
from lab_utils.providers import ClusterSpec
from lab_utils.providers.common import as_it_is, host_kubectl

ORDINARY = {"bare": False, "proxy_mode": "iptables"}
KEPT = {**ORDINARY, "network_policy": "kube-router"}
BARE = {"bare": True, "guarded": True, "proxy_mode": "iptables"}


@pytest.mark.parametrize(
    ("asked", "made", "why"),
    [
        (ClusterSpec("lab", bare=True), ORDINARY, "was not made with bare nodes"),
        (ClusterSpec("lab", bare=True, guarded=True), {**BARE, "guarded": False}, "was not made with guarded nodes"),
        (ClusterSpec("lab", proxy_mode="nftables"), ORDINARY, "was not made with kube-proxy in nftables mode"),
        (ClusterSpec("lab", network_policy="own"), KEPT, "was not made with the engine own, but kube-router"),
    ],
)
def test_a_cluster_does_not_become_another_by_being_asked_for_again(asked: ClusterSpec, made: dict[str, object], why: str) -> None:
    with pytest.raises(BadInput, match=f"cluster 'lab' exists, and {why}.*lab down --name lab"):
        as_it_is(asked, made)


def test_whoever_only_starts_it_again_need_not_say_how_it_was_made() -> None:
    assert as_it_is(ClusterSpec("lab"), BARE) == ClusterSpec("lab", bare=True, guarded=True)
    assert as_it_is(ClusterSpec("lab"), {"proxy_mode": "nftables"}).proxy_mode == "nftables"
    assert as_it_is(ClusterSpec("lab", storage=True), ORDINARY) == ClusterSpec("lab", storage=True)
    assert as_it_is(ClusterSpec("lab"), KEPT) == ClusterSpec("lab")
    assert as_it_is(ClusterSpec("lab", network_policy="own"), ORDINARY).network_policy == "own", "an engine may come later"


@pytest.mark.parametrize(
    ("said", "meant"),
    [
        (("wait", "pod/web", "--timeout=90s"), ("wait", "pod/web", "--timeout=1800s")),
        (("get", "nodes", "--request-timeout=2.5s"), ("get", "nodes", "--request-timeout=50s")),
        (("rollout", "status", "--timeout=3m"), ("rollout", "status", "--timeout=60m")),
        (("exec", "web", "--", "curl", "--timeout=5s"), ("exec", "web", "--", "curl", "--timeout=5s")),
        (("wait", "--timeout=soon"), ("wait", "--timeout=soon")),
    ],
)
def test_kubectls_own_deadline_is_as_patient_as_ours(said: tuple[str, ...], meant: tuple[str, ...]) -> None:
    assert patiently(said, 20) == meant
    assert patiently(said, 1) == said


def test_whoever_waits_for_kubectl_sees_how_it_is_made(monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[Progress] = []

    def binary(name: str, progress: Progress) -> Path:
        told.append(progress)
        return Path(name)

    monkeypatch.setattr("lab_utils.artifacts.binary", binary)
    monkeypatch.setattr("platform.system", lambda: "Linux")
    mine = Silent()
    assert host_kubectl(progress=mine) == "kubectl" and host_kubectl() == "kubectl"
    assert told[0] is mine and isinstance(told[1], Silent)
