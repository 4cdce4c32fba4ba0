from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from lab_utils import addons
from lab_utils.cluster import Cluster, ClusterRecord, NodeRecord, cluster_dir, load_record, patiently
from lab_utils.errors import BadInput, CommandFailed, HostLacks
from lab_utils.progress import Progress, Silent
from lab_utils.providers import ClusterSpec
from lab_utils.providers.common import as_it_is, cluster_keys, host_kubectl, with_addons, with_more

ORDINARY = {"bare": False, "proxy_mode": "iptables"}
KEPT = {**ORDINARY, "network_policy": "kube-router"}
BARE = {"bare": True, "guarded": True, "proxy_mode": "iptables"}


@pytest.mark.parametrize(
    ("asked", "made", "why"),
    [
        (ClusterSpec("lab", bare=True), ORDINARY, "was not made with bare nodes"),
        (ClusterSpec("lab", bare=True, guarded=True), {**BARE, "guarded": False}, "was not made with guarded nodes"),
        (ClusterSpec("lab", proxy_mode="nftables"), ORDINARY, "was not made with kube-proxy in nftables mode"),
        (ClusterSpec("lab", said=("--proxy-mode",)), {"proxy_mode": "nftables"}, "was not made with kube-proxy in iptables mode"),
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


def test_what_was_added_once_stays_and_more_may_come() -> None:
    options = {"image": "node", "storage": True, "images": ["mysql"], "network_policy": "own"}
    assert with_more(options, ClusterSpec("lab", ingress=True, images=("bird", "mysql"))) == {
        "image": "node",
        "metrics_server": False,
        "storage": True,
        "ingress": True,
        "images": ["bird", "mysql"],
        "network_policy": "own",
    }


def test_what_could_not_be_given_is_not_asked_for_again(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """An engine that this kernel cannot run: the next `up` and every `reset` would fail for it, and another could not be chosen."""

    def refused(*_: object) -> None:
        raise HostLacks("this kernel has no NFT_QUEUE", "Choose another engine")

    monkeypatch.setenv("LAB_STATE", str(tmp_path))
    monkeypatch.setattr(addons, "serves_metrics", lambda cluster: False)
    monkeypatch.setattr(addons, "install_metrics_server", lambda cluster, progress: None)
    monkeypatch.setattr(addons, "engine_of", lambda cluster: "")
    monkeypatch.setattr(addons, "install_engine", refused)
    cluster = Cluster(ClusterRecord("lab", "embedded", "up", "", []), [])
    with pytest.raises(HostLacks):
        with_addons(cluster, Silent(), ClusterSpec("lab", metrics_server=True, network_policy="kube-network-policies"))
    assert load_record("lab").options == {"metrics_server": True}, "what was given before stays"


@pytest.mark.skipif(os.geteuid() != 0, reason="only root gives files away")
def test_root_in_a_users_home_leaves_nothing_that_is_roots(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """`sudo -E lab up`."""
    monkeypatch.setenv("LAB_STATE", str(tmp_path / "state"))
    os.chown(tmp_path, 1000, 1000)
    cluster_keys(cluster_dir("lab"))
    made = [tmp_path / "state", *(tmp_path / "state").rglob("*")]
    assert {path.stat().st_uid for path in made} == {1000} and len(made) == 7


def test_keys_are_made_anew_when_the_first_time_was_cut_short(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    full = OSError(errno.ENOSPC, "No space left on device")
    writes = iter([None, full, None, None, None, None])
    write = Path.write_bytes

    def sometimes(path: Path, data: bytes) -> int:
        if problem := next(writes):
            raise problem
        return write(path, data)

    monkeypatch.setattr(Path, "write_bytes", sometimes)
    with pytest.raises(OSError, match="No space left"):
        cluster_keys(tmp_path)
    made = cluster_keys(tmp_path)
    assert made["authorized_key"].startswith("ssh-ed25519 ") and "PRIVATE KEY" in made["host_key"]
    assert {path.name: path.stat().st_mode & 0o777 for path in tmp_path.iterdir() if not path.suffix} == {
        "id_ed25519": 0o600,
        "host_ed25519": 0o600,
    }
    assert cluster_keys(tmp_path) == made


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


@pytest.mark.parametrize(("patience", "said"), [(20, "3\n"), (1, "")])
def test_a_handshake_that_is_too_slow_is_tried_again_where_nodes_are_slow(patience: float, said: str, tmp_path: Path) -> None:
    """This kubectl comes through at its third attempt."""
    kubectl = tmp_path / "kubectl"
    kubectl.write_text(f"""#!/bin/sh
echo >> {tmp_path}/tries
[ $(wc -l < {tmp_path}/tries) -eq 3 ] && echo 3 && exit
echo 'Unable to connect to the server: net/http: TLS handshake timeout' >&2
exit 1
""")
    kubectl.chmod(0o755)
    nodes = [NodeRecord("cp", "192.0.2.1", "control-plane", {"patience": patience})]
    cluster = Cluster(ClusterRecord("lab", "vagrant", "up", str(tmp_path / "kubeconfig"), nodes, kubectl=str(kubectl)), [])
    assert cluster.kubectl("get", "nodes", check=False).stdout == said
    if not said:
        with pytest.raises(CommandFailed, match="TLS handshake timeout"):
            (tmp_path / "tries").unlink()
            cluster.kubectl("get", "nodes")


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
