"""The images that the chosen tests ask for, where no registry can be reached.

Each of them is one of ours under the name that the suite uses. What differs from the official one is said here, and in the
README's table: a test that passes with a stand-in was passed by the cluster, for these images only serve, wait and look up names.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

from lab_utils.artifacts import archive, programs
from lab_utils.artifacts.archive import LayerFile
from lab_utils.artifacts.layers import Layer
from lab_utils.artifacts.versions import Image, pinned
from lab_utils.cluster import Cluster
from lab_utils.progress import Progress
from lab_utils.providers import provider

E2E = "registry.k8s.io/e2e-test-images"

# The suite's name → the image of versions.toml that stands in.
STAND_INS = {
    f"{E2E}/busybox:1.37.0-1": "busybox",  # Debian's 1.35
    f"{E2E}/nginx:1.15-4": "nginx",  # Debian's 1.22
    # Official: Debian with dnsutils and coredns. Ours for agnhost is that, and agnhost.
    f"{E2E}/glibc-dns-testing:2.0.0": "agnhost",
    # An older agnhost, to change a Pod's image to. Ours is the same as before under another name.
    f"{E2E}/agnhost:2.55": "agnhost",
}

NONEWPRIVS = Image(
    key="nonewprivs",
    name=f"{E2E}/nonewprivs:1.4",
    cmd=("/usr/local/bin/nnp",),
)


def provide(cluster: Cluster, nnp: Path, progress: Progress) -> list[str]:
    """Put them on every node. Returns one line per image that is not the official one."""
    there = {name for image in cluster.get("nodes")["items"] for each in image["status"]["images"] for name in each["names"]}
    said = []
    with progress.step("Images under the names that the suite uses"):
        for name, key in STAND_INS.items():
            if name in there:
                continue
            ours = pinned().image(key).name
            for node in cluster.nodes:
                node.run(["ctr", "-n", "k8s.io", "images", "tag", "--force", ours, name], check=True)
            said.append(f"{name} is {ours}")
        with tempfile.TemporaryDirectory(prefix="lab-e2e-") as folder:
            file = Path(folder) / "nonewprivs.tar"
            _nonewprivs(nnp, Path(folder) / "layer.tar", file)
            provider(cluster.provider).load(cluster.record, file, progress)
            said.append(f"{NONEWPRIVS.name} is built here of its official program and nothing else")
    return said


def _nonewprivs(nnp: Path, layer_file: Path, target: Path) -> None:
    """As its Dockerfile (test/images/nonewprivs) does: the program, set-user-id root. It is static and needs no base."""
    layer = Layer()
    layer.file("usr/local/bin/nnp", nnp, 0o6755)
    digest = layer.write(layer_file)
    archive.write(NONEWPRIVS, [LayerFile(layer_file, digest, "nnp")], programs.arch(), target)
