"""Grading on bare nodes: every submission gets machines that nobody has touched, and root on them.

    before each   the machines are made anew by their provider, fenced in, and brought to the lab's starting state
    a student     gets a key for root on every node, and no other way: there is no API yet, and no account in it
    a check       looks with the nodes' own programs, and with the grader's own kubectl (lab_utils.labs.bare)
    at the end    the machines are made anew once more

Who has root on a machine can make it say anything. A check that a node's own `ps` answers can be lied to by a student who replaces
`ps`; one that sends a packet, or reads back what the API server has just been given, takes a working cluster to deceive. That is why
checks of such labs end in something that works. What root must not do is reach beyond the machine. On virtual machines the hypervisor
sees to that; on embedded nodes a user namespace does (lab_utils.embedded.guard), and without one a grader refuses to give root away.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from lab_utils.cluster import Cluster, connect
from lab_utils.errors import HostLacks, LabError
from lab_utils.grading import access
from lab_utils.grading.arena import Access
from lab_utils.grading.sandbox import HOME
from lab_utils.labs.lifecycle import clean, prepare
from lab_utils.labs.workspace import Workspace
from lab_utils.progress import Silent


class BareArena:
    """Machines made anew around each submission (an arena.Arena)."""

    def __init__(self, name: str) -> None:
        self.cluster = connect(name)

    def enter(self, lab: Workspace) -> Access:
        lab.cluster = self.cluster
        clean(lab)
        self.cluster = lab.cluster
        access.fence(self.cluster, True)  # a provider that makes machines anew takes the fence down
        refuse_without_walls(self.cluster)
        prepare(lab)
        return give(self.cluster)

    def leave(self, lab: Workspace) -> list[str]:
        """Whatever was done to the machines is gone when the next submission enters."""
        self.cluster.close()
        return []


def give(cluster: Cluster) -> Access:
    """Root on every node. A notebook's kubectl works, and knows no cluster."""
    empty = f"{HOME}/.kube/config"
    record = replace(cluster.record, kubeconfig=empty, kubectl=access.KUBECTL, options={"bare": True})
    given = access.give_nodes(cluster, record, everything=True)
    given.shown[access.KUBECTL_PROGRAM] = access.kubectl(cluster)
    given.files |= {empty: "apiVersion: v1\nkind: Config\n", access.KUBECTL: access.KUBECTL_TEXT}
    return given


def begin(cluster: Cluster) -> dict[str, Any]:
    """Before the first submission. There is no state to compare with later: machines are not mended, they are made anew."""
    refuse_without_walls(cluster)
    return {}


def end(cluster: Cluster) -> None:
    """After the last one. A provider's reset takes down the fence as well."""
    from lab_utils.providers import provider

    provider(cluster.provider).reset(cluster.name, Silent()).close()


def refuse_without_walls(cluster: Cluster) -> None:
    """Embedded nodes share this machine's kernel: root on one is root here, unless it lives in a user namespace."""
    if cluster.provider != "embedded":
        return
    try:
        mapped = cluster.nodes[0].run(["cat", "/proc/self/uid_map"], check=True).stdout.split()
    except LabError:
        mapped = []
    if len(mapped) < 3 or mapped[1] == "0":
        raise HostLacks(
            f"root on the nodes of cluster {cluster.name!r} would be root of this machine",
            f"Make it anew, with user namespaces: lab down --name {cluster.name}; lab up --bare --guarded --name {cluster.name}",
        )
