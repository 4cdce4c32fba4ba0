"""The bare Debian below every node and, package by package, below the images."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote

from lab_utils.artifacts import store
from lab_utils.artifacts.chroot import alone, in_root, need_root
from lab_utils.artifacts.programs import arch
from lab_utils.artifacts.store import Provenance
from lab_utils.artifacts.versions import pinned
from lab_utils.artifacts.words import failed
from lab_utils.errors import ArtifactFailed, CommandFailed, HostLacks
from lab_utils.host.packages import how_to_install
from lab_utils.paths import repo_dir, root_cache_dir
from lab_utils.progress import Progress
from lab_utils.run import follow

KEYRING = Path("/usr/share/keyrings/debian-archive-keyring.gpg")
BOOTSTRAPS = ("mmdebstrap", "debootstrap")  # the quicker one first

# Nobody reads manuals in a node, and without them the root is a third smaller.
LEFT_OUT = ("/usr/share/doc/*", "/usr/share/man/*", "/usr/share/locale/*", "/usr/share/info/*", "/usr/share/lintian/*")

# A mirror drops a package when a newer one comes, so older lists name files that are gone.
FRESH_SECONDS = 24 * 3600

# apt, made to look at nothing that is installed, and to take only what is needed. Its lists and sources lie beside the base.
APT = [
    "apt-get",
    "--assume-yes",
    "--no-install-recommends",
    "-o=Dir::State::status=/dev/null",
    "-o=Debug::NoLocking=1",
    "-o=APT::Sandbox::User=root",
    "-o=Acquire::Languages=none",
    "-o=Dir::Cache=/tmp/cache",  # the base is not written to
    "-o=Dir::State::Lists=/mnt/apt/lists",
    "-o=Dir::Etc::SourceList=/mnt/apt/sources.list",
    "-o=Dir::Etc::SourceParts=/dev/null",
]


@dataclass(frozen=True)
class Deb:
    """One Debian package, as apt resolved it."""

    name: str
    version: str
    file: str


def provision_dir() -> Path:
    return repo_dir() / "vagrant" / "provision"


def packages() -> list[str]:
    """What a node has installed: the names in vagrant/provision/packages.txt."""
    lines = (provision_dir() / "packages.txt").read_text().splitlines()
    return [line.split("#")[0].strip() for line in lines if line.split("#")[0].strip()]


def base_place() -> Path:
    suite = pinned().debian
    return root_cache_dir() / "debian" / f"{suite}-{store.recipe(suite, packages(), LEFT_OUT, arch())}"


def lacking() -> dict[str, str]:
    """What this machine lacks to make the base: its name in lab_utils/host/packages.txt → in words. Nothing once the base is there."""
    place = base_place()
    if store.read(place) and place.exists():
        return {}
    found = {}
    if not any(map(shutil.which, BOOTSTRAPS)):
        found["bootstrap"] = "mmdebstrap (or debootstrap), which makes the nodes' Debian"
    if not KEYRING.exists():
        found["debian-keys"] = "Debian's archive keys, which it is checked with"
    if not all(map(shutil.which, ("setpriv", "unshare"))):
        found["util-linux"] = "util-linux, which sets it apart from this machine meanwhile"
    return found


def base(progress: Progress) -> Path:
    """A Debian root with a node's packages and nothing of Kubernetes. apt's lists are kept beside it."""
    suite, place = pinned().debian, base_place()
    if store.find(place, progress):
        return place
    need_root("a Debian root")
    with store.locked(place, progress):
        if store.find(place, progress):
            return place
        with progress.step(f"install Debian {suite} with {len(packages())} packages"), store.making(place) as part:
            watch = store.stopwatch()
            _bootstrap(suite, part / "root", progress)
            version = (part / "root" / "etc" / "debian_version").read_text().strip()
            detail = f"{suite}: {len(_installed(part / 'root'))} packages, checked by apt"
            store.finish(place, Provenance("debian", version, "debian", detail=detail, seconds=watch.seconds), tree=True)
    return place


def _bootstrap(suite: str, root: Path, progress: Progress) -> None:
    said: list[str] = []

    def line(text: str) -> None:
        said.append(text)
        if text.startswith(("Get:", "Unpacking", "Setting up", "I: ")):
            progress.now(" ".join(text.split()[:4]))

    if lacks := lacking():
        raise HostLacks(f"not here: {', '.join(lacks.values())}", how_to_install(lacks))
    options = ['Acquire::Languages "none"', 'APT::Install-Recommends "false"']
    if shutil.which("mmdebstrap"):
        argv = ["mmdebstrap", "--variant=minbase", "--mode=root", f"--include={','.join(packages())}"]
        argv += [f"--aptopt={option}" for option in options] + ["--dpkgopt=force-unsafe-io"]
        argv += [f"--dpkgopt=path-exclude={pattern}" for pattern in LEFT_OUT]
        argv += [suite, str(root)]
    else:
        argv = ["debootstrap", "--variant=minbase", f"--keyring={KEYRING}", f"--include={','.join(packages())}", suite, str(root)]
    code = follow([*alone(), "--mount-proc", *argv], line, env={"TMPDIR": str(root.parent)})
    if code != 0:
        reasons = [text for text in said if text.startswith(("E:", "dpkg:"))]
        raise failed("installing Debian failed", "\n".join(said), "Is your Debian mirror reachable?", reason=reasons[0] if reasons else "")


def lists(debian: Path, suite: str, progress: Progress) -> Path:
    """The folder with apt's lists of a suite, at most a day old where a mirror answers."""
    folder = root_cache_dir() / "debian" / f"lists-{suite}"
    if not _fresh(folder):
        with store.locked(folder, progress):
            if not _fresh(folder):  # unless another command has fetched them meanwhile
                _update(debian, suite, folder, progress)
    return folder


def _fresh(lists: Path) -> bool:
    stamp = lists / "updated"
    return stamp.exists() and time.time() - stamp.stat().st_mtime < FRESH_SECONDS


def _update(debian: Path, suite: str, folder: Path, progress: Progress) -> None:
    """Let apt fetch the lists. Hold the lock: it was told to take none of its own."""
    stamp = folder / "updated"
    (folder / "lists" / "partial").mkdir(parents=True, exist_ok=True)
    sources = (debian / "root/etc/apt/sources.list").read_text()
    (folder / "sources.list").write_text(sources.replace(pinned().debian, suite))
    progress.now(f"apt's lists of Debian {suite}")
    try:
        in_root(debian / "root", [*APT, "update", "-q"], binds={folder: "/mnt/apt", **_resolver()}, env=_proxies())
    except CommandFailed as problem:
        if not stamp.exists():
            raise _no_mirror(f"the lists of Debian {suite} cannot be had", problem) from None
        progress.note(f"no Debian mirror answers: the lists of {suite} stay as they were")
        return
    stamp.touch()


def closure(debian: Path, wanted: Iterable[str], apt: Path) -> list[Deb]:
    """These packages and everything that they depend on, as if nothing were installed. `apt` is a suite's folder of lists."""
    argv = [*APT, "-o=Dir::Cache::archives=/tmp/none", "install", "--print-uris", "-qq", *wanted]
    try:
        lines = in_root(debian / "root", ["sh", "-c", 'mkdir -p /tmp/none/partial; exec "$@"', "apt", *argv], binds={apt: "/mnt/apt"})
    except CommandFailed as problem:
        raise failed("Debian packages cannot be resolved", problem.stdout) from None
    return parse_uris(lines)


def parse_uris(lines: Sequence[str]) -> list[Deb]:
    """What `apt-get --print-uris` says: 'URI' file size hash. Pure."""
    found = []
    for line in lines:
        if line.startswith("'") and len(words := line.split()) >= 3:
            name, version, _ = words[1].removesuffix(".deb").split("_")
            found.append(Deb(name, unquote(version), words[1]))
    return sorted(found, key=lambda deb: deb.name)


def fetch_debs(debian: Path, wanted: Iterable[str], apt: Path, progress: Progress) -> Path:
    """Download packages with all that they depend on, for making layers. apt checks their signatures. Returns the folder."""
    need_root("downloading Debian packages for images")
    folder = root_cache_dir() / "debs"
    argv = [*APT, "-o=Dir::Cache::archives=/mnt/debs", "install", "--download-only", "-q", *wanted]

    def line(text: str) -> None:
        if text.startswith("Get:"):
            progress.now(" ".join(text.split()[:5]))

    # The folder is everybody's, and the lists must not change below apt. Whoever makes lists holds no other lock than theirs.
    with store.locked(folder, progress), store.locked(apt, progress):
        (folder / "partial").mkdir(parents=True, exist_ok=True)
        try:
            in_root(debian / "root", argv, binds={folder: "/mnt/debs", apt: "/mnt/apt", **_resolver()}, env=_proxies(), on_line=line)
        except CommandFailed as problem:
            raise _no_mirror("Debian packages for images cannot be downloaded", problem) from None
    return folder


def _no_mirror(what: str, problem: CommandFailed) -> ArtifactFailed:
    return failed(what, problem.stdout, "Is your Debian mirror reachable?")


def _resolver() -> dict[Path, str]:
    return {Path("/etc/resolv.conf").resolve(): "/etc/resolv.conf"}


def _proxies() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if name.lower() in ("http_proxy", "https_proxy", "no_proxy")}


def _installed(root: Path) -> list[Path]:
    return list((root / "var/lib/dpkg/info").glob("*.list"))
