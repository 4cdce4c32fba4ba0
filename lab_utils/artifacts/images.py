"""Container images: from the cache, from their registry, or built here under their official names.

What is built here holds the same programs as the nodes, and Debian packages for the rest. A label on it says that it was built
here. Packages are laid into shared layers: first `debian` (a small userland), then what the image itself asks for.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from lab_utils.artifacts import archive, debian, programs, registry, store
from lab_utils.artifacts.archive import LayerFile
from lab_utils.artifacts.chroot import need_root
from lab_utils.artifacts.debian import Deb
from lab_utils.artifacts.layers import INSTALLERS, Layer, users
from lab_utils.artifacts.store import Provenance
from lab_utils.artifacts.versions import Image, pinned
from lab_utils.errors import ArtifactFailed
from lab_utils.paths import root_cache_dir
from lab_utils.progress import Progress

FILES = Path(__file__).with_name("image-files")

# The userland of the layer below all images with base = "debian": what one expects when one looks into a container.
USERLAND = (
    *(
        "base-files",
        "base-passwd",
        "bash",
        "ca-certificates",
        "coreutils",
        "dash",
        "debianutils",
        "findutils",
        "grep",
        "hostname",
        "libc-bin",
    ),
    # usr-is-merged: coreutils wants it or usrmerge, and the latter brings all of Perl.
    *("mawk", "ncurses-base", "netbase", "procps", "sed", "usr-is-merged"),
)

# Made anew when the way in which layers are made changes: the sources that make them.
_MAKERS = [Path(__file__).with_name(name) for name in ("layers.py", "archive.py")]


def core() -> list[Image]:
    return [image for image in pinned().images.values() if image.core]


def find(image: Image, progress: Progress) -> Path | None:
    """Its place in the cache, pulled or built, or None."""
    places = [_pulled(image)]
    if all(programs.known(name) for name in image.programs):
        places.append(_built(image))
    return next((place for place in places if store.find(place, progress)), None)


def to_build(wanted: Iterable[Image], progress: Progress) -> list[Image]:
    """Those of the images that are not in the cache and that no registry which answers has."""
    missing = [image for image in wanted if not find(image, progress)]
    there = registry.answering([image.name for image in missing if not image.own]) if "release" in programs.ways() else set()
    return [image for image in missing if image.name not in there]


def ensure(wanted: Iterable[Image], progress: Progress) -> dict[str, Path]:
    """Archives of images, by their key."""
    images = list(wanted)
    if not all(find(image, progress) for image in images):
        need_root("making images")
        # Programs first: compiling takes long, and nobody who wants another image should wait for it.
        programs.ensure([name for image in to_build(images, progress) for name in image.programs], progress)
        with store.locked(root_cache_dir() / "images" / "all", progress):
            _make([image for image in images if not find(image, progress)], progress)
    found = {image.key: find(image, progress) for image in images}
    return {key: place / f"{key}.tar" for key, place in found.items() if place}


def _make(missing: list[Image], progress: Progress) -> None:
    build = to_build(missing, progress)
    for image in missing:
        if image not in build and not _pull(image, progress):
            build.append(image)
    if build and "build" not in programs.ways():
        names = ", ".join(image.name for image in build)
        raise ArtifactFailed(f"not to be had in the ways that LAB_SOURCES allows: {names}", "Unset LAB_SOURCES")
    if build:
        programs.ensure([name for image in build for name in image.programs], progress)
        with progress.step(f"build {len(build)} images" if len(build) > 1 else f"build the image {build[0].name}"):
            _build(build, progress)


def _pull(image: Image, progress: Progress) -> bool:
    watch, place = store.stopwatch(), _pulled(image)
    try:
        with progress.step(f"pull {image.name}"), store.making(place) as part:
            digest = registry.pull(image.name, programs.arch(), part / f"{image.key}.tar", progress)
            version = image.name.rsplit(":", 1)[-1]
            store.finish(place, Provenance(image.name, version, "registry", digest.removeprefix("sha256:"), seconds=watch.seconds))
    except ArtifactFailed as problem:
        progress.note(f"{problem.what}; it is built here instead")
        return False
    return True


def _pulled(image: Image) -> Path:
    return root_cache_dir() / "images" / f"{image.key}-{store.recipe(image.name, programs.arch())}"


def _built(image: Image) -> Path:
    own = {name: programs.provenance_of(name).sha256 for name in image.programs}
    files = FILES / image.files if image.files else ""
    key = store.recipe(image, own, USERLAND if image.base else "", files, _MAKERS, pinned().debian, programs.arch())
    return root_cache_dir() / "images" / f"{image.key}-{key}"


def _build(images: Sequence[Image], progress: Progress) -> None:
    debs, folder = packages_for(images, progress)
    scratch = root_cache_dir() / "images" / "layers"
    with store.making(scratch) as work:
        shared: list[LayerFile] = []
        userland = Layer()
        if any(image.base for image in images):
            progress.now("the Debian layer")
            _add_debs(userland, debs["debian"], folder)
            shared = [LayerFile(work / "debian.tar", userland.write(work / "debian.tar"), _said(debs["debian"]))]
        for image in images:
            progress.now(image.name)
            watch = store.stopwatch()
            known = debs["debian"] if image.base else []
            own = _own_layers(image, [deb for deb in debs.get(image.key, []) if deb not in known], folder, userland, work)
            layers = [*shared, *own] if image.base else own
            place = _built(image)
            with store.making(place) as part:
                digest = archive.write(image, layers, programs.arch(), part / f"{image.key}.tar")
                detail = "built here of " + "; ".join(layer.made_of for layer in layers)
                version = image.name.rsplit(":", 1)[-1]
                store.finish(place, Provenance(image.name, version, "build", digest.removeprefix("sha256:"), "", detail, watch.seconds))
            for layer in own:
                layer.path.unlink()
            _forget_older(place, image.key)


def _forget_older(place: Path, key: str) -> None:
    """An archive of another recipe is of no use any more, and each is large."""
    for other in place.parent.glob(f"{key}-*.json"):
        old = other.with_suffix("")
        if old != place and re.fullmatch(rf"{re.escape(key)}-[0-9a-f]{{12}}", old.name):
            store.remove(old)


def packages_for(images: Iterable[Image], progress: Progress) -> tuple[dict[str, list[Deb]], Path]:
    """The Debian packages of each image, by its key ("debian" for the shared layer), and the folder that they lie in."""
    usual = pinned().debian
    lists = {image.key: [*(USERLAND if image.base else ()), *image.packages] for image in images if image.base or image.packages}
    if not lists:
        return {}, Path()
    suites = {image.key: image.suite or usual for image in images}
    lists["debian"], suites["debian"] = list(USERLAND), usual
    below = debian.base(progress)
    progress.now("resolving Debian packages")
    resolved: dict[str, list[Deb]] = {}
    folder = Path()
    for suite in sorted({suites[key] for key in lists}):
        apt = debian.lists(below, suite, progress)
        chosen = {key: names for key, names in lists.items() if suites[key] == suite}
        resolved |= {key: debian.closure(below, names, apt) for key, names in chosen.items()}
        folder = debian.fetch_debs(below, sorted({name for names in chosen.values() for name in names}), apt, progress)
    return resolved, folder


def _own_layers(image: Image, debs: Sequence[Deb], folder: Path, userland: Layer, work: Path) -> list[LayerFile]:
    """The image's packages as one layer, its programs and files as the next, so that a new program leaves the first as it was."""
    found = []
    packages = Layer()
    if debs:
        _add_debs(packages, debs, folder)
        if image.applets:
            packages.applets()
        path = work / f"{image.key}-packages.tar"
        found.append(LayerFile(path, packages.write(path), _said(debs)))
    own = Layer()
    if not image.base and not debs:
        own.dir("tmp", 0o1777)
        own.dir("etc")
        own.file("etc/passwd", b"root:x:0:0:root:/root:/sbin/nologin\nnobody:x:65534:65534:nobody:/nonexistent:/sbin/nologin\n")
        own.file("etc/group", b"root:x:0:\nnobody:x:65534:\n")
        own.file("etc/nsswitch.conf", b"hosts: files dns\n")
    for name, target in image.programs.items():
        own.file(target, programs.entry(pinned().program(name)) / name, 0o755)
    for link, target in image.links.items():
        own.link(link, target)
    for name in image.dirs:
        own.dir(name, 0o777 if name == "/uploads" else 0o755)
    if image.files:
        own.tree(FILES / image.files)
    below = _account_files(packages, userland if image.base else Layer())
    users(own, below, image.passwd, image.group)
    if own.paths():
        path = work / f"{image.key}-own.tar"
        made = [f"{name} {programs.provenance_of(name).version}" for name in image.programs] or ["the course's files"]
        found.append(LayerFile(path, own.write(path), ", ".join(made)))
    return found


def _account_files(*layers: Layer) -> Mapping[str, bytes]:
    found: dict[str, bytes] = {}
    for name in ("etc/passwd", "etc/group"):
        for layer in reversed(layers):
            if name in layer:
                found[name] = layer.read(name)
    return found


def _add_debs(layer: Layer, debs: Sequence[Deb], folder: Path) -> None:
    taken = [deb for deb in debs if deb.name not in INSTALLERS]
    for deb in taken:
        layer.deb(folder / deb.file)
    layer.furnish(deb.name for deb in taken)


def _said(debs: Sequence[Deb]) -> str:
    return "Debian " + " ".join(f"{deb.name}={deb.version}" for deb in debs if deb.name not in INSTALLERS)
