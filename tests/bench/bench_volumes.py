"""Volumes: from a claim to a Pod that has it mounted, by the driver of chapter 13 and by local-path-provisioner; one, and fifty at once.

The driver makes a disk with a file system of its own, attaches, stages and publishes it. local-path-provisioner starts a helper Pod
that makes a folder.
"""

from __future__ import annotations

import time
from itertools import count

from lab_utils.cluster import Cluster
from lab_utils.csi import deploy
from lab_utils.progress import Silent
from lab_utils.providers import ClusterSpec, provider
from tests.bench.report import Row, of_pairs

NAME, SPACE, DRIVER = "bench-volumes", "bench-volumes", "disks.bench.example"
NUMBERS = count()


def rows() -> list[Row]:
    chosen = provider("embedded")
    try:
        cluster = chosen.up(ClusterSpec(NAME, workers=1, storage=True, images=deploy.IMAGES), Silent())
        cluster.kubectl("create", "namespace", SPACE)
        deploy.install(cluster, SPACE, DRIVER, "ours")
        found = [row(cluster, claims, rounds) for claims, rounds in ((1, 7), (50, 1))]
        cluster.close()
    finally:
        chosen.down(NAME, Silent())
    return found


def row(cluster: Cluster, claims: int, rounds: int) -> Row:
    mounted(cluster, "ours", 1), mounted(cluster, "local-path", 1)  # a round that does not count
    pairs = [(mounted(cluster, "ours", claims), mounted(cluster, "local-path", claims)) for _ in range(rounds)]
    what = "one claim" if claims == 1 else f"{claims} claims at once, in one Pod"
    return of_pairs(f"{what}: made, attached, mounted / local-path-provisioner", pairs)


def mounted(cluster: Cluster, storage_class: str, claims: int) -> float:
    """Seconds from the claims to a Pod that has them all; then everything is removed again."""
    name = f"{storage_class}-{next(NUMBERS)}"
    names = [f"{name}-{number}" for number in range(claims)]
    request = {"accessModes": ["ReadWriteOnce"], "storageClassName": storage_class, "resources": {"requests": {"storage": "32Mi"}}}
    wanted = [{"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": {"name": each}, "spec": request} for each in names]
    container = {
        "name": "main",
        "image": "docker.io/library/busybox:1.37",
        "command": ["sleep", "infinity"],
        "volumeMounts": [{"name": each, "mountPath": f"/{each}"} for each in names],
    }
    volumes = [{"name": each, "persistentVolumeClaim": {"claimName": each}} for each in names]
    spec = {"terminationGracePeriodSeconds": 0, "containers": [container], "volumes": volumes}
    begin = time.perf_counter()
    cluster.apply([*wanted, {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name}, "spec": spec}], SPACE)
    cluster.wait(f"pod/{name} condition=Ready -n {SPACE}", timeout=600)
    took = time.perf_counter() - begin
    cluster.kubectl("-n", SPACE, "delete", "pod", name, "--timeout=120s", timeout=150)
    cluster.kubectl("-n", SPACE, "delete", "pvc", "--all", "--timeout=300s", timeout=330)
    cluster.wait(lambda: not cluster.get("persistentvolumes")["items"], timeout=600)
    return took
