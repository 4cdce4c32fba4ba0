"""The images that the chosen tests ask for, where no registry can be reached.

Each of them is built of the same programs and Debian packages as the course's own, under the name that the suite uses. What
differs from the official one is said here and in the README's table. They only serve, wait, look up names and print what they
are told: what is tested is the cluster.
"""

from __future__ import annotations

import tempfile
from dataclasses import replace
from pathlib import Path

from lab_utils.artifacts import archive, images, programs, registry, store
from lab_utils.artifacts.archive import LayerFile
from lab_utils.artifacts.layers import Layer
from lab_utils.artifacts.versions import Image, pinned
from lab_utils.cluster import Cluster
from lab_utils.progress import Progress
from lab_utils.providers import provider
from tests.conformance.suite import Suite

E2E = "registry.k8s.io/e2e-test-images"

# Debian trixie's busybox 1.37.0, and bash for what its sh does not do: busybox/usr/bin/sh says when.
BUSYBOX = Image(
    key="e2e-busybox",
    name=f"{E2E}/busybox:1.37.0-1",
    packages=("base-passwd", "bash", "busybox", "libc-bin", "libc6", "libtinfo6", "netbase"),
    suite="trixie",
    applets=True,
    files=str(Path(__file__).with_name("busybox")),
    cmd=("sh",),
)

NONEWPRIVS = Image(key="nonewprivs", name=f"{E2E}/nonewprivs:1.4", cmd=("/usr/local/bin/nnp",))


def wanted(suite: Suite) -> list[Image]:
    """Each is pulled where its registry answers, and otherwise built as said here."""
    agnhost = replace(pinned().image("agnhost"), key="e2e-agnhost", files=str(suite.agnhost_files))
    return [
        agnhost,
        BUSYBOX,
        # An older agnhost, for a Pod's image to be changed to. Ours is the same one under another name.
        replace(agnhost, key="e2e-agnhost-before", name=f"{E2E}/agnhost:2.55"),
        # Official: Debian with dnsutils and coredns. Ours for agnhost is that, and agnhost.
        replace(agnhost, key="e2e-dns", name=f"{E2E}/glibc-dns-testing:2.0.0", entrypoint=(), cmd=("bash",)),
        replace(pinned().image("nginx"), key="e2e-nginx", name=f"{E2E}/nginx:1.15-4"),  # Debian's 1.22
    ]


# Tests that only a registry can serve, whatever is on the nodes: expression for the name → the image.
ONLY_FROM_REGISTRY = {r"ImageVolume .*pull policy of Always": f"{E2E}/kitten:1.8"}


def left_out() -> dict[str, str]:
    """Which tests cannot run here, as expressions for their names, and why."""
    there = registry.answering(list(ONLY_FROM_REGISTRY.values()))
    return {
        expression: f"it pulls {image}, and that registry does not answer here"
        for expression, image in ONLY_FROM_REGISTRY.items()
        if image not in there
    }


def provide(cluster: Cluster, suite: Suite, progress: Progress) -> list[str]:
    """Put them on every node. Returns one line for each image that is not the official one."""
    images_wanted = wanted(suite)
    chosen = provider(cluster.provider)
    said = []
    with progress.step("Images under the names that the suite uses"):
        archives = images.ensure(images_wanted, progress)
        for image in images_wanted:
            chosen.load(cluster.record, archives[image.key], progress)
            made = store.read(archives[image.key].parent)
            if made and made.source != "registry":
                said.append(f"{image.name}: {made.detail[:120]}")
        with tempfile.TemporaryDirectory(prefix="lab-e2e-") as folder:
            file = Path(folder) / "nonewprivs.tar"
            _nonewprivs(suite.nnp, Path(folder) / "layer.tar", file)
            chosen.load(cluster.record, file, progress)
        said.append(f"{NONEWPRIVS.name}: built here of its official program, and nothing else")
    return said


def _nonewprivs(nnp: Path, layer_file: Path, target: Path) -> None:
    """As its Dockerfile (test/images/nonewprivs) does: the program, set-user-id root. It is static and needs no base."""
    layer = Layer()
    layer.file("usr/local/bin/nnp", nnp, 0o6755)
    digest = layer.write(layer_file)
    archive.write(NONEWPRIVS, [LayerFile(layer_file, digest, "nnp")], programs.arch(), target)
