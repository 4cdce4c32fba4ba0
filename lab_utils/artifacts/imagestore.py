"""The image store: a node's /var/lib/containerd with all core images imported and unpacked, once.

A node gets it by hard links instead of importing 14 images. Only containerd's two databases (*.db) are written to in place, so
they must be copied; everything else is only ever read, or replaced as a whole.
"""

from __future__ import annotations

from pathlib import Path

from lab_utils.artifacts import images, store
from lab_utils.artifacts.chroot import in_root, need_root
from lab_utils.artifacts.noderoot import bin_dir, node_root
from lab_utils.artifacts.store import Provenance
from lab_utils.artifacts.versions import pinned
from lab_utils.artifacts.words import failed
from lab_utils.errors import CommandFailed
from lab_utils.paths import root_cache_dir
from lab_utils.progress import Progress

IMPORT = Path(__file__).with_name("import.sh")


def image_store(progress: Progress) -> Path:
    core = images.core()
    archives = images.ensure(core, progress)
    place = root_cache_dir() / "imagestore" / store.recipe([path.parent.name for path in archives.values()], IMPORT, bin_dir(progress).name)
    if store.find(place, progress):
        return place / "containerd"
    need_root("the nodes' image store")
    root = node_root(progress)
    with store.locked(place, progress):
        if store.find(place, progress):
            return place / "containerd"
        with progress.step(f"unpack {len(core)} images for the nodes"), store.making(place) as part:
            watch = store.stopwatch()
            shelf = part / "images"
            shelf.mkdir()
            (part / "containerd").mkdir(mode=0o711)
            for image in core:
                (shelf / f"{image.key}.tar").hardlink_to(archives[image.key])
            binds = {part / "containerd": "/var/lib/containerd", shelf: "/mnt/images", IMPORT.parent: "/mnt/artifacts"}
            pairs = [f"{image.key}.tar={image.name}" for image in core]
            try:
                in_root(
                    root,
                    ["/mnt/artifacts/import.sh", pinned().image("pause").name, *pairs],
                    binds=binds,
                    on_line=lambda line: progress.now(line) if line.startswith("import ") else None,
                )
            except CommandFailed as problem:
                raise failed("importing images failed", problem.stdout, "Run the command again") from None
            for path in shelf.iterdir():
                path.unlink()
            shelf.rmdir()
            store.finish(place, Provenance("image store", "1", "build", detail=f"{len(core)} images", seconds=watch.seconds), tree=True)
    return place / "containerd"
