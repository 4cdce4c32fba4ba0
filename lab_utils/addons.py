"""What a cluster gets only when somebody asks for it. Its images are fetched or built at that moment.

What was given is written into the cluster's record, so that a reset brings it back.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from lab_utils.artifacts.versions import pinned
from lab_utils.cluster import Cluster
from lab_utils.embedded.kubeadm import manifest
from lab_utils.given import put
from lab_utils.imagepull import archive, on_every_node, pull
from lab_utils.network_policy import engine_of
from lab_utils.network_policy import install as install_engine
from lab_utils.progress import Progress

PROVISIONER = "rancher.io/local-path"


def give(
    cluster: Cluster,
    progress: Progress,
    *,
    metrics: bool = False,
    storage: bool = False,
    ingress: bool = False,
    images: Iterable[str] = (),
    network_policy: str = "",
) -> None:
    """Whatever of this the cluster does not have yet. Each is written down when it is there: what could not be given (no registry, a kernel
    that lacks something) is not asked for again by the next `up`."""
    if metrics:
        if not serves_metrics(cluster):
            install_metrics_server(cluster, progress)
        _write_down(cluster, metrics_server=True)
    if storage:
        if not makes_volumes(cluster):
            install_local_path_provisioner(cluster, progress)
        _write_down(cluster, storage=True)
    if ingress:
        if not serves_ingress(cluster):
            install_contour(cluster, progress)
        _write_down(cluster, ingress=True)
    if network_policy:
        if engine_of(cluster) != network_policy:
            install_engine(cluster, network_policy, progress)
        _write_down(cluster, network_policy=network_policy)
    if wanted := set(images):
        for name in sorted(wanted - images_on_every_node(cluster)):
            pull(cluster, name, progress)
        _write_down(cluster, images=sorted({*cluster.record.options.get("images", ()), *wanted}))


def _write_down(cluster: Cluster, **given: Any) -> None:
    options = cluster.record.options
    if {**options, **given} != options:
        cluster.record = cluster.record.but(options={**options, **given})
        cluster.record.save()


def fetch(progress: Progress, *, metrics: bool = False, storage: bool = False, ingress: bool = False, images: Iterable[str] = ()) -> None:
    """Make or download what `give` would need, without giving it: on a new machine that takes minutes."""
    asked = {"metrics-server": metrics, "local-path-provisioner": storage, "contour": ingress, "envoy": ingress}
    for name in [*(name for name, wanted in asked.items() if wanted), *images]:
        archive(name, progress)


def install_metrics_server(cluster: Cluster, progress: Progress) -> None:
    """`kubectl top` and the HorizontalPodAutoscaler need it."""
    pull(cluster, "metrics-server", progress)
    with progress.step("Installing metrics-server"):
        put(cluster, manifest("metrics-server", METRICS_SERVER=pinned().image("metrics-server").name))
        cluster.wait("deployment/metrics-server condition=Available -n kube-system", timeout=180)


def install_local_path_provisioner(cluster: Cluster, progress: Progress) -> None:
    """The StorageClass `local-path`: a claim gets a folder on the node where its first Pod comes to run."""
    pull(cluster, "local-path-provisioner", progress)
    with progress.step("Installing local-path-provisioner"):
        images = {"LOCAL_PATH_PROVISIONER": pinned().image("local-path-provisioner").name, "BUSYBOX": pinned().image("busybox").name}
        put(cluster, manifest("local-path-provisioner", **images))
        cluster.wait("deployment/local-path-provisioner condition=Available -n local-path-storage", timeout=180)


def install_contour(cluster: Cluster, progress: Progress) -> None:
    """Contour writes, an Envoy on each worker carries: Ingresses of the class `contour`, and Gateway API."""
    for name in ("contour", "envoy"):
        pull(cluster, name, progress)
    with progress.step("Installing Contour"):
        for name in ("gateway-api", "contour-crds"):
            put(cluster, manifest(name))
        cluster.wait("crd/httproutes.gateway.networking.k8s.io condition=Established", timeout=60)
        images = {name.upper(): pinned().image(name).name for name in ("contour", "envoy")}
        addresses = ",".join(node.ip for node in cluster.workers or cluster.nodes)
        put(cluster, manifest("contour", ADDRESSES=addresses, **images))
        cluster.wait("deployment/contour condition=Available -n projectcontour", timeout=180)
        cluster.kubectl("-n", "projectcontour", "rollout", "status", "daemonset/envoy", "--timeout=180s", timeout=200)


def serves_ingress(cluster: Cluster) -> bool:
    """Whether Contour is there, with the Gateway that belongs to it."""
    return cluster.kubectl("-n", "projectcontour", "get", "deployment/contour", "gateway/contour", "-o", "name", check=False).ok


def serves_metrics(cluster: Cluster) -> bool:
    return cluster.kubectl("get", "--raw", "/apis/metrics.k8s.io/v1beta1", check=False).ok


def makes_volumes(cluster: Cluster) -> bool:
    """Whether the StorageClass `local-path` is there, and somebody who serves it."""
    classes = {each["metadata"]["name"]: each["provisioner"] for each in cluster.get("storageclasses")["items"]}
    said = cluster.kubectl("-n", "local-path-storage", "get", "deployment/local-path-provisioner", "-o", "name", "--ignore-not-found")
    return classes.get("local-path") == PROVISIONER and bool(said.stdout.strip())


def images_on_every_node(cluster: Cluster) -> set[str]:
    """Images that every worker has (every node, where there are no workers), as far as nodes can be asked."""
    return on_every_node(cluster.workers or cluster.nodes)
