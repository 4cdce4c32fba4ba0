"""Brings an image onto every node of a cluster, wherever it can be had.

From this machine's cache; by the nodes themselves, as kubelet would, where its registry answers; or built here. Building needs a Debian
root, so it needs Linux and root: a learner with sudo may be asked for a password, one without can have what a registry has.
"""

from __future__ import annotations

import platform
from pathlib import Path

from lab_utils.artifacts import images, registry
from lab_utils.artifacts.versions import Image, pinned
from lab_utils.cluster import Cluster
from lab_utils.embedded.privileged import perform
from lab_utils.errors import HostLacks, NoNodeAccess
from lab_utils.progress import Progress
from lab_utils.providers import provider

PULL_SECONDS = 900


def pull(cluster: Cluster, name: str, progress: Progress) -> None:
    """`name` is an image's short or full name in versions.toml."""
    image = pinned().image(name)
    if not image.own and not all(node.reachable for node in cluster.nodes):
        return  # kubelet pulls it when the first Pod asks for it
    # The nodes of the embedded provider share this machine's way out; what is fetched here once serves every cluster.
    if cluster.provider != "embedded" and not images.find(image, progress) and not image.own and registry.answering([image.name]):
        _by_the_nodes(cluster, image, progress)
    else:
        provider(cluster.provider).load(cluster.record, archive(name, progress), progress)


def archive(name: str, progress: Progress) -> Path:
    """The image as a file in the cache, made now if need be."""
    image = pinned().image(name)
    if place := images.find(image, progress):
        return place / f"{image.key}.tar"
    if platform.system() != "Linux":
        raise HostLacks(
            f"the image {image.name} is not here, and is built on Linux alone",
            f"Build it on a Linux machine (lab up --for LAB), and bring {image.key}.tar of its cache here: lab load FILE",
        )
    return Path(perform("image", {"name": name}, progress)["archive"])


def _by_the_nodes(cluster: Cluster, image: Image, progress: Progress) -> None:
    with progress.step(f"Pulling {image.name}"):
        for node in cluster.workers or cluster.nodes:
            try:
                node.run(["crictl", "pull", image.name], timeout=PULL_SECONDS, check=True)
            except NoNodeAccess:
                return  # kubelet pulls it when the first Pod asks for it
