"""Pulls an image from its registry into an archive, by the distribution protocol
(https://github.com/opencontainers/distribution-spec/blob/main/spec.md). Anonymous, one architecture, every blob checked.
"""

from __future__ import annotations

import hashlib
import io
import json
import re
import tarfile
import urllib.error
import urllib.request
from dataclasses import dataclass
from http.client import HTTPException, HTTPResponse
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

from lab_utils.artifacts.download import CHUNK, FINAL, READ_SECONDS, address, reachable
from lab_utils.errors import ArtifactFailed
from lab_utils.progress import Progress
from lab_utils.run import stop_if_ended

MANIFESTS = (
    "application/vnd.oci.image.index.v1+json",
    "application/vnd.docker.distribution.manifest.list.v2+json",
    "application/vnd.oci.image.manifest.v1+json",
    "application/vnd.docker.distribution.manifest.v2+json",
)


@dataclass(frozen=True)
class Name:
    """An image's full name, taken apart: where its registry is, which repository, which tag."""

    host: str
    repository: str
    tag: str

    @property
    def url(self) -> str:
        return f"https://{self.host}/v2/{self.repository}"


def parse_name(name: str) -> Name:
    host, _, rest = name.partition("/")
    repository, _, tag = rest.rpartition(":")
    # Docker Hub's API has another host than its names.
    return Name({"docker.io": "registry-1.docker.io"}.get(host, host), repository, tag)


def answering(names: list[str]) -> set[str]:
    """Those of the images whose registry answers."""
    urls = {name: parse_name(name).url for name in names}
    there = reachable(urls.values())
    return {name for name, url in urls.items() if url in there}


def pull(name: str, arch: str, target: Path, progress: Progress) -> str:
    """Write the image's archive to `target` and return the digest of its manifest. What went wrong on the way is tried once more."""
    try:
        return _pull(name, arch, target, progress)
    except ArtifactFailed as problem:
        if isinstance(problem.__cause__, urllib.error.HTTPError) and problem.__cause__.code in FINAL:
            raise
        progress.note(f"{problem.what}; once more")
    return _pull(name, arch, target, progress)


def _pull(name: str, arch: str, target: Path, progress: Progress) -> str:
    try:
        return _Pull(parse_name(name), name, arch, progress).into(target)
    except (OSError, HTTPException, ValueError, KeyError) as error:
        said = f"{error.code} {error.reason}" if isinstance(error, urllib.error.HTTPError) else str(getattr(error, "reason", error))
        raise ArtifactFailed(f"{name} could not be pulled: {said}", "LAB_SOURCES=build builds it here") from error


class _Pull:
    def __init__(self, name: Name, full: str, arch: str, progress: Progress) -> None:
        self.name, self.full, self.arch, self.progress = name, full, arch, progress
        self.token = ""

    def into(self, target: Path) -> str:
        data, kind = self._manifest(self.name.tag)
        manifest = json.loads(data)
        if "manifests" in manifest:
            digest = next(one["digest"] for one in manifest["manifests"] if _fits(one, self.arch))
            data, kind = self._manifest(digest)
            manifest = json.loads(data)
        digest = f"sha256:{hashlib.sha256(data).hexdigest()}"
        named = {"mediaType": kind, "digest": digest, "size": len(data)}
        named["annotations"] = {"io.containerd.image.name": self.full, "org.opencontainers.image.ref.name": self.name.tag}
        blobs = [manifest["config"], *manifest["layers"]]
        docker = [{"Config": _place(blobs[0]["digest"]), "RepoTags": [self.full], "Layers": [_place(blob["digest"]) for blob in blobs[1:]]}]
        with tarfile.open(target, "w") as tar:
            _add(tar, "oci-layout", b'{"imageLayoutVersion":"1.0.0"}')
            _add(tar, "index.json", json.dumps({"schemaVersion": 2, "manifests": [named]}).encode())
            _add(tar, "manifest.json", json.dumps(docker).encode())
            _add(tar, _place(digest), data)
            for blob in {one["digest"]: one for one in blobs}.values():
                self._blob(tar, blob, target.with_suffix(".blob"))
        return digest

    def _manifest(self, reference: str) -> tuple[bytes, str]:
        with self._get(f"{self.name.url}/manifests/{reference}", {"Accept": ", ".join(MANIFESTS)}) as answer:
            data = answer.read()
            kind = str(answer.headers.get_content_type())
        if reference.startswith("sha256:") and f"sha256:{hashlib.sha256(data).hexdigest()}" != reference:
            raise ArtifactFailed(f"{self.full}: its manifest is not what its index promises")
        return data, kind

    def _blob(self, tar: tarfile.TarFile, blob: dict[str, Any], scratch: Path) -> None:
        digest = hashlib.sha256()
        done, size = 0, int(blob["size"])
        try:
            with self._get(f"{self.name.url}/blobs/{blob['digest']}", {}) as answer, scratch.open("wb") as file:
                while chunk := answer.read(CHUNK):
                    stop_if_ended()
                    file.write(chunk)
                    digest.update(chunk)
                    done += len(chunk)
                    self.progress.now(f"{self.full}: {done >> 20} of {size >> 20} MB")
            if f"sha256:{digest.hexdigest()}" != blob["digest"]:
                raise ArtifactFailed(f"{self.full}: a layer came with another checksum than promised")
            info = tarfile.TarInfo(_place(blob["digest"]))
            info.size = done
            with scratch.open("rb") as source:
                tar.addfile(info, source)
        finally:
            scratch.unlink(missing_ok=True)

    def _get(self, url: str, headers: dict[str, str]) -> HTTPResponse:
        """GET; when the registry asks for a token, get one without a password and ask again."""
        for _ in range(2):
            request = urllib.request.Request(address(url), headers=headers)
            if self.token:
                # Not sent on to where a redirect leads: storage servers refuse it.
                request.add_unredirected_header("Authorization", f"Bearer {self.token}")
            try:
                return urllib.request.urlopen(request, timeout=READ_SECONDS)  # type: ignore[no-any-return]
            except urllib.error.HTTPError as error:
                challenge = dict(re.findall(r'(\w+)="([^"]*)"', error.headers.get("WWW-Authenticate", "")))
                if error.code != 401 or self.token or "realm" not in challenge:
                    raise
                self._ask_token(challenge)
        raise ArtifactFailed(f"{self.full}: its registry does not accept the token that it gave")

    def _ask_token(self, challenge: dict[str, str]) -> None:
        query = urlencode([(key, value) for key, value in challenge.items() if key in ("service", "scope")])
        with urllib.request.urlopen(f"{address(challenge['realm'])}?{query}", timeout=READ_SECONDS) as answer:
            said = json.load(answer)
        self.token = said.get("token") or said["access_token"]


def _fits(entry: dict[str, Any], arch: str) -> bool:
    platform = entry.get("platform", {})
    return (platform.get("architecture"), platform.get("os")) == (arch, "linux")


def _place(digest: str) -> str:
    return f"blobs/{digest.replace(':', '/')}"


def _add(tar: tarfile.TarFile, name: str, data: bytes) -> None:
    info = tarfile.TarInfo(name)
    info.size = len(data)
    tar.addfile(info, io.BytesIO(data))
