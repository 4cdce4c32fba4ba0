"""Layers of container images, made from Debian packages and single files. Pure: files in, one tar file out, byte for byte the same.

A .deb is an ar(1) archive that holds data.tar.xz. A package's scripts are not run; the few things that matter of what they
would have done are done here (`furnish`).
"""

from __future__ import annotations

import hashlib
import io
import lzma
import re
import tarfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path
from posixpath import dirname, normpath

from lab_utils.errors import ArtifactFailed

# Manuals, and the C library's tables for old character sets.
LEFT_OUT = (
    *("usr/share/doc/*", "usr/share/man/*", "usr/share/locale/*", "usr/share/info/*", "usr/share/lintian/*", "usr/share/bug/*"),
    "usr/lib/*/gconv/*",
)

# Debian has these folders merged into /usr, while some packages still carry the old places.
MERGED = ("bin", "sbin", "lib", "lib32", "lib64", "libx32")

# Packages whose work is done when a system is installed. Others depend on them for their scripts, which are not run here.
INSTALLERS = {
    *("adduser", "apt", "debconf", "dpkg", "init-system-helpers", "install-info", "libdebconfclient0", "lsb-base", "passwd"),
    *("perl-base", "sensible-utils", "sysvinit-utils", "tar", "ucf"),
}

# What update-alternatives would have linked. package → {link: target}
ALTERNATIVES: dict[str, dict[str, str]] = {
    "iptables": {
        f"/usr/sbin/{name}": f"/usr/sbin/{name.replace('tables', 'tables-nft', 1)}"
        for name in ("iptables", "iptables-save", "iptables-restore", "ip6tables", "ip6tables-save", "ip6tables-restore")
    },
    "mawk": {"/usr/bin/awk": "/usr/bin/mawk"},
    "netcat-openbsd": {"/usr/bin/nc": "/usr/bin/nc.openbsd", "/usr/bin/netcat": "/usr/bin/nc.openbsd"},
}


@dataclass
class _Item:
    info: tarfile.TarInfo
    data: bytes | Path = b""


class Layer:
    """A set of files by path. What is added later wins."""

    def __init__(self) -> None:
        self._items: dict[str, _Item] = {}

    def __contains__(self, path: str) -> bool:
        return _place(path) in self._items

    def read(self, path: str) -> bytes:
        data = self._items[_place(path)].data
        return data if isinstance(data, bytes) else data.read_bytes()

    def paths(self) -> list[str]:
        return sorted(self._items)

    def file(self, path: str, data: bytes | Path, mode: int = 0o644) -> None:
        info = tarfile.TarInfo(_place(path))
        info.mode = mode
        info.size = len(data) if isinstance(data, bytes) else data.stat().st_size
        self._items[info.name] = _Item(info, data)

    def link(self, path: str, target: str) -> None:
        info = tarfile.TarInfo(_place(path))
        info.type, info.linkname, info.mode = tarfile.SYMTYPE, target, 0o777
        self._items[info.name] = _Item(info)

    def dir(self, path: str, mode: int = 0o755) -> None:
        info = tarfile.TarInfo(_place(path))
        info.type, info.mode = tarfile.DIRTYPE, mode
        self._items[info.name] = _Item(info)

    def deb(self, package: Path) -> None:
        """All files of a Debian package, but for its manuals."""
        with tarfile.open(fileobj=io.BytesIO(_data_tar(package))) as tar:
            for info in tar:
                name = _place(info.name)
                if not name or name in MERGED or any(fnmatch(name, pattern) for pattern in LEFT_OUT):
                    continue
                if info.isdir() and name in self._items:
                    continue
                source = tar.extractfile(info) if info.isreg() else None
                info.name = name
                if info.islnk():
                    info.linkname = _place(info.linkname)
                self._items[name] = _Item(info, source.read() if source else b"")

    def tree(self, folder: Path) -> None:
        """All files of a folder. Scripts keep their executable bit."""
        for path in sorted(folder.rglob("*")):
            if path.is_file():
                self.file(str(path.relative_to(folder)), path.read_bytes(), 0o755 if path.stat().st_mode & 0o100 else 0o644)

    def furnish(self, packages: Iterable[str]) -> None:
        """What the packages' own scripts would have made."""
        names = set(packages)
        if "base-files" in names or "libc6" in names:
            for name in MERGED[:3]:
                self.link(name, f"usr/{name}")
            if any(path.startswith("usr/lib64/") for path in self._items):
                self.link("lib64", "usr/lib64")
            self.dir("tmp", 0o1777)
            for name in ("proc", "sys", "dev", "run", "root", "etc", "var/tmp"):
                self.dir(name, {"root": 0o700, "var/tmp": 0o1777}.get(name, 0o755))
        for package in sorted(names & set(ALTERNATIVES)):
            for link, target in ALTERNATIVES[package].items():
                self.link(link, target)
        for name, master in (("passwd", "passwd.master"), ("group", "group.master")):
            if f"usr/share/base-passwd/{master}" in self:
                self.file(f"etc/{name}", self.read(f"usr/share/base-passwd/{master}"))
        if "usr/share/libc-bin/nsswitch.conf" in self:
            self.file("etc/nsswitch.conf", self.read("usr/share/libc-bin/nsswitch.conf"))
        certificates = [path for path in self.paths() if path.startswith("usr/share/ca-certificates/") and path.endswith(".crt")]
        if certificates:
            self.file("etc/ssl/certs/ca-certificates.crt", b"".join(self.read(path) for path in certificates))

    def applets(self, busybox: str = "usr/bin/busybox") -> None:
        """The links by which busybox is its many commands, at the places that its package would give them."""
        for name in applet_names(self.read(busybox)):
            if f"usr/bin/{name}" not in self:
                self.link(f"usr/bin/{name}", "busybox")

    def write(self, target: Path) -> str:
        """Write the layer and return its sha256. Folders that only a path implies are added; nothing depends on the clock."""
        for path in list(self._items):
            while path := dirname(path):
                if path not in self._items:
                    self.dir(path)
        digest = hashlib.sha256()
        with target.open("wb") as file, tarfile.open(fileobj=_Tee(file, digest), mode="w|", format=tarfile.PAX_FORMAT) as tar:  # type: ignore[call-overload]
            # Links to other names come last: what they point to must have been written.
            for item in sorted(self._items.values(), key=lambda item: (item.info.islnk(), item.info.name)):
                item.info.mtime, item.info.uname, item.info.gname, item.info.pax_headers = 0, "", "", {}
                if isinstance(item.data, Path):
                    with item.data.open("rb") as source:
                        tar.addfile(item.info, source)
                else:
                    tar.addfile(item.info, io.BytesIO(item.data))
        return digest.hexdigest()


class _Tee:
    """Writes and digests in one go."""

    def __init__(self, file: io.BufferedWriter, digest: hashlib._Hash) -> None:
        self.file, self.digest = file, digest

    def write(self, data: bytes) -> int:
        self.digest.update(data)
        return self.file.write(data)


def applet_names(busybox: bytes) -> list[str]:
    """The commands that a busybox binary holds: it carries their names as one sorted run of C strings that starts with "[". Pure."""
    for start in re.finditer(rb"\0\[\0\[\[\0", busybox):
        names: list[bytes] = []
        for word in busybox[start.start() + 1 : start.start() + 16384].split(b"\0"):
            if not re.fullmatch(rb"[\[\w.+-]+", word) or (names and word <= names[-1]):
                break
            names.append(word)
        if {b"sh", b"wget", b"nslookup"} <= set(names):
            return [name.decode() for name in names if name != b"busybox"]
    raise ArtifactFailed("the busybox package is not as expected: no list of commands in it")


def users(layer: Layer, below: Mapping[str, bytes], passwd: Iterable[str], group: Iterable[str]) -> None:
    """Add lines to /etc/passwd and /etc/group; `below` has these files as the layers beneath have them."""
    for path, lines in (("etc/passwd", list(passwd)), ("etc/group", list(group))):
        if lines:
            old = layer.read(path) if path in layer else below.get(path, b"")
            layer.file(path, old + "".join(f"{line}\n" for line in lines).encode())


def _place(path: str) -> str:
    """Where a path of an archive lies in a merged system, without a slash in front. Pure."""
    clean = normpath("/" + path).lstrip("/")
    first, _, rest = clean.partition("/")
    return f"usr/{clean}" if first in MERGED and rest else clean


def _data_tar(package: Path) -> bytes:
    raw = package.read_bytes()
    if not raw.startswith(b"!<arch>\n"):
        raise ArtifactFailed(f"{package.name} is not a Debian package")
    offset = 8
    while offset + 60 <= len(raw):
        name = raw[offset : offset + 16].decode().strip().rstrip("/")
        size = int(raw[offset + 48 : offset + 58])
        data = raw[offset + 60 : offset + 60 + size]
        if name == "data.tar.xz":
            return lzma.decompress(data)
        if name in ("data.tar", "data.tar.gz"):
            return data if name == "data.tar" else _gunzip(data)
        if name.startswith("data.tar"):
            raise ArtifactFailed(f"{package.name} is packed in a way not known here: {name}")
        offset += 60 + size + size % 2
    raise ArtifactFailed(f"{package.name} is cut short")


def _gunzip(data: bytes) -> bytes:
    import gzip

    return gzip.decompress(data)
