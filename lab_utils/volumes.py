"""Pods, claims, volumes and the folders behind them: who is bound to whom, as the API says it now.

chains = look(cluster, "book-12")        one for each claim, and one for each volume that no claim has
draw.volumes(chains)                     lab_utils.draw
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lab_utils.cluster import Cluster

SHORT_MODES = {"ReadWriteOnce": "RWO", "ReadOnlyMany": "ROX", "ReadWriteMany": "RWX", "ReadWriteOncePod": "RWOP"}


@dataclass(frozen=True)
class Claim:
    """A PersistentVolumeClaim."""

    name: str
    phase: str
    asks: str  # the size that it asks for
    modes: tuple[str, ...]
    storage_class: str
    leaving: bool = False  # deleted, and held by a finalizer


@dataclass(frozen=True)
class Volume:
    """A PersistentVolume. `nodes` are those that its node affinity admits; none means: any."""

    name: str
    phase: str
    size: str
    modes: tuple[str, ...]
    storage_class: str
    policy: str
    kind: str
    path: str
    nodes: tuple[str, ...]
    leaving: bool = False


@dataclass(frozen=True)
class User:
    """A Pod that mounts a claim."""

    name: str
    node: str
    phase: str


@dataclass(frozen=True)
class Chain:
    users: tuple[User, ...]
    claim: Claim | None
    volume: Volume | None


def look(cluster: Cluster, namespace: str, *, only: str = "") -> list[Chain]:
    """The chains of one namespace, and volumes that nobody has, if their class begins with `only` (or with the namespace's name)."""
    items = {
        kind: cluster.get(*place, kind)["items"]
        for kind, place in (
            ("pods", ("-n", namespace)),
            ("persistentvolumeclaims", ("-n", namespace)),
            ("persistentvolumes", ()),
        )
    }
    return chains(items["pods"], items["persistentvolumeclaims"], items["persistentvolumes"], namespace, only or namespace)


def chains(
    pods: Iterable[Mapping[str, Any]], claims: Iterable[Mapping[str, Any]], volumes: Iterable[Mapping[str, Any]], namespace: str, only: str
) -> list[Chain]:
    by_name = {each["metadata"]["name"]: each for each in volumes}
    users: dict[str, list[User]] = {}
    for pod in pods:
        user = User(pod["metadata"]["name"], pod["spec"].get("nodeName", ""), pod["status"].get("phase", ""))
        for volume in pod["spec"].get("volumes") or []:
            if claim := (volume.get("persistentVolumeClaim") or {}).get("claimName"):
                users.setdefault(claim, []).append(user)
    found = []
    told = set()
    for item in claims:
        claim = read_claim(item)
        bound = item["spec"].get("volumeName", "")
        told.add(bound)
        volume = read_volume(by_name[bound]) if bound in by_name else None
        found.append(Chain(tuple(sorted(users.get(claim.name, []), key=lambda user: user.name)), claim, volume))
    for name, item in by_name.items():
        owner = item["spec"].get("claimRef") or {}
        ours = owner.get("namespace") == namespace or (not owner and item["spec"].get("storageClassName", "").startswith(only))
        if name not in told and ours:
            found.append(Chain((), None, read_volume(item)))
    return sorted(found, key=_order)


def _order(chain: Chain) -> tuple[Any, ...]:
    """By node, so that what lies on one node stands together; claims without a volume come first, volumes without a claim last."""
    volume = chain.volume
    place = volume.nodes if volume else ()
    return (volume is not None, place, chain.claim is None, chain.claim.name if chain.claim else "", volume.name if volume else "")


def read_claim(item: Mapping[str, Any]) -> Claim:
    spec = item["spec"]
    return Claim(
        name=item["metadata"]["name"],
        phase=item["status"].get("phase", ""),
        asks=spec["resources"]["requests"]["storage"],
        modes=short(spec.get("accessModes") or ()),
        storage_class=spec.get("storageClassName", "") or "",
        leaving=bool(item["metadata"].get("deletionTimestamp")),
    )


def read_volume(item: Mapping[str, Any]) -> Volume:
    spec = item["spec"]
    kind = next((kind for kind in ("local", "hostPath", "csi", "nfs") if kind in spec), "other")
    return Volume(
        name=item["metadata"]["name"],
        phase=item["status"].get("phase", ""),
        size=spec["capacity"]["storage"],
        modes=short(spec.get("accessModes") or ()),
        storage_class=spec.get("storageClassName", "") or "",
        policy=spec.get("persistentVolumeReclaimPolicy", ""),
        kind=kind,
        path=str((spec.get(kind) or {}).get("path", "")),
        nodes=nodes_of(spec),
        leaving=bool(item["metadata"].get("deletionTimestamp")),
    )


def nodes_of(spec: Mapping[str, Any]) -> tuple[str, ...]:
    """The host names that a volume's node affinity admits."""
    terms = ((spec.get("nodeAffinity") or {}).get("required") or {}).get("nodeSelectorTerms") or []
    named = {
        value
        for term in terms
        for each in term.get("matchExpressions") or []
        if each["key"] == "kubernetes.io/hostname" and each["operator"] == "In"
        for value in each["values"]
    }
    return tuple(sorted(named))


def short(modes: Sequence[str]) -> tuple[str, ...]:
    return tuple(SHORT_MODES.get(mode, mode) for mode in modes)
