"""The node root: Debian with the cluster's programs, made by the same scripts that provision the course's virtual machines."""

from __future__ import annotations

from pathlib import Path

from lab_utils.artifacts import debian, programs, store
from lab_utils.artifacts.chroot import in_root, need_root
from lab_utils.artifacts.store import Provenance
from lab_utils.artifacts.versions import pinned
from lab_utils.artifacts.words import failed
from lab_utils.errors import CommandFailed
from lab_utils.paths import cache_dir, root_cache_dir
from lab_utils.progress import Progress
from lab_utils.run import run


def bin_dir(progress: Progress) -> Path:
    """A folder with every program of a node under its name, and the CNI plugins in cni/: what the scripts call KIO_BIN."""
    nodes, cni = programs.NODE_PROGRAMS, programs.cni_plugins()
    found = programs.ensure([*nodes, *cni], progress)
    place = cache_dir() / "bin" / store.recipe({name: programs.provenance_of(name).sha256 for name in found})
    if store.find(place, progress):
        return place
    with store.locked(place, progress), store.making(place) as part:
        for folder, names in ((part, nodes), (part / "cni", cni)):
            folder.mkdir(exist_ok=True)
            for name in names:
                (folder / name).hardlink_to(found[name])
        store.finish(place, Provenance("programs", pinned().program("kubelet").version, "cache", detail="links to the programs"))
    return place


def node_root(progress: Progress) -> Path:
    """An immutable Debian root with containerd, kubelet, kubeadm and what belongs to them. Nodes lay an overlay over it."""
    binaries = bin_dir(progress)
    below = debian.base(progress)
    place = root_cache_dir() / "noderoot" / store.recipe(below.name, binaries.name, debian.provision_dir(), _environment())
    if store.find(place, progress):
        return place / "root"
    need_root("the nodes' root")
    with store.locked(place, progress):
        if store.find(place, progress):
            return place / "root"
        with progress.step("lay Kubernetes into the nodes' root"), store.making(place) as part:
            watch = store.stopwatch()
            root = part / "root"
            run(["cp", "-a", "--reflink=auto", below / "root", root])
            _provision(root, binaries, progress)
            version = pinned().program("kubelet").version
            store.finish(place, Provenance("node root", version, "build", detail=f"over {below.name}", seconds=watch.seconds), tree=True)
    return place / "root"


def _environment() -> dict[str, str]:
    """What the scripts in vagrant/provision are told. An embedded node has no hardware, which 50-embedded.sh takes care of."""
    return {"KIO_BIN": "/mnt/bin", "KIO_PAUSE": pinned().image("pause").name, "KIO_EMBEDDED": "yes"}


def _provision(root: Path, binaries: Path, progress: Progress) -> None:
    folder = debian.provision_dir()
    for script in sorted(folder.glob("[0-9]*.sh")):
        progress.now(script.name)
        try:
            binds = {binaries: "/mnt/bin", folder: "/mnt/provision"}
            in_root(root, [f"/mnt/provision/{script.name}"], binds=binds, env=_environment(), writable=True)
        except CommandFailed as problem:
            raise failed(f"{script.name} failed in the nodes' root", problem.stdout) from None
    # apt stays usable, but its lists (some 60 MB) are old by the time that anybody asks: `apt-get update` brings new ones.
    for path in (root / "var/lib/apt/lists").glob("*_*"):
        path.unlink()
