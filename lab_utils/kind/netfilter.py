"""The kernel's br_netfilter, which Services need and Docker no longer loads.

What Pods of one node say to each other over its bridge has to pass kube-proxy's rules, and flannel ends where the kernel has no switch for
that. Docker used to load the module; since 27.3 it does so only when it needs it itself (github.com/moby/moby pull request 48511). A
privileged container that is shown the host's modules may load it: on Linux those of this machine, with Docker Desktop of its own.

The module switches the bridges of every network namespace on. The nodes want that; the host's own bridges are taken out again.
"""

from __future__ import annotations

from collections.abc import Iterable

from lab_utils.cluster import ClusterRecord, Node
from lab_utils.errors import HostLacks
from lab_utils.kind import docker
from lab_utils.progress import Progress

SWITCHES = "/proc/sys/net/bridge/bridge-nf-call-*"
LOAD = f"modprobe br_netfilter && for switch in {SWITCHES}; do echo 0 > $switch; done"
# Somebody who relies on it by now has switched it on again, and nothing counts who does.
UNLOAD = f"grep -qx 1 {SWITCHES} || modprobe -r br_netfilter"
LOADED = "netfilter_loaded"  # in a cluster's record
STANDING_ON_IT = ("kind", "embedded")


def ensure(record: ClusterRecord, node: Node) -> ClusterRecord:
    """Load it where it is missing, as after every start of the machine; the record, which says so before it is done."""
    if node.run(["test", "-e", SWITCHES.replace("*", "iptables")]).ok:
        return record
    record = record.but(options={**record.options, LOADED: True})
    record.save()
    if not (said := docker.docker(*_on_the_host(record.options["image"], LOAD), check=False)).ok:
        raise HostLacks(
            f"the kernel has no br_netfilter, which Services need, and it could not be loaded ({said.stderr.strip() or said.code})",
            "sudo modprobe br_netfilter",
        )
    return record


def unload(record: ClusterRecord, others: Iterable[ClusterRecord], progress: Progress) -> None:
    """By the last of our kind clusters, whichever loaded it. An embedded one beside it needs it, too, and then it stays."""
    needed = any(other.provider in STANDING_ON_IT for other in others if other.name != record.name)
    if not record.options.get(LOADED) or needed:
        return
    if not docker.docker(*_on_the_host(record.options["image"], UNLOAD), check=False).ok:
        progress.note("the kernel module br_netfilter stays loaded: sudo modprobe -r br_netfilter")


def _on_the_host(image: str, script: str) -> list[str]:
    modules = ["--volume", "/lib/modules:/lib/modules:ro"]
    return ["run", "--rm", "--pull", "never", "--privileged", "--network", "host", *modules, "--entrypoint", "sh", image, "-c", script]
