"""Labs that begin on bare nodes: there is no API yet that could hold a lab's namespace, its mark, or an account for its learner.

    prepared   a file on the control plane's machine says for whom: a restarted kernel finds the learner's work as it was
    removed    by the provider's `reset`: the machines are what they were before anybody came
    the API    is there once the learner has made it. Until then kubectl of the notebook's machine knows no cluster;
               `find_api` takes the administrator's certificate from the node as soon as kubeadm has written one

What comes from such a node was written by whoever has root there. A kubeconfig may name a program to run, another server or files
of this machine (client-go's exec plugins, proxy-url, tokenFile); only the three texts that are certificates and a key are taken from it.
"""

from __future__ import annotations

import base64
import binascii
import json
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import yaml

from lab_utils.cluster import Cluster, Node, known_clusters, load_record
from lab_utils.errors import BadInput, LabError
from lab_utils.labs.spec import LabSpec
from lab_utils.labs.workspace import Workspace
from lab_utils.progress import Silent

MARK = "/etc/kubernetes-inside-out/lab.json"
ADMIN = "/etc/kubernetes/admin.conf"
ADMIN_BYTES = 64 * 1024
# What kubeadm, kubelet and their successors leave on a machine. On a bare one there is none of it.
TRACES = (
    MARK,
    ADMIN,
    "/etc/kubernetes/kubelet.conf",
    "/var/lib/kubelet/config.yaml",
    "/var/lib/etcd/member",
    "/etc/cni/net.d/10-flannel.conflist",
)


def meant(spec: LabSpec, cluster: str | None) -> str | None:
    """Which cluster is meant when none is named: for a lab on bare nodes the one that is bare, whatever else runs."""
    if cluster is None and spec.needs.bare and not any(name in os.environ for name in ("LAB_CLUSTER", "LAB_CLUSTER_FILE")):
        bare = [name for name in known_clusters() if load_record(name).options.get("bare")]
        return bare[0] if len(bare) == 1 else None
    return cluster


def prepare(lab: Workspace, mark: str) -> bool:
    """Make the lab's starting state on bare machines, unless it was made already."""
    control_plane = lab.cluster.nodes[0]
    said = control_plane.run(["cat", MARK]).stdout
    if _mark_of(said) == mark:
        find_api(lab.cluster)
        return False
    if found := traces(lab.cluster.nodes):
        mend = f"Make them bare again: lab reset --name {lab.cluster.name}"
        raise BadInput(f"the nodes of cluster {lab.cluster.name!r} are not bare any more ({found[0]})", mend)
    lab.store.forget_sightings()
    forget_api(lab.cluster)
    if lab.checkset.setup:
        lab.checkset.setup(lab)
    text = json.dumps({"lab": lab.name, "mark": mark}) + "\n"
    control_plane.run(f"mkdir -p $(dirname {MARK}) && cat > {MARK}", input=text, check=True)
    return True


def clean(lab: Workspace) -> None:
    """Bare machines again. Faults need no undoing: what they broke is gone."""
    make_anew(lab)
    for record in lab.store.faults():
        lab.store.remove_fault(record["id"])
    lab.store.forget_sightings()


def make_anew(lab: Workspace) -> None:
    from lab_utils.providers import provider

    lab.cluster.close()
    forget_api(lab.cluster)
    lab.cluster = provider(lab.cluster.provider).reset(lab.cluster.name, Silent())


def leftovers(lab: Workspace) -> list[str]:
    return [*(f"fault/{fault['name']}" for fault in lab.store.faults()), *traces(lab.cluster.nodes)]


def traces(nodes: Iterable[Node]) -> list[str]:
    """What of Kubernetes lies on these machines."""
    script = "".join(f"test -e {path} && echo {path};" for path in TRACES)
    return [f"on {node.name}: {path}" for node in nodes for path in node.run(script).stdout.split() if path in TRACES]


# the API, once there is one


def find_api(cluster: Cluster) -> bool:
    """Let `cluster.kubectl` reach the API that a learner has made, if there is one; returns whether."""
    control_plane = cluster.nodes[0]
    try:
        said = control_plane.run(["head", "-c", str(ADMIN_BYTES), ADMIN], timeout=20)
        text = kubeconfig(said.stdout, control_plane.ip, cluster.name) if said.ok else ""
    except LabError:
        text = ""
    _write(cluster.kubeconfig, text)
    cluster.__dict__.pop("client", None)  # made from the kubeconfig when first asked for
    cluster.__dict__.pop("api", None)
    return bool(text)


def forget_api(cluster: Cluster) -> None:
    _write(cluster.kubeconfig, "")


def kubeconfig(text: str, address: str, name: str) -> str:
    """A kubeconfig with the certificates and the key of another one, and nothing else of it; "" when it does not hold them. Pure."""
    try:
        data = yaml.safe_load(text)
        cluster, user = data["clusters"][0]["cluster"], data["users"][0]["user"]
        taken = [
            pem(cluster["certificate-authority-data"], "CERTIFICATE"),
            pem(user["client-certificate-data"], "CERTIFICATE"),
            pem(user["client-key-data"], "PRIVATE KEY"),
        ]
    except (yaml.YAMLError, RecursionError, LookupError, TypeError, ValueError):
        return ""
    config: dict[str, Any] = {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": "bare", "cluster": {"server": f"https://{address}:6443", "certificate-authority-data": taken[0]}}],
        "users": [{"name": "admin", "user": {"client-certificate-data": taken[1], "client-key-data": taken[2]}}],
        "contexts": [{"name": f"{name}-admin", "context": {"cluster": "bare", "user": "admin"}}],
        "current-context": f"{name}-admin",
    }
    return str(yaml.safe_dump(config, sort_keys=False))


def pem(data: Any, kind: str) -> str:
    """The base64 of a PEM text of that kind, or `ValueError`."""
    if not isinstance(data, str):
        raise ValueError("no text")
    try:
        decoded = base64.b64decode(data, validate=True).decode("ascii").strip()
    except binascii.Error as error:
        raise ValueError("no base64") from error
    if not (decoded.startswith("-----BEGIN ") and decoded.endswith(f"{kind}-----")):
        raise ValueError(f"no {kind}")
    return base64.b64encode(decoded.encode() + b"\n").decode()


def _write(path: Path, text: str) -> None:
    if path.parent.is_dir():
        path.touch(mode=0o600)
        path.write_text(text)


def _mark_of(text: str) -> str:
    try:
        return str(json.loads(text)["mark"])
    except (ValueError, LookupError, TypeError):
        return ""
