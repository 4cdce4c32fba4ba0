"""A lab's life on a cluster: what it needs, its starting state, and the way back to nothing.

The cluster itself says whether a lab is prepared: its first namespace carries an annotation. So a restarted
kernel finds the learner's work as it was, and a lab whose namespace is gone is prepared anew.

Everything that belongs to a lab is in its namespaces, or carries the label kubernetes-inside-out/lab=NN-topic.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import partial
from typing import Any

import yaml

from lab_utils.addons import images_on_every_node, makes_volumes, serves_ingress, serves_metrics
from lab_utils.cluster import Cluster
from lab_utils.errors import BadInput, LabError, NoNodeAccess, Unhealthy
from lab_utils.faults import undo_all
from lab_utils.labs import bare
from lab_utils.labs.reach import absent, named_so
from lab_utils.labs.spec import LabSpec
from lab_utils.labs.workspace import LABEL, Workspace
from lab_utils.network_policy import keeper_of

PREPARED = "kubernetes-inside-out/prepared"
NAMESPACE_SECONDS = 45  # seconds that a namespace may take to end by itself before finalizers are taken off its objects


def missing_needs(spec: LabSpec, cluster: Cluster) -> list[str]:
    """What the lab needs and this cluster lacks, in words. Which steps that costs, lost_steps (reach.py) says."""
    needs = spec.needs
    lacking = []
    if len(cluster.workers) < needs.workers:
        lacking.append(f"{needs.workers} workers (there are {len(cluster.workers)})")
    if gone := absent(spec.names, cluster):
        lacking.append(f"{named_so(gone)} (there are {_names_of(cluster)})")
    if needs.access != "none":
        lacking += _missing_access(cluster)
    no_access = any(each.startswith("access to") for each in lacking)
    if needs.bare and not cluster.record.options.get("bare"):
        lacking.append("bare nodes, on which nothing of Kubernetes runs (`lab up --bare`)")
    if cluster.record.options.get("bare"):  # there is no API to ask for the rest
        return lacking if needs.bare else [*lacking, "a cluster in which Kubernetes runs (the nodes of this one are bare)"]
    if needs.devices and cluster.record.options.get("guarded"):
        lacking.append("block devices (nodes of `lab up --guarded` have none)")
    if needs.proxy and (mode := proxy_mode(cluster)) != needs.proxy:
        lacking.append(f"kube-proxy in {needs.proxy} mode (it is in {mode} mode)")
    if needs.network_policy == "none" and (keeper := keeper_of(cluster)):
        lacking.append(f"a cluster in which nobody keeps NetworkPolicies (here: {keeper}; a new cluster has nobody)")
    up = f"`lab up --name {cluster.name} --for {spec.name}`"
    if needs.metrics and not serves_metrics(cluster):
        lacking.append(f"metrics-server ({up})")
    if needs.storage and not makes_volumes(cluster):
        lacking.append(f"somebody who makes volumes for claims ({up})")
    if needs.ingress and not serves_ingress(cluster):
        lacking.append(f"an ingress controller, Contour ({up})")
    if needs.images and not no_access and (images := sorted(set(needs.images) - images_on_every_node(cluster))):
        lacking.append(f"the images {', '.join(images)} ({up})")
    return lacking


def _names_of(cluster: Cluster) -> str:
    return ", ".join(node.name for node in cluster.nodes)


def _missing_access(cluster: Cluster) -> list[str]:
    lacking = []
    for node in cluster.nodes:
        try:
            answers = node.run(["true"], timeout=20).ok
        except NoNodeAccess:
            return ["access to its nodes"]
        except LabError:
            answers = False
        if not answers:
            lacking.append(f"access to the node {node.name}")
    return lacking


def proxy_mode(cluster: Cluster) -> str:
    text = cluster.kubectl("-n", "kube-system", "get", "configmap", "kube-proxy", "--ignore-not-found", "-o", "json").stdout
    if not text.strip():
        return "unknown"
    config = yaml.safe_load(json.loads(text)["data"].get("config.conf", "")) or {}
    return str(config.get("mode") or "iptables")  # empty means the default, which on Linux is iptables


def need_names(lab: Workspace) -> None:
    """Refuse a lab that calls nodes by name in every step where none of the nodes is called so."""
    if gone := absent(lab.spec.needs.names, lab.cluster):
        raise BadInput(
            f"lab {lab.name} speaks of {named_so(gone)} in every step, and cluster {lab.cluster.name!r} has {_names_of(lab.cluster)}",
            f"Do it on a cluster that `lab` makes: `lab up --name NAME --for {lab.name}`",
        )


def prepare(lab: Workspace) -> bool:
    """Make the lab's starting state, unless it was made already; returns whether it had to."""
    need_names(lab)
    mark = _mark(lab)
    with _locked(lab):
        if lab.spec.needs.bare:
            return bare.prepare(lab, mark)
        found = _namespaces(lab)
        first = found.get(lab.namespace)
        said = first["metadata"].get("annotations", {}).get(PREPARED) if first else None
        if said == mark and set(lab.namespaces) <= set(found):
            return False
        if foreign := [name for name, each in found.items() if each["metadata"].get("labels", {}).get(LABEL) != lab.name]:
            raise BadInput(
                f"the namespace {foreign[0]} exists and is not this lab's",
                f"Look into it, then remove it: kubectl delete namespace {foreign[0]}",
            )
        if said is not None or lab.store.faults():
            _clean(lab)  # prepared for another learner or by another version of the lab, or half gone
        lab.store.forget_sightings()
        for name in lab.namespaces:
            lab.cluster.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": {LABEL: lab.name}}})
        for name in lab.namespaces:  # a Pod is refused until its namespace's ServiceAccount exists
            has_account = partial(lab.find, "serviceaccount", "default", name)
            lab.cluster.wait(has_account, timeout=60, why=f"{name} got no ServiceAccount")
        for thing in setup_objects(lab):
            lab.cluster.apply(thing, None if thing["metadata"].get("namespace") else lab.namespace)
        if lab.checkset.setup:
            with suppress(NoNodeAccess):  # what it would do on nodes serves the steps that are lost with them
                lab.checkset.setup(lab)
        lab.cluster.kubectl("annotate", "namespace", lab.namespace, f"{PREPARED}={mark}", "--overwrite")
    return True


def setup_objects(lab: Workspace) -> list[dict[str, Any]]:
    """What of setup.yaml is made: all, but for what would wait for ever for a node that some steps name and this cluster does not have."""
    gone = absent(lab.spec.names, lab.cluster)
    return [each for each in _given(lab) if _home(each) not in gone]


def left_out(lab: Workspace) -> list[str]:
    """What of setup.yaml is not made, as kind/name. Only steps that are skipped ask for it."""
    gone = absent(lab.spec.names, lab.cluster)
    return [f"{each['kind'].lower()}/{each['metadata']['name']}" for each in (_given(lab) if gone else []) if _home(each) in gone]


def _home(thing: dict[str, Any]) -> str:
    """The node that an object's Pods must be on; "" for any."""
    spec = thing.get("spec") or {}
    pod = spec if thing.get("kind") == "Pod" else (spec.get("template") or {}).get("spec") or {}
    return str(pod.get("nodeName") or (pod.get("nodeSelector") or {}).get("kubernetes.io/hostname", ""))


def _given(lab: Workspace) -> list[dict[str, Any]]:
    """What setup.yaml says, with the learner's parameters, each object labelled as the lab's."""
    path = lab.checkset.path.parent / "setup.yaml"
    if not path.is_file():
        return []
    try:
        objects = [each for each in yaml.safe_load_all(lab.fill(path.read_text(encoding="utf-8"))) if each]
    except yaml.YAMLError as error:
        raise BadInput(f"{path} is not YAML ({' '.join(str(error).split())})") from None
    for each in objects:
        each.setdefault("metadata", {}).setdefault("labels", {})[LABEL] = lab.name
    return objects


def clean(lab: Workspace) -> None:
    """Undo the lab's faults and remove everything of it from the cluster."""
    with _locked(lab):
        (bare.clean if lab.spec.needs.bare else _clean)(lab)


def _clean(lab: Workspace) -> None:
    undo_all(lab)
    if lab.checkset.cleanup:
        # Nothing was made where nodes are out of reach. And a node that had the name when the lab was opened may have gone since.
        with suppress(NoNodeAccess, *([BadInput] if absent(lab.spec.names, lab.cluster) else [])):
            lab.checkset.cleanup(lab)
    cluster = lab.cluster
    names = [name for name, each in _namespaces(lab).items() if each["metadata"].get("labels", {}).get(LABEL) == lab.name]
    if names:
        cluster.kubectl("delete", "namespace", *names, "--wait=false", "--ignore-not-found")
        for name in names:  # a terminating namespace takes no new Pods; those that ignore SIGTERM need not take their 30 s
            cluster.kubectl("-n", name, "delete", "pods", "--all", "--grace-period=1", "--wait=false", check=False)
    if owned := _cluster_wide(lab):
        cluster.kubectl("delete", *owned, "--wait=false", "--ignore-not-found")
    for name in names:
        if not _ends(cluster, name, NAMESPACE_SECONDS):
            _take_off_finalizers(cluster, name)
            if not _ends(cluster, name, 60):
                raise Unhealthy(f"the namespace {name} does not end", f"See `kubectl describe namespace {name}`")
    lab.store.forget_sightings()


def leftovers(lab: Workspace) -> list[str]:
    """What of the lab is still there: for tests, and for a grader that starts each submission from nothing."""
    if lab.spec.needs.bare:
        return bare.leftovers(lab)
    faults = [f"fault/{fault['name']}" for fault in lab.store.faults()]
    return [*faults, *(f"namespace/{name}" for name in _namespaces(lab)), *_cluster_wide(lab)]


def _namespaces(lab: Workspace) -> dict[str, dict[str, Any]]:
    """The namespaces that are the lab's, by name or by label."""
    items = lab.cluster.get("namespaces")["items"]
    return {
        each["metadata"]["name"]: each
        for each in items
        if each["metadata"]["name"] in lab.namespaces or each["metadata"].get("labels", {}).get(LABEL) == lab.name
    }


def _cluster_wide(lab: Workspace) -> list[str]:
    """Objects outside of namespaces that carry the lab's label, as kind/name."""
    kinds = lab.cluster.kubectl("api-resources", "--namespaced=false", "--verbs=list,delete", "-o", "name").stdout.split()
    kinds = [kind for kind in kinds if kind not in ("namespaces", "nodes")]
    return lab.cluster.kubectl("get", ",".join(kinds), "-l", f"{LABEL}={lab.name}", "-o", "name").stdout.split()


def _ends(cluster: Cluster, namespace: str, seconds: float) -> bool:
    deadline = time.monotonic() + seconds * cluster.patience
    while time.monotonic() < deadline:
        if not cluster.kubectl("get", "namespace", namespace, "--ignore-not-found", "-o", "name").stdout.strip():
            return True
        time.sleep(0.5)
    return False


def _take_off_finalizers(cluster: Cluster, namespace: str) -> None:
    """Objects in this namespace wait for a finalizer that nobody serves. The namespace is going; so may they."""
    kinds = cluster.kubectl("api-resources", "--namespaced=true", "--verbs=list,patch", "-o", "name").stdout.split()
    listed = cluster.kubectl("-n", namespace, "get", ",".join(kinds), "-o", "json", check=False).stdout
    for item in json.loads(listed or '{"items": []}')["items"]:
        if item["metadata"].get("finalizers"):
            kind = f"{item['kind']}.{item['apiVersion'].partition('/')[0]}" if "/" in item["apiVersion"] else item["kind"]
            patch = ["patch", kind, item["metadata"]["name"], "--type=merge", "-p", '{"metadata":{"finalizers":null}}']
            cluster.kubectl("-n", namespace, *patch, check=False)


def _mark(lab: Workspace) -> str:
    """For whom and from what the starting state was made. The setup function's text is not part of it: it may be edited while one works."""
    what = json.dumps([lab.name, lab.learner, lab.params, setup_objects(lab)], sort_keys=True, default=str)
    return hashlib.sha256(what.encode()).hexdigest()[:16]


@contextmanager
def _locked(lab: Workspace) -> Iterator[None]:
    """One preparation at a time: a notebook and a terminal may ask at the same moment. The kernel lets go of it if we die."""
    folder = lab.store.cluster_folder
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
