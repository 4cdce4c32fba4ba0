"""The receipt of a page: on what its outputs were made."""

from __future__ import annotations

import html
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lab_utils.errors import LabError
from lab_utils.paths import repo_dir
from lab_utils.run import run

if TYPE_CHECKING:
    from lab_utils.cluster import Cluster

# Network add-ons are known by the image of their DaemonSet; there is no other standard way to ask a cluster.
CNI_NAMES = ("flannel", "calico", "cilium", "kindnet", "antrea", "kube-router")


@dataclass(frozen=True)
class Receipt:
    provider: str
    kubernetes: str
    cni: str
    runtime: str
    kernel: str
    machine: str
    date: str
    commit: str

    def lines(self) -> list[tuple[str, str]]:
        return list(asdict(self).items())

    def __str__(self) -> str:
        return as_text(self.lines())

    def _repr_mimebundle_(self, **_: Any) -> dict[str, str]:
        return as_page("Receipt: every output on this page was made by running its code on", self.lines())


def as_text(lines: Sequence[tuple[str, str]]) -> str:
    return "\n".join(f"{key:<11}{value}" for key, value in lines)


def as_page(head: str, lines: Sequence[tuple[str, str]]) -> dict[str, str]:
    """What a notebook shows of a receipt, and of whatever else says where outputs come from."""
    rows = "".join(f"<div><dt>{html.escape(key)}</dt><dd>{html.escape(value)}</dd></div>" for key, value in lines)
    return {"text/html": f'<div class="receipt"><p>{head}</p><dl>{rows}</dl></div>', "text/plain": as_text(lines)}


def receipt(cluster: Cluster | None = None) -> Receipt:
    """Ask the running cluster, and the clock and git of this machine."""
    from lab_utils.cluster import connect

    cluster = cluster or connect()
    nodes = cluster.get("nodes")["items"]
    info = nodes[0]["status"]["nodeInfo"]
    return Receipt(
        provider=f"{cluster.provider}, {len(nodes)} nodes",
        kubernetes=str(info["kubeletVersion"]),
        cni=cni_of(cluster.get("daemonsets", "-A")["items"]),
        runtime=str(info["containerRuntimeVersion"]).replace("://", " "),
        kernel=f"Linux {info['kernelVersion']}",
        machine=str(info["architecture"]),
        date=f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC",
        commit=commit(),
    )


def cni_of(daemonsets: list[dict[str, Any]]) -> str:
    for daemonset in daemonsets:
        for container in daemonset["spec"]["template"]["spec"]["containers"]:
            path, _, version = str(container["image"]).rpartition(":")
            for name in CNI_NAMES:
                if name in path:
                    return f"{name} {version}"
    return "unknown"


def commit() -> str:
    """The commit that the page was built from, or that nobody can say (an unpacked archive has no history)."""
    here: list[str | Path] = ["git", "-c", f"safe.directory={repo_dir()}", "-C", repo_dir()]
    try:
        name = run([*here, "rev-parse", "--short=12", "HEAD"]).stdout.strip()
        changed = run([*here, "status", "--porcelain", "--untracked-files=no"]).stdout.strip()
    except LabError:
        return "unknown (not a git checkout)"
    return f"{name} with local changes" if changed else name
