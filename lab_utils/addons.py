"""What a cluster gets only when somebody asks for it. Its images are fetched or built at that moment."""

from __future__ import annotations

from lab_utils import artifacts
from lab_utils.artifacts.versions import pinned
from lab_utils.cluster import Cluster
from lab_utils.embedded.kubeadm import manifest
from lab_utils.progress import Progress
from lab_utils.providers import provider


def install_metrics_server(cluster: Cluster, progress: Progress) -> None:
    """`kubectl top` and the HorizontalPodAutoscaler need it."""
    archive = artifacts.image("metrics-server", progress)
    provider(cluster.provider).load(cluster.record, archive, progress)
    with progress.step("Installing metrics-server"):
        cluster.apply(manifest("metrics-server", METRICS_SERVER=pinned().image("metrics-server").name))
        cluster.wait("deployment/metrics-server condition=Available -n kube-system", timeout=180)
