"""Everything that a cluster is made of: programs, the nodes' Debian, and images. Asked for by name, made when missing.

The words:

    component    what its makers release under one version: containerd, etcd, kubernetes
    program      one executable of it: ctr, etcdctl, kubelet                     → `binary("kubelet", progress)`
    node root    an immutable Debian with a node's programs and units            → `node_root(progress)`
    image        one container image, as an archive under its official name      → `image("nginx", progress)`
    image store  a node's /var/lib/containerd with all core images unpacked      → `image_store(progress)`
    source       where something came from: its release, its registry, Debian, or built here
    provenance   the record of that, kept beside each thing in the cache         → `provenance()`

`versions.toml` pins all of them. Each is taken from the cache, from its official place, or built from published sources, in
this order. `LAB_SOURCES=cache,release,build` limits the ways; `LAB_RELEASES=URL` names a mirror of the release servers.

Programs lie in the user's cache and need no root. The rest does, and lies in the machine's cache (`paths.root_cache_dir`).
"""

from __future__ import annotations

from collections.abc import Iterable
from concurrent.futures import Future, ThreadPoolExecutor, as_completed
from pathlib import Path

from lab_utils.artifacts import debian, images, noderoot, programs, space, store
from lab_utils.artifacts.images import core as core_images
from lab_utils.artifacts.imagestore import image_store
from lab_utils.artifacts.noderoot import node_root
from lab_utils.artifacts.store import Provenance
from lab_utils.artifacts.versions import Image, pinned
from lab_utils.paths import cache_dir, root_cache_dir
from lab_utils.progress import Progress
from lab_utils.run import begin_again, end_all

__all__ = ["CORE_IMAGES", "Provenance", "binaries", "binary", "image", "image_store", "node_root", "prepare", "provenance", "prune"]

CORE_IMAGES = tuple(image.name for image in core_images())
"""The official names of the images that are in every node's store."""


def binary(name: str, progress: Progress) -> Path:
    """One program."""
    return programs.ensure([name], progress)[name]


def binaries(progress: Progress) -> Path:
    """A folder with all programs of a node; the CNI plugins in its folder cni/. kubectl from it serves on the host."""
    return noderoot.bin_dir(progress)


def image(name: str, progress: Progress) -> Path:
    """The archive of one image, by its short or its full name, for `lab load` and `docker load`."""
    wanted = pinned().image(name)
    return images.ensure([wanted], progress)[wanted.key]


def prepare(progress: Progress) -> None:
    """Everything that a first cluster needs, side by side where one does not wait for the other."""
    space.check()
    build = images.to_build(images.core(), progress)
    wanted = [*programs.NODE_PROGRAMS, *programs.cni_plugins(), *(name for image in build for name in image.programs)]
    jobs: list[Future[object]] = []
    try:
        # Compiling takes the processor, Debian mostly the network: together they take little longer than the first alone.
        with ThreadPoolExecutor(2) as pool:
            try:
                jobs += [pool.submit(programs.ensure, wanted, progress), pool.submit(_debian, build, progress)]
                for job in as_completed(jobs):
                    job.result()
            except BaseException:  # Ctrl-C, or one of the two failed: the other need not go on
                end_all()
                raise
    finally:
        if all(job.done() for job in jobs):  # a second Ctrl-C does not wait for them
            begin_again()
    node_root(progress)
    image_store(progress)


def _debian(build: list[Image], progress: Progress) -> None:
    debian.base(progress)
    images.packages_for(build, progress)


def prune(in_use: Iterable[Path], progress: Progress) -> int:
    """Remove node roots and image stores of older recipes, but for those in use by a cluster. Returns how many went.

    Pass each existing cluster's node root and image store: running nodes lie over the one, and `lab reset` links from the other.
    """
    keep = {path.parent for path in (*in_use, node_root(progress), image_store(progress))}
    old = [Path(one.path) for kind in ("noderoot", "imagestore") for one in store.all_under(root_cache_dir() / kind)]
    gone = [place for place in old if place not in keep]
    for place in gone:
        store.remove(place)
    return len(gone)


def provenance() -> list[Provenance]:
    """What lies in the cache, and where each thing of it came from."""
    found = [*store.all_under(cache_dir() / "programs"), *store.all_under(cache_dir() / "toolchain"), *store.all_under(root_cache_dir())]
    return sorted(found, key=lambda one: (one.component, one.version))
