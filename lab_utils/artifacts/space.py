"""Is there room for what is about to be made? Asked first, because a full disk after five minutes helps nobody."""

from __future__ import annotations

import shutil
from pathlib import Path

from lab_utils.artifacts import programs, store
from lab_utils.artifacts.versions import pinned
from lab_utils.errors import HostLacks
from lab_utils.paths import cache_dir, root_cache_dir

# Measured on the first build of this set of versions, and rounded up.
BUILD_GB = 7.0  # the go command's own caches and the programs
ROOT_GB = 5.0  # Debian, images, and the image store


def wanted() -> dict[Path, float]:
    """Gigabytes for what is not in the caches yet. The programs of images count only with the images: where those can be pulled, nothing
    else has them."""
    images = store.all_under(root_cache_dir() / "imagestore")
    programs_of_nodes = all(store.read(programs.entry(pinned().program(name))) for name in programs.NODE_PROGRAMS)
    return {
        **({} if images and programs_of_nodes else {cache_dir(): BUILD_GB}),
        **({} if images else {root_cache_dir(): ROOT_GB}),
    }


def check() -> None:
    """Raises HostLacks when the disk has too little room for what is not in the cache yet."""
    wants: dict[int, tuple[float, Path]] = {}
    for place, gigabytes in wanted().items():
        _want(wants, place, gigabytes)
    for gigabytes, path in wants.values():
        free = shutil.disk_usage(path).free / 1e9
        if free < gigabytes:
            raise HostLacks(
                f"the disk under {path} has {free:.1f} GB free, and what a first cluster needs takes {gigabytes:.0f} GB",
                "Make room, or set LAB_CACHE to a folder on another disk",
            )


def _want(wants: dict[int, tuple[float, Path]], place: Path, gigabytes: float) -> None:
    """Count per disk: both caches may lie on the same one."""
    existing = next(path for path in (place, *place.parents) if path.exists())
    device = existing.stat().st_dev
    wants[device] = (wants.get(device, (0.0, existing))[0] + gigabytes, existing)
