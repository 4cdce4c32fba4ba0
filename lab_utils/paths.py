"""Where this package keeps things on a machine. Nothing of it lies in the repository.

    cache   downloads, builds, images, node roots; keyed by version and recipe, safe to delete when there is no cluster
    state   what exists now: clusters and a learner's progress

`LAB_CACHE` and `LAB_STATE` move them, for tests and for machines with a small home.
"""

from __future__ import annotations

import os
from pathlib import Path

APP = "kubernetes-inside-out"


def cache_dir() -> Path:
    return _place("LAB_CACHE", "user_cache_path")


def root_cache_dir() -> Path:
    """What only root can make: Debian roots, images and the nodes' image store. Shared by all users of this machine."""
    said = os.environ.get("LAB_CACHE")
    return Path(said).expanduser().absolute() / "root" if said else Path("/var/cache") / APP


def state_dir() -> Path:
    return _place("LAB_STATE", "user_state_path")


def root_state_dir() -> Path:
    """What root made for clusters on this machine. Names are shared by all users of it."""
    said = os.environ.get("LAB_STATE")
    return Path(said).expanduser().absolute() / "root" if said else Path("/var/lib") / APP


def repo_dir() -> Path:
    """The checkout that holds book/, labs/, solutions/ and vagrant/."""
    return Path(__file__).resolve().parent.parent


def _place(variable: str, kind: str) -> Path:
    if said := os.environ.get(variable):
        return Path(said).expanduser().absolute()
    import platformdirs  # imported late: `import lab_utils` stays fast

    return Path(getattr(platformdirs, kind)(APP))
