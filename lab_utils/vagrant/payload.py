"""What is sent to a machine that is made from a plain Debian box: the programs, and the scripts that lay them in."""

from __future__ import annotations

import io
import tarfile
from pathlib import Path

from lab_utils.artifacts import binaries, debian, images
from lab_utils.progress import Progress


def payload(folder: Path, progress: Progress) -> Path:
    """kio.tar in `folder`, with bin/ and provision/ in it, and the names of the images that a packaged box should hold."""
    programs = binaries(progress)
    with progress.step("Packing the nodes' programs"):
        target = folder / "kio.tar"
        with tarfile.open(target, "w") as archive:
            archive.add(programs, "bin", filter=_plain)
            archive.add(debian.provision_dir(), "provision", filter=_plain)
            names = "".join(f"{image.name}\n" for image in images.core() if not image.own).encode()
            item = tarfile.TarInfo("images")
            item.size = len(names)
            archive.addfile(_plain(item), io.BytesIO(names))
    return target


def _plain(item: tarfile.TarInfo) -> tarfile.TarInfo:
    """The programs are hard links into the cache, and belong to whoever made it."""
    item.uid = item.gid = 0
    item.uname = item.gname = "root"
    item.mode = 0o755
    return item
