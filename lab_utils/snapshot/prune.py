"""Which fields of API objects a snapshot keeps. Everything else is dropped, so nothing secret can slip in.

Annotations are dropped whole: `kubectl apply` keeps a copy of the manifest there, with every environment variable.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

# A tree of names: True keeps the value as it is, a dict goes on below (through lists too).
Tree = dict[str, Any]

METADATA: Tree = {
    "name": True,
    "namespace": True,
    "uid": True,
    "labels": True,
    "ownerReferences": {"kind": True, "name": True, "controller": True},
}

KEEP: dict[str, Tree] = {
    "Pod": {
        "metadata": METADATA,
        "spec": {
            "nodeName": True,
            "hostNetwork": True,
            "containers": {"name": True, "image": True, "ports": True},
        },
        "status": {
            "phase": True,
            "podIP": True,
            "podIPs": True,
            "hostIP": True,
            "qosClass": True,
            "containerStatuses": {"name": True, "containerID": True, "ready": True, "restartCount": True},
        },
    },
    "Service": {"metadata": METADATA, "spec": True, "status": True},
    "EndpointSlice": {"metadata": METADATA, "addressType": True, "endpoints": True, "ports": True},
    "Node": {
        "metadata": METADATA,
        "spec": {"podCIDR": True, "podCIDRs": True, "taints": True},
        "status": {"addresses": True, "nodeInfo": True},
    },
}

# crictl shows a Pod's annotations too.
CRICTL: Tree = {
    "items": {"id": True, "metadata": True, "state": True, "createdAt": True, "labels": True, "runtimeHandler": True},
    "containers": {
        "id": True,
        "podSandboxId": True,
        "metadata": True,
        "image": True,
        "imageRef": True,
        "state": True,
        "createdAt": True,
        "labels": True,
    },
}


def prune(thing: Any, tree: Tree) -> Any:
    if isinstance(thing, list):
        return [prune(item, tree) for item in thing]
    if not isinstance(thing, Mapping):
        return thing
    return {key: value if tree[key] is True else prune(value, tree[key]) for key, value in thing.items() if key in tree}


def prune_object(thing: Mapping[str, Any]) -> Mapping[str, Any]:
    """One API object with only the fields that are kept. A kind that is not listed is not kept at all."""
    kind = str(thing.get("kind", ""))
    if kind not in KEEP:
        raise ValueError(f"a snapshot holds no {kind or 'object without kind'}")
    return {"kind": kind, **prune(thing, KEEP[kind])}
