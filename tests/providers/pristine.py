"""What a cluster holds, to be compared before and after a reset."""

from __future__ import annotations

from typing import Any

from lab_utils.cluster import Cluster

# Objects that come and go by themselves: events, leases (renewed) and, as time passes, requests for certificates (collected after an hour).
RESTLESS = {"events", "events.events.k8s.io", "leases.coordination.k8s.io"}
COLLECTED = {"certificatesigningrequests.certificates.k8s.io"}


def everything(cluster: Cluster, *, exactly: bool = False) -> set[str]:
    """Every object of the cluster by kind, namespace and name; of names that Kubernetes makes up, the part that it does not.

    A provider whose reset makes the cluster anew brings back the same Deployment, and Pods of it with other names. `exactly`: the names
    as they are, and requests for certificates, too; so it is where a reset puts back what etcd held."""
    kinds = set(cluster.kubectl("api-resources", "--verbs=list", "-o", "name").stdout.split()) - RESTLESS
    if not exactly:
        kinds -= COLLECTED
    items: list[dict[str, Any]] = cluster.get(",".join(sorted(kinds)), "-A")["items"]
    return {
        f"{item['kind']}/{meta.get('namespace', '')}/{(not exactly and meta.get('generateName')) or meta['name']}"
        for item in items
        if (meta := item["metadata"])
    }
