"""The driver on a cluster: its objects, its code in a ConfigMap, and the way back to nothing.

    install(cluster, "book-13", "disks.book-13.example")
    remove(cluster, "book-13", "disks.book-13.example")

The driver's name is also that of its folder on each node, below /var/lib. Two drivers of different names know nothing of each other.
"""

from __future__ import annotations

import ast
import base64
import json
import textwrap
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from lab_utils.artifacts.versions import pinned
from lab_utils.cluster import Cluster
from lab_utils.csi import recording
from lab_utils.embedded.kubeadm import manifest

CODE = Path(__file__).parent
IN_PODS = ("__init__.py", "protocol.py", "disks.py", "driver.py", "registrar.py", "attacher.py", "student.py")
IMAGES = tuple(pinned().image(name).name for name in ("csi", "csi-provisioner", "csi-resizer"))
NONE: Mapping[str, str] = {}
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


def objects(
    namespace: str,
    driver: str,
    storage_class: str,
    *,
    module: str = "csi.driver",
    snapshots: bool = False,
    labels: Mapping[str, str] = NONE,
) -> list[dict[str, Any]]:
    keys = ("csi", "csi-provisioner", "csi-resizer", "csi-snapshotter", "snapshot-controller")
    images = {key.replace("-", "_").upper(): pinned().image(key).name for key in keys}
    values = {"NAMESPACE": namespace, "DRIVER": driver, "CLASS": storage_class, "MODULE": module, **images}
    parts = ("csi-snapshot-crds", "csi", "csi-snapshots") if snapshots else ("csi",)
    found = [code(), *(each for part in parts for each in yaml.safe_load_all(manifest(part, **values)))]
    if not snapshots:
        daemons = next(each for each in found if each["kind"] == "DaemonSet")["spec"]["template"]["spec"]
        daemons["containers"] = [each for each in daemons["containers"] if each["name"] != "snapshotter"]
    for each in found:
        each["metadata"].setdefault("labels", {}).update({"csi-driver": driver, **labels})
    return found


def install(cluster: Cluster, namespace: str, driver: str, storage_class: str, **options: Any) -> None:
    """Bring the driver up on every worker, and wait until the kubelets know it."""
    for each in objects(namespace, driver, storage_class, **options):
        cluster.apply(each, None if each["metadata"].get("namespace") else namespace)
        if each["kind"] == "CustomResourceDefinition":
            cluster.wait(f"crd/{each['metadata']['name']} condition=Established")
    started(cluster, namespace)


def started(cluster: Cluster, namespace: str) -> None:
    """Its Pods are ready when the kubelets know the driver: the registrar's startup probe sees to that."""
    cluster.kubectl("-n", namespace, "rollout", "status", "daemonset/csi", "--timeout=180s", timeout=200)


def restart(cluster: Cluster, namespace: str) -> None:
    """With the code that is in the ConfigMaps now. What is mounted stays mounted."""
    cluster.kubectl("-n", namespace, "delete", "pods", "-l", "app=csi", "--wait=true", "--timeout=60s")
    started(cluster, namespace)


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
    # The kubelet labels its node with what NodeGetInfo says of its place, and never takes that away.
    cluster.kubectl("label", "nodes", "--all", f"{driver}/node-")


def ask(cluster: Cluster, namespace: str, node: str, *calls: tuple[str, dict[str, Any]]) -> list[tuple[str, dict[str, Any]]]:
    """Call the driver on a node oneself, as a sidecar would: ("Node/NodeGetInfo", {}). The answers, each with its code."""
    said = cluster.kubectl(
        "-n", namespace, "exec", pods(cluster, namespace)[node], "-c", "driver", "--", "python3", "-c", ASK, json.dumps(calls)
    )
    return [(code, answer) for code, answer in json.loads(said.stdout)]


ASK = """
import json, sys
from pathlib import Path
from csi.protocol import Refused, call
def ask(method, request):
    try:
        return "OK", call(Path("/sockets/kubelet.sock"), method, request)
    except Refused as refused:
        return refused.code, {"why": refused.why}
print(json.dumps([ask(*each) for each in json.loads(sys.argv[1])]))
"""


def log(cluster: Cluster, namespace: str) -> list[recording.Call]:
    """What the drivers of all nodes have recorded since they were started."""
    found = []
    for node, pod in pods(cluster, namespace).items():
        found += recording.calls(cluster.kubectl("-n", namespace, "logs", pod, "-c", "driver").stdout, node)
    return sorted(found, key=lambda call: call.at)


def source(file: str, name: str) -> str:
    """The text of a class, a function, or a method ("Node.NodeStageVolume") of what runs in the Pods."""
    text = (CODE / file).read_text(encoding="utf-8")
    here: Any = ast.parse(text)
    for part in name.split("."):
        here = next(each for each in here.body if getattr(each, "name", "") == part)
    first = min([here.lineno, *(decorator.lineno for decorator in here.decorator_list)])
    return textwrap.dedent("\n".join(text.splitlines()[first - 1 : here.end_lineno]))
