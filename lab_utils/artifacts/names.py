"""What the images in an archive are called. Pure but for reading that file."""

from __future__ import annotations

import json
import tarfile
from pathlib import Path


def names(archive: Path) -> set[str]:
    """What the images in an archive are called, in full, as containerd keeps them. Nothing for a file that is no archive of images."""
    found: set[str] = set()
    try:
        with tarfile.open(archive) as tar:
            for member in tar:
                if member.name in ("index.json", "manifest.json") and (file := tar.extractfile(member)):
                    found |= _names(json.load(file))
    except (tarfile.TarError, ValueError, EOFError, AttributeError, TypeError):  # no archive, or one of something else
        return set()
    return found


def _names(said: object) -> set[str]:
    """Docker's manifest.json is a list; an OCI index names by annotations, the second of which may be a tag alone. Pure."""
    if isinstance(said, list):
        return {full_name(tag) for each in said if isinstance(each, dict) for tag in each.get("RepoTags") or []}
    entries = said.get("manifests") or [] if isinstance(said, dict) else []
    marks = [each.get("annotations") or {} for each in entries if isinstance(each, dict)]
    said_names = [mark.get("io.containerd.image.name") or mark.get("org.opencontainers.image.ref.name", "") for mark in marks]
    return {full_name(name) for name in said_names if ":" in name}


def full_name(name: str) -> str:
    """As Docker shortens it: busybox is docker.io/library/busybox:latest. Pure."""
    first, slash, _ = name.partition("/")
    if not slash:
        name = f"docker.io/library/{name}"
    elif "." not in first and ":" not in first and first != "localhost":
        name = f"docker.io/{name}"
    return name if ":" in name.rpartition("/")[2] or "@" in name else f"{name}:latest"


def loaded(archive: Path, before: set[str], after: set[str]) -> list[str]:
    """The names of what a node has of an archive, whether it had an image of that name before or not."""
    return sorted((names(archive) & after) | (after - before))
