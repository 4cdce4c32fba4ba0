"""Pulling an image, from a real server on loopback that speaks the registry's protocol."""

from __future__ import annotations

import hashlib
import json
import tarfile
from pathlib import Path

import pytest

from lab_utils.artifacts import registry
from lab_utils.errors import ArtifactFailed
from lab_utils.progress import Silent
from lab_utils.run import end_all
from tests.artifacts.conftest import Mirror, Told

BASE = "https://registry-1.docker.io/v2/library/busybox"
INDEX = "application/vnd.oci.image.index.v1+json"
MANIFEST = "application/vnd.oci.image.manifest.v1+json"


def digest(data: bytes) -> str:
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


@pytest.fixture
def published(mirror: Mirror) -> Mirror:
    config, layer = b'{"architecture":"arm64"}', b"a layer" * 100
    manifest = json.dumps(
        {"config": {"digest": digest(config), "size": len(config)}, "layers": [{"digest": digest(layer), "size": len(layer)}]}
    ).encode()
    other = b'{"config":{},"layers":[]}'
    platforms = [("amd64", other), ("arm64", manifest)]
    index = {"manifests": [{"digest": digest(data), "platform": {"architecture": arch, "os": "linux"}} for arch, data in platforms]}
    mirror.put(f"{BASE}/manifests/1.37", json.dumps(index).encode(), Content_Type=INDEX)
    mirror.put(f"{BASE}/manifests/{digest(manifest)}", manifest, Content_Type=MANIFEST)
    mirror.put(f"{BASE}/blobs/{digest(config)}", config)
    mirror.put(f"{BASE}/blobs/{digest(layer)}", layer)
    return mirror


def test_the_image_of_the_right_architecture_arrives_whole(published: Mirror, tmp_path: Path) -> None:
    got = registry.pull("docker.io/library/busybox:1.37", "arm64", tmp_path / "b.tar", Silent())
    with tarfile.open(tmp_path / "b.tar") as tar:
        names = tar.getnames()
        file = tar.extractfile("index.json")
        assert file is not None
        entry = json.load(file)["manifests"][0]
        assert entry["digest"] == got
        assert entry["annotations"]["io.containerd.image.name"] == "docker.io/library/busybox:1.37"
        for name in names:
            if name.startswith("blobs/"):
                blob = tar.extractfile(name)
                assert blob is not None
                assert hashlib.sha256(blob.read()).hexdigest() == name.rsplit("/", 1)[1]
    assert len([name for name in names if name.startswith("blobs/")]) == 3


def test_a_layer_with_another_checksum_is_refused(published: Mirror, tmp_path: Path) -> None:
    path = next(path for path in published.files if "/blobs/" in path)
    published.files[path] = published.files[path][::-1]
    with pytest.raises(ArtifactFailed, match="another checksum than promised"):
        registry.pull("docker.io/library/busybox:1.37", "arm64", tmp_path / "b.tar", Silent())
    assert list(tmp_path.glob("*.blob")) == []


def test_what_went_wrong_on_the_way_is_pulled_once_more(published: Mirror, tmp_path: Path, told: Told) -> None:
    path = next(path for path in published.files if "/blobs/" in path)
    published.once[path] = published.files[path][::-1]
    registry.pull("docker.io/library/busybox:1.37", "arm64", tmp_path / "b.tar", told)
    assert "a layer came with another checksum than promised; once more" in told
    assert tarfile.is_tarfile(tmp_path / "b.tar")


def test_a_missing_tag_says_so_and_is_asked_for_once(published: Mirror, tmp_path: Path) -> None:
    with pytest.raises(ArtifactFailed, match="could not be pulled: 404"):
        registry.pull("docker.io/library/busybox:0.1", "arm64", tmp_path / "b.tar", Silent())
    assert len(published.asked) == 1


def test_ctrl_c_in_another_thread_ends_a_pull_between_two_pieces(published: Mirror, tmp_path: Path) -> None:
    end_all()
    with pytest.raises(KeyboardInterrupt):
        registry.pull("docker.io/library/busybox:1.37", "arm64", tmp_path / "b.tar", Silent())
    assert list(tmp_path.glob("*.blob")) == []


def test_names_are_taken_apart() -> None:
    name = registry.parse_name("registry.k8s.io/coredns/coredns:v1.14.2")
    assert (name.host, name.repository, name.tag) == ("registry.k8s.io", "coredns/coredns", "v1.14.2")


def test_a_registry_that_is_not_there_is_known_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LAB_RELEASES", "http://127.0.0.1:9")
    assert registry.answering(["docker.io/library/busybox:1.37"]) == set()
