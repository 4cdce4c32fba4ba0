"""What the images in an archive are called, as `lab load` tells it."""

from __future__ import annotations

import io
import json
import tarfile
from pathlib import Path

import pytest

from lab_utils.artifacts.names import full_name, loaded, names


@pytest.mark.parametrize(
    ("said", "full"),
    [
        ("busybox", "docker.io/library/busybox:latest"),
        ("busybox:1.37", "docker.io/library/busybox:1.37"),
        ("me/app:1", "docker.io/me/app:1"),
        ("localhost/app:1", "localhost/app:1"),
        ("registry.lan:5000/app", "registry.lan:5000/app:latest"),
        ("registry.k8s.io/pause:3.10", "registry.k8s.io/pause:3.10"),
    ],
)
def test_short_names_are_those_of_docker(said: str, full: str) -> None:
    assert full_name(said) == full


def archive(path: Path, **files: object) -> Path:
    with tarfile.open(path, "w") as tar:
        for name, said in files.items():
            data = json.dumps(said).encode()
            info = tarfile.TarInfo(f"{name}.json")
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return path


def test_names_stand_in_dockers_manifest_or_in_the_annotations_of_an_index(tmp_path: Path) -> None:
    docker = archive(tmp_path / "docker.tar", manifest=[{"RepoTags": ["app:1", "me/app:2"]}, {"RepoTags": None}])
    assert names(docker) == {"docker.io/library/app:1", "docker.io/me/app:2"}
    marks = [{"io.containerd.image.name": "docker.io/me/app:3"}, {"org.opencontainers.image.ref.name": "latest"}]
    oci = archive(tmp_path / "oci.tar", index={"manifests": [*({"annotations": mark} for mark in marks), {}]})
    assert names(oci) == {"docker.io/me/app:3"}, "a tag alone names nothing"


def test_an_image_that_was_there_is_named_again_and_what_has_no_name_as_containerd_calls_it(tmp_path: Path) -> None:
    file = archive(tmp_path / "app.tar", manifest=[{"RepoTags": ["app:1"]}])
    there = {"docker.io/library/app:1", "other"}
    assert loaded(file, there, there) == ["docker.io/library/app:1"]
    assert loaded(file, {"old"}, {"old", "import-2026-11-29@sha256:12"}) == ["import-2026-11-29@sha256:12"]


def test_a_file_that_is_no_archive_names_nothing(tmp_path: Path) -> None:
    (tmp_path / "torn.tar").write_bytes(archive(tmp_path / "whole.tar", manifest=[{"RepoTags": ["app:1"]}]).read_bytes()[:700])
    (tmp_path / "text.tar").write_text("hello")
    assert names(tmp_path / "text.tar") == set()
    assert names(tmp_path / "torn.tar") in (set(), {"docker.io/library/app:1"})
