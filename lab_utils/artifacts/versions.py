"""Reads `versions.toml`, the one file that pins every version. Pure: it opens that file and nothing else.

A *component* is what its makers release under one version (containerd). It has *programs* (containerd, ctr, …), each of which
can be downloaded or built. An *image* is made of programs and Debian packages, or pulled under its official name.
"""

from __future__ import annotations

import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

from lab_utils.errors import BadInput

FILE = Path(__file__).with_name("versions.toml")
ARCHITECTURES = ("amd64", "arm64")


@dataclass(frozen=True)
class Download:
    """One file on a release server: where it is, and how it is checked."""

    url: str
    sha256: str | None  # None: read it from `sums`
    sums: str | None


@dataclass(frozen=True)
class Program:
    """One executable of a component."""

    name: str
    component: str
    version: str
    built: str  # the version that `go build` gives; another one only where the official sources are no Go module
    gomod: str  # empty: it is not built here
    package: str = ""
    c_source: str = ""  # "module:path" of a C file, for the one program that is not Go
    cgo: bool = False
    tags: tuple[str, ...] = ()
    member: str | None = None
    release: str | None = None
    sha256: Mapping[str, str] = field(default_factory=dict, hash=False)
    sums: str | None = None

    def download(self, arch: str) -> Download | None:
        """Where its official release is, or None when there is none that can be checked."""
        if self.release is None:
            return None
        url = self._fill(self.release, arch)
        return Download(url, self.sha256.get(arch), self._fill(self.sums, arch, url=url) if self.sums else None)

    def member_in(self, arch: str) -> str | None:
        """Its place in the downloaded archive; None when the download is the program itself."""
        return self._fill(self.member, arch) if self.member else None

    def _fill(self, template: str, arch: str, url: str = "") -> str:
        return template.format(version=self.version, bare=self.version.removeprefix("v"), arch=arch, program=self.name, url=url)


@dataclass(frozen=True)
class Image:
    """One container image: its official name, and what it is built of where no registry can be reached."""

    key: str
    name: str
    core: bool = False
    own: bool = False  # the course's own: no registry has it
    base: str = ""
    packages: tuple[str, ...] = ()
    suite: str = ""  # the Debian that the packages are of, where it is not the nodes' (only for an image without `base`)
    programs: Mapping[str, str] = field(default_factory=dict)
    links: Mapping[str, str] = field(default_factory=dict)
    dirs: tuple[str, ...] = ()
    files: str = ""  # a folder of image-files/, laid over the rest
    applets: bool = False
    passwd: tuple[str, ...] = ()
    group: tuple[str, ...] = ()
    entrypoint: tuple[str, ...] = ()
    cmd: tuple[str, ...] = ()
    env: tuple[str, ...] = ()
    ports: tuple[str, ...] = ()
    user: str = ""
    stop: str = ""


@dataclass(frozen=True)
class Versions:
    debian: str
    programs: Mapping[str, Program]
    images: Mapping[str, Image]

    def program(self, name: str) -> Program:
        if name not in self.programs:
            raise BadInput(f"no program {name!r} is pinned", f"There are: {', '.join(sorted(self.programs))}")
        return self.programs[name]

    def image(self, name: str) -> Image:
        """An image by its key in the file ("nginx") or by its full name ("docker.io/library/nginx:1.22")."""
        for image in self.images.values():
            if name in (image.key, image.name, image.name.removeprefix("docker.io/"), image.name.removeprefix("docker.io/library/")):
                return image
        raise BadInput(f"no image {name!r} is pinned", f"There are: {', '.join(sorted(self.images))}")

    def image_names(self, *keys: str) -> dict[str, str]:
        return {key: self.image(key).name for key in keys}

    def of(self, component: str) -> list[Program]:
        return [program for program in self.programs.values() if program.component == component]


def parse(text: str) -> Versions:
    table = tomllib.loads(text)
    programs = {program.name: program for name, raw in table["components"].items() for program in _programs(name, raw)}
    images = {key: _image(key, raw) for key, raw in table["images"].items()}
    for image in images.values():
        for program in image.programs:
            if program not in programs:
                raise BadInput(f"versions.toml: image {image.key} wants the program {program!r}, which no component has")
    return Versions(table["debian"], programs, images)


@cache
def pinned() -> Versions:
    return parse(FILE.read_text())


def _programs(component: str, raw: dict[str, Any]) -> Iterator[Program]:
    for name, own in raw["programs"].items():
        yield Program(
            name=name,
            component=component,
            version=raw["version"],
            built=raw.get("built", raw["version"]),
            gomod=raw.get("gomod", ""),
            package=own.get("package", ""),
            c_source=own.get("c", ""),
            cgo=raw.get("cgo", False),
            tags=tuple(raw.get("tags", ())),
            member=own.get("member"),
            release=own.get("release", raw.get("release")),
            sha256=own.get("sha256", raw.get("sha256", {})),
            sums=raw.get("sums"),
        )


def _image(key: str, raw: dict[str, Any]) -> Image:
    values: dict[str, Any] = {name: tuple(value) if isinstance(value, list) else value for name, value in raw.items()}
    return Image(key=key, **values)
