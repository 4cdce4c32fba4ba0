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

PATIENCE = 180  # seconds that a namespace may take to end


def remove(cluster: Cluster, *, addons: bool = False) -> None:
    """Namespaces and objects outside of namespaces that carry one of our labels, and wait until they are gone. What labs did to nodes
    is undone first, while there is still a way to them. With `addons`, what `lab up` gave goes, too."""
    undo(cluster)
    if addons and cluster.record.options.get("network_policy") == "own" == engine_of(cluster):
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

    labs = {item["metadata"]["labels"][LABEL] for item in cluster.get("namespaces", "-l", LABEL)["items"]}
    for name in sorted(labs):
        try:
            files = find_lab(name)
        except BadInput:
            continue
        clean(Workspace(files.spec, files.checks, cluster, learner_id(), Store.of_learner(files.name, cluster.name)))


def ours(cluster: Cluster, labels: Sequence[str] = (LABEL, OURS)) -> list[str]:
    """Namespaces with one of our labels, on their way out or not."""
    said = [cluster.kubectl("get", "namespaces", "-l", label, "-o", "name").stdout.split() for label in labels]
    return sorted({name.removeprefix("namespace/") for names in said for name in names})


__all__ = ["NAMESPACE", "ours", "remove"]
