"""Disks that are files: an image with an XFS file system in it, of exactly its size. Here is all that touches the node.

A shelf is a folder with one folder for each disk: `disk`, the image, and `about.json`. A disk is made beside its place and then
renamed, so that it is there whole or not at all, whatever kills us. Whether it is mounted is asked of the kernel, never remembered:
the driver has no other state than the files and the mounts, and so it may die at any moment.
"""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import stat
import subprocess
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .protocol import Refused

MIB = 2**20
SMALLEST = 32 * MIB  # XFS wants room for its log
LOOP_MAJOR, LOOP_CTL_GET_FREE = 7, 0x4C82  # linux/major.h, linux/loop.h
MOUNTING = threading.Lock()


def run(*words: object) -> str:
    done = subprocess.run(list(map(str, words)), capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"{' '.join(map(str, words))}: {done.stderr.strip() or f'exit code {done.returncode}'}")
    return done.stdout


@dataclass(frozen=True)
class Disk:
    name: str
    folder: Path
    about: dict[str, Any]

    @property
    def image(self) -> Path:
        return self.folder / "disk"

    @property
    def size(self) -> int:
        return self.image.stat().st_size


class Shelf:
    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        for unfinished in folder.glob(".*"):
            shutil.rmtree(unfinished)

    def find(self, name: str) -> Disk | None:
        folder = self.folder / name
        if not is_name(name) or not folder.is_dir():
            return None
        return Disk(name, folder, json.loads((folder / "about.json").read_text()))

    def all(self) -> list[Disk]:
        found = (self.find(each.name) for each in sorted(self.folder.iterdir()))
        return [disk for disk in found if disk]

    def check_room(self, size: int) -> None:
        """A disk that was promised must not find the node full one day, so all of its room is taken when it is made."""
        if size > shutil.disk_usage(self.folder).free:
            raise Refused("RESOURCE_EXHAUSTED", f"the node has no {size // MIB} MiB left")

    def add(self, name: str, about: dict[str, Any], fill: Callable[[Path], None]) -> Disk:
        if not is_name(name):
            raise Refused("INVALID_ARGUMENT", f"a disk cannot be named {name!r}")
        part = self.folder / f".{name}"
        shutil.rmtree(part, ignore_errors=True)
        part.mkdir()
        try:
            fill(part / "disk")
            (part / "about.json").write_text(json.dumps(about))
            for path in (*part.iterdir(), part):
                sync(path)
            part.rename(self.folder / name)
        except BaseException:
            shutil.rmtree(part)
            raise
        sync(self.folder)
        return Disk(name, self.folder / name, about)

    def remove(self, disk: Disk) -> None:
        going = self.folder / f".{disk.name}"
        disk.folder.rename(going)
        sync(self.folder)
        shutil.rmtree(going)


def is_name(name: str) -> bool:
    """Of one folder beside the others: no path, and not hidden."""
    return bool(name) and "/" not in name and not name.startswith(".")


def sync(path: Path) -> None:
    """What was said to be done must be done also when the power fails."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


# filling a disk


def blank(image: Path, size: int) -> None:
    """An empty file system."""
    reserve(image, size)
    # -K: do not give the room back that was reserved. XFS is not meant for less than 300 MiB, and says so unless told that we know.
    run("mkfs.xfs", "-q", "-K", "-f", "--unsupported", image)


def copy(source: Disk, image: Path, size: int) -> None:
    """A copy of a disk, also of one that is in use: its file system stands still for the moment."""
    with frozen(source):
        run("cp", "--reflink=auto", "--sparse=always", source.image, image)
    reserve(image, size)


def reserve(image: Path, size: int) -> None:
    with image.open("ab") as file:
        os.posix_fallocate(file.fileno(), 0, size)


@contextmanager
def frozen(disk: Disk) -> Iterator[None]:
    where = next(iter(places(disk)), None)
    if where:
        run("fsfreeze", "--freeze", where)
    try:
        yield
    finally:
        if where:
            run("fsfreeze", "--unfreeze", where)


def thaw(disk: Disk) -> None:
    """Should we have been killed with a file system frozen, whoever writes to it waits for us."""
    for where in places(disk)[:1]:
        subprocess.run(["fsfreeze", "--unfreeze", where], capture_output=True)


# mounting


def mount(disk: Disk, path: Path) -> None:
    """The image becomes a block device, which vanishes by itself with its last mount."""
    for attempt in range(20):
        with MOUNTING:
            # A disk that is mounted elsewhere, also where we do not see it, has its device. A second one would ruin the file system.
            device, how = device_of(disk), "nouuid"
            source = device or disk.image
            if not device:
                how += f",loop={free_loop_device()}"
            try:
                run("mount", "-t", "xfs", "-o", how, source, path)  # nouuid: XFS would not mount a copy beside its original
                break
            except RuntimeError as error:
                # Whoever shares this kernel may have taken the free device in between.
                if attempt == 19 or "loop device" not in str(error):
                    raise
    run("xfs_growfs", path)  # a copy may have been made larger than its source


def device_of(disk: Disk) -> Path | None:
    numbers = (int(each.name.removeprefix("loop")) for each in Path("/sys/block").glob("loop*"))
    return next((device_node(number) for number in numbers if backs(disk, number)), None)


def free_loop_device() -> Path:
    with open("/dev/loop-control") as control:  # noqa: PTH123
        number = fcntl.ioctl(control, LOOP_CTL_GET_FREE)
    return device_node(number)


def device_node(number: int) -> Path:
    """A container's /dev shows only the devices that were there when the container began."""
    path = Path(f"/dev/loop{number}")
    if not path.exists():
        os.mknod(path, 0o600 | stat.S_IFBLK, os.makedev(LOOP_MAJOR, number))
    return path


def bind(source: Path, path: Path, readonly: bool) -> None:
    """The same file system in a second place."""
    if not readonly:
        run("mount", "--bind", source, path)
        return
    # "Read only" belongs to one mount. Set afterwards, it would hold in this container only, and the Pod sees the node's mount, to which
    # ours was passed on before. A mount that is made of a read-only one is so from the beginning, everywhere.
    with tempfile.TemporaryDirectory() as aside:
        run("mount", "--bind", source, aside)
        run("mount", "-o", "remount,bind,ro", aside)
        run("mount", "--bind", aside, path)
        run("umount", aside)


def unmount(path: Path) -> None:
    """Also when it was not mounted, or is not there: what is asked for is that nothing is mounted."""
    while path.is_mount():
        run("umount", path)


def mounted(disk: Disk, path: Path) -> bool:
    """Whether this very disk is mounted there."""
    if not path.is_mount():
        return False
    device = path.stat().st_dev
    return os.major(device) == LOOP_MAJOR and backs(disk, os.minor(device))


def places(disk: Disk) -> list[str]:
    """Where the disk is mounted, as far as this process sees it."""
    lines = [line.split() for line in Path("/proc/self/mountinfo").read_text().splitlines()]
    loops = [(words[2].split(":"), words[4]) for words in lines if words[2].startswith(f"{LOOP_MAJOR}:")]
    return [where.replace("\\040", " ") for (_, minor), where in loops if backs(disk, int(minor))]


def backs(disk: Disk, number: int) -> bool:
    """Whether the disk is behind a loop device. The kernel tells the file's path as another process may see it: compare the end."""
    told = Path(f"/sys/block/loop{number}/loop/backing_file")
    return told.exists() and told.read_text().strip().endswith(f"{disk.folder.parent.name}/{disk.name}/disk")


def grow(disk: Disk, path: Path, size: int) -> None:
    """Make image, device and file system larger, in this order, while they are in use."""
    if disk.size < size:
        reserve(disk.image, size)
        sync(disk.image)
    run("losetup", "--set-capacity", device_node(os.minor(path.stat().st_dev)))
    run("xfs_growfs", path)
