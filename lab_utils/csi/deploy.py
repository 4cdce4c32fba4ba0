"""The driver on a cluster: its objects, its code in a ConfigMap, and the way back to nothing.

    install(cluster, "book-13", "disks.book-13.example")
    remove(cluster, "book-13", "disks.book-13.example")

The driver's name is also that of its folder on each node, below /var/lib. Two drivers of different names know nothing of each other.
"""

from __future__ import annotations

import base64
from pathlib import Path
from typing import Any

import yaml

from lab_utils.artifacts.versions import pinned
from lab_utils.cluster import Cluster
from lab_utils.embedded.kubeadm import manifest

CODE = Path(__file__).parent
IN_PODS = ("__init__.py", "protocol.py", "disks.py", "driver.py", "registrar.py", "attacher.py", "student.py")
IMAGES = tuple(pinned().image(name).name for name in ("csi", "csi-provisioner", "csi-resizer"))
SNAPSHOT_IMAGES = tuple(pinned().image(name).name for name in ("csi-snapshotter", "snapshot-controller"))


def code() -> dict[str, Any]:
    """The package `csi`, as a ConfigMap."""
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": "csi"},
        "data": {name: (CODE / name).read_text(encoding="utf-8") for name in IN_PODS},
        "binaryData": {"csi.binpb": base64.b64encode((CODE / "csi.binpb").read_bytes()).decode()},
    }


def objects(namespace: str, driver: str, storage_class: str, module: str = "csi.driver", snapshots: bool = False) -> list[dict[str, Any]]:
    keys = ("csi", "csi-provisioner", "csi-resizer", "csi-snapshotter", "snapshot-controller")
    images = {key.replace("-", "_").upper(): pinned().image(key).name for key in keys}
    values = {"NAMESPACE": namespace, "DRIVER": driver, "CLASS": storage_class, "MODULE": module, **images}
    parts = ("csi-snapshot-crds", "csi", "csi-snapshots") if snapshots else ("csi",)
    found = [code(), *(each for part in parts for each in yaml.safe_load_all(manifest(part, **values)))]
    if not snapshots:
        daemons = next(each for each in found if each["kind"] == "DaemonSet")["spec"]["template"]["spec"]
        daemons["containers"] = [each for each in daemons["containers"] if each["name"] != "snapshotter"]
    for each in found:
        each["metadata"].setdefault("labels", {})["csi-driver"] = driver
    return found


def install(
    cluster: Cluster, namespace: str, driver: str, storage_class: str, *, module: str = "csi.driver", snapshots: bool = False
) -> None:
    """Bring the driver up on every worker, and wait until the kubelets know it."""
    for each in objects(namespace, driver, storage_class, module, snapshots):
        cluster.apply(each, None if each["metadata"].get("namespace") else namespace)
        if each["kind"] == "CustomResourceDefinition":
            cluster.wait(f"crd/{each['metadata']['name']} condition=Established")
    known(cluster, driver)


def known(cluster: Cluster, driver: str, timeout: float = 120) -> None:
    """Wait until the CSINode object of every worker names the driver."""

    def everywhere() -> bool:
        items = cluster.get("csinodes")["items"]
        having = {each["metadata"]["name"] for each in items if driver in [one["name"] for one in each["spec"].get("drivers") or []]}
        return {node.name for node in cluster.workers} <= having

    cluster.wait(everywhere, timeout=timeout, why=f"the kubelets do not know the driver {driver}")


def pods(cluster: Cluster, namespace: str) -> dict[str, str]:
    """The driver's Pod on each node."""
    items = cluster.get("-n", namespace, "pods", "-l", "app=csi")["items"]
    return {each["spec"]["nodeName"]: each["metadata"]["name"] for each in items if not each["metadata"].get("deletionTimestamp")}


def remove(cluster: Cluster, namespace: str, driver: str) -> None:
    """Everything that belongs to no namespace, and the disks. Claims and Pods that use them must be gone before."""
    kinds = "csidrivers,storageclasses,clusterroles,clusterrolebindings,customresourcedefinitions"
    cluster.kubectl("-n", namespace, "delete", "daemonset/csi", "--ignore-not-found", "--timeout=60s", check=False)
    cluster.kubectl("delete", kinds, "-l", f"csi-driver={driver}", "--ignore-not-found")
    for node in cluster.workers:
        node.run(f"rm -rf /var/lib/{driver} /var/lib/kubelet/plugins/{driver} /var/lib/kubelet/plugins_registry/{driver}-reg.sock")
