"""What labs and this package made on somebody's cluster, told apart from everything else by its labels."""

from __future__ import annotations

import time
from collections.abc import Sequence

from lab_utils import network_policy
from lab_utils.cluster import Cluster, manifest_text
from lab_utils.errors import BadInput, Unhealthy
from lab_utils.given import GIVEN, in_namespaces, kinds
from lab_utils.kubeconfig.access import NAMESPACE, OURS, forget_made
from lab_utils.labs.workspace import LABEL
from lab_utils.network_policy import engine_of
from lab_utils.progress import Progress

PATIENCE = 180  # seconds that a namespace may take to end


def remove(cluster: Cluster, *, addons: bool = False) -> None:
    """Namespaces and objects outside of namespaces that carry one of our labels, and wait until they are gone. What labs did to nodes
    is undone first, while there is still a way to them. With `addons`, what `lab up` gave goes, too."""
    undo(cluster)
    if addons and _has_our_engine(cluster):
        network_policy.remove(cluster)  # with its rules, which would stay on the nodes
    if addons and (given := in_namespaces(cluster)):
        cluster.kubectl("delete", "-f", "-", "--ignore-not-found", "--wait=false", input=manifest_text(given))
    labels = (LABEL, OURS, *([GIVEN] if addons else []))
    listed = ",".join(kind for kind in kinds(cluster, namespaced=False) if kind != "nodes")
    for label in labels:
        # Kinds that this user may not list hold nothing that this user made.
        found = cluster.kubectl("get", listed, "-l", label, "-o", "name", check=False).stdout.split()
        if found:
            cluster.kubectl("delete", *found, "--wait=false", "--ignore-not-found")
    deadline = time.monotonic() + PATIENCE
    while left := ours(cluster, labels):
        if time.monotonic() > deadline:
            raise Unhealthy(f"these namespaces do not end: {', '.join(left)}", f"See `kubectl describe namespace {left[0]}`")
        time.sleep(0.5)
    forget_made(cluster.record)


def undo(cluster: Cluster) -> None:
    """Each lab that is prepared there knows how to clean up after itself. Of one that is not of this checkout, the objects go."""
    from lab_utils.labs.catalog import find_lab
    from lab_utils.labs.lifecycle import clean
    from lab_utils.labs.store import Store, learner_id
    from lab_utils.labs.workspace import Workspace

    for name in labs_on(cluster):
        try:
            files = find_lab(name)
        except BadInput:
            continue
        clean(Workspace(files.spec, files.checks, cluster, learner_id(), Store.of_learner(files.name, cluster.name)))


def close_nodes(cluster: Cluster, progress: Progress) -> None:
    """Give up the way to the nodes, and remove the Pods that it led through. Refused while something on the nodes can be undone by that
    way alone."""
    name = cluster.name
    if _has_our_engine(cluster):
        raise BadInput(
            f"the engine own, which cluster {name!r} was given, has rules on its nodes, and without access to them they would stay there",
            f"Leave --node-access as it is; `lab down --name {name}` removes the engine, its rules and the access",
        )
    if labs := [lab for lab in labs_on(cluster) if _changes_nodes(lab)]:
        raise BadInput(
            f"the lab {labs[0]} is on cluster {name!r} and may have changed its nodes; without access to them that could not be undone",
            f"End it first: lab reset --name {name} {labs[0]}",
        )
    with progress.step("Removing the Pods that reach its nodes"):
        cluster.kubectl("delete", "namespace", NAMESPACE, "--ignore-not-found", f"--timeout={PATIENCE}s", timeout=PATIENCE + 20)
    forget_made(cluster.record)


def _has_our_engine(cluster: Cluster) -> bool:
    """The one of lab 11, given by `lab up`: it writes rules on nodes, and takes them away only when it is told to."""
    return cluster.record.options.get("network_policy") == "own" == engine_of(cluster)


def labs_on(cluster: Cluster) -> list[str]:
    """Those that are prepared there."""
    return sorted({item["metadata"]["labels"][LABEL] for item in cluster.get("namespaces", "-l", LABEL)["items"]})


def _changes_nodes(lab: str) -> bool:
    """Of a lab that is not of this checkout nobody knows how to undo it, with access or without."""
    from lab_utils.labs.catalog import find_lab

    try:
        return find_lab(lab).spec.needs.access == "change"
    except BadInput:
        return False


def ours(cluster: Cluster, labels: Sequence[str] = (LABEL, OURS)) -> list[str]:
    """Namespaces with one of our labels, on their way out or not."""
    said = [cluster.kubectl("get", "namespaces", "-l", label, "-o", "name").stdout.split() for label in labels]
    return sorted({name.removeprefix("namespace/") for names in said for name in names})


__all__ = ["NAMESPACE", "close_nodes", "ours", "remove"]
