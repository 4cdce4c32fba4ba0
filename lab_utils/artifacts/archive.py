"""Container images as one tar file that containerd, Docker and skopeo read. Pure but for reading layers and writing that file.

An OCI image layout (https://github.com/opencontainers/image-spec/blob/main/image-layout.md) with Docker's manifest.json beside it.
"""

from __future__ import annotations

import hashlib
import io
import json
import tarfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from lab_utils.artifacts.versions import Image

PATH = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
BUILT_HERE = "kubernetes-inside-out.built-locally"


@dataclass(frozen=True)
class LayerFile:
    """A layer on disk; its digest is that of the uncompressed tar file."""

    path: Path
    sha256: str
    made_of: str


def config(image: Image, layers: Sequence[LayerFile], arch: str) -> dict[str, object]:
    """The image's configuration (image-spec/config.md)."""
    inner: dict[str, object] = {"Env": [PATH, *image.env], "Labels": {BUILT_HERE: "true", "org.opencontainers.image.ref.name": image.name}}
    for key, value in (("Entrypoint", list(image.entrypoint)), ("Cmd", list(image.cmd)), ("User", image.user), ("StopSignal", image.stop)):
        if value:
            inner[key] = value
    if image.ports:
        inner["ExposedPorts"] = {port: {} for port in image.ports}
    return {
        "architecture": arch,
        "os": "linux",
        "config": inner,
        "rootfs": {"type": "layers", "diff_ids": [f"sha256:{layer.sha256}" for layer in layers]},
        "history": [{"created_by": layer.made_of} for layer in layers],
    }


def write(image: Image, layers: Sequence[LayerFile], arch: str, target: Path) -> str:
    """Write the archive; returns the digest of its manifest, which is what names the image."""
    config_blob = _json(config(image, layers, arch))
    manifest = _json(
        {
            "schemaVersion": 2,
            "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "config": _descriptor("application/vnd.oci.image.config.v1+json", config_blob),
            "layers": [
                {
                    "mediaType": "application/vnd.oci.image.layer.v1.tar",
                    "digest": f"sha256:{layer.sha256}",
                    "size": layer.path.stat().st_size,
                }
                for layer in layers
            ],
        }
    )
    named = _descriptor("application/vnd.oci.image.manifest.v1+json", manifest)
    named["platform"] = {"architecture": arch, "os": "linux"}
    named["annotations"] = {"io.containerd.image.name": image.name, "org.opencontainers.image.ref.name": image.name.rsplit(":", 1)[-1]}
    docker = [{"Config": _blob(config_blob), "RepoTags": [image.name], "Layers": [f"blobs/sha256/{layer.sha256}" for layer in layers]}]
    with tarfile.open(target, "w") as tar:
        _add(tar, "oci-layout", _json({"imageLayoutVersion": "1.0.0"}))
        _add(tar, "index.json", _json({"schemaVersion": 2, "mediaType": "application/vnd.oci.image.index.v1+json", "manifests": [named]}))
        _add(tar, "manifest.json", _json(docker))
        for blob in (config_blob, manifest):
            _add(tar, _blob(blob), blob)
        for digest, path in {layer.sha256: layer.path for layer in layers}.items():
            info = tarfile.TarInfo(f"blobs/sha256/{digest}")
            info.size = path.stat().st_size
            with path.open("rb") as file:
                tar.addfile(info, file)
    return str(named["digest"])


def _descriptor(media_type: str, blob: bytes) -> dict[str, object]:
    return {"mediaType": media_type, "digest": f"sha256:{hashlib.sha256(blob).hexdigest()}", "size": len(blob)}


def _blob(blob: bytes) -> str:
    return f"blobs/sha256/{hashlib.sha256(blob).hexdigest()}"


def _json(value: object) -> bytes:
    return json.dumps(value, sort_keys=True, separators=(",", ":")).encode()


def _add(tar: tarfile.TarFile, name: str, data: bytes) -> None:
    info = tarfile.TarInfo(name)
    info.size = len(data)
    tar.addfile(info, io.BytesIO(data))
