"""Brings an image onto every node of a cluster, wherever it can be had.

Not at all, where the nodes have it (`lab load`); from this machine's cache; by the nodes themselves, as kubelet would, where its registry
answers; or built here. Building needs a Debian root, so it needs Linux and root: a learner with sudo may be asked for a password, one
without can have what a registry has. So can nodes of another architecture than this machine's, which cache and builds are for.
"""

from __future__ import annotations

import platform
from collections.abc import Sequence
from pathlib import Path

from lab_utils.artifacts import images, registry
from lab_utils.artifacts.machine import arch
from lab_utils.artifacts.versions import Image, pinned
from lab_utils.cluster import Cluster, Node
from lab_utils.embedded.privileged import perform
from lab_utils.errors import CommandFailed, HostLacks, NoNodeAccess
from lab_utils.progress import Progress
from lab_utils.providers import provider

PULL_SECONDS = 900


def pull(cluster: Cluster, name: str, progress: Progress) -> None:
    """`name` is an image's short or full name in versions.toml."""
    image = pinned().image(name)
    if not image.own and not all(node.reachable for node in cluster.nodes):
        return  # kubelet pulls it when the first Pod asks for it
    if image.name in on_every_node(cluster.nodes):
        return
    if foreign := _foreign(cluster):
        if image.own:
            node, theirs = next(iter(foreign.items()))
            raise HostLacks(
                f"node {node} is {theirs}, and the image {image.name}, which no registry has, would be built here for {arch()}",
                f"Build it on a Linux machine that is {theirs} (lab up --for LAB), {_carried(image)}",
            )
        _by_the_nodes(cluster, image, progress)
        return
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
            f"Build it on a Linux machine (lab up --for LAB), {_carried(image)}",
        )
    return Path(perform("image", {"name": name}, progress)["archive"])


def _carried(image: Image) -> str:
    return f"bring {image.key}.tar of its cache here (lab load FILE), and ask again"


def on_every_node(nodes: Sequence[Node]) -> set[str]:
    """Images that all of these nodes have, as far as they can be asked: some are out of reach, and somebody's own may have no crictl."""
    try:
        return set.intersection(*(node.images() for node in nodes)) if nodes else set()
    except (NoNodeAccess, CommandFailed):
        return set()


def _foreign(cluster: Cluster) -> dict[str, str]:
    """The nodes that are of another architecture than this machine, and which."""
    if cluster.provider == "embedded" or cluster.record.options.get("bare"):  # this machine itself; or nobody there to ask
        return {}
    theirs = {item["metadata"]["name"]: item["status"]["nodeInfo"]["architecture"] for item in cluster.get("nodes")["items"]}
    return {name: its for name, its in theirs.items() if its != arch()}


def _by_the_nodes(cluster: Cluster, image: Image, progress: Progress) -> None:
    with progress.step(f"Pulling {image.name}"):
        for node in cluster.workers or cluster.nodes:
            try:
                node.run(["crictl", "pull", image.name], timeout=PULL_SECONDS, check=True)
            except NoNodeAccess:
                return  # kubelet pulls it when the first Pod asks for it
