"""Layers from Debian packages, and archives from layers: exact, and the same every time."""

from __future__ import annotations

import hashlib
import io
import json
import lzma
import tarfile
from pathlib import Path

import pytest

from lab_utils.artifacts import archive
from lab_utils.artifacts.archive import LayerFile
from lab_utils.artifacts.debian import parse_uris
from lab_utils.artifacts.layers import Layer, applet_names, users
from lab_utils.artifacts.versions import Image
from lab_utils.errors import ArtifactFailed


def deb(path: Path, files: dict[str, bytes], links: dict[str, str] | None = None) -> Path:
    """A Debian package, made by hand: ar(1) around two compressed tar files."""
    data = io.BytesIO()
    with tarfile.open(fileobj=data, mode="w") as tar:
        for name, content in files.items():
            info = tarfile.TarInfo(f"./{name}")
            info.size, info.mode, info.mtime = len(content), 0o755, 1234567
            tar.addfile(info, io.BytesIO(content))
        for name, target in (links or {}).items():
            info = tarfile.TarInfo(f"./{name}")
            info.type, info.linkname = tarfile.SYMTYPE, target
            tar.addfile(info)
    members = {"debian-binary": b"2.0\n", "control.tar.xz": lzma.compress(b""), "data.tar.xz": lzma.compress(data.getvalue())}
    raw = b"!<arch>\n"
    for name, content in members.items():
        raw += f"{name:<16}{0:<12}{0:<6}{0:<6}{'100644':<8}{len(content):<10}`\n".encode() + content + b"\n" * (len(content) % 2)
    path.write_bytes(raw)
    return path


def test_a_package_is_laid_into_the_merged_tree_without_its_manuals(tmp_path: Path) -> None:
    layer = Layer()
    layer.deb(
        deb(
            tmp_path / "a.deb",
            {"bin/tool": b"x", "lib/x/liba.so.1": b"y", "usr/share/doc/tool/README": b"z"},
            {"lib/x/liba.so": "liba.so.1"},
        )
    )
    assert layer.paths() == ["usr/bin/tool", "usr/lib/x/liba.so", "usr/lib/x/liba.so.1"]
    assert layer.read("/bin/tool") == b"x"


def test_a_layer_is_the_same_every_time_and_holds_all_folders(tmp_path: Path) -> None:
    digests = set()
    for name in ("one.tar", "two.tar"):
        layer = Layer()
        layer.file("/usr/bin/b", b"2", 0o755)
        layer.deb(deb(tmp_path / "a.deb", {"usr/bin/a": b"1"}))
        digests.add(layer.write(tmp_path / name))
    assert len(digests) == 1
    assert digests == {hashlib.sha256((tmp_path / "one.tar").read_bytes()).hexdigest()}
    with tarfile.open(tmp_path / "one.tar") as tar:
        names = tar.getnames()
        assert names == ["usr", "usr/bin", "usr/bin/a", "usr/bin/b"]
        assert {info.mtime for info in tar} == {0}


def test_what_a_packages_scripts_would_have_done_is_done(tmp_path: Path) -> None:
    layer = Layer()
    layer.deb(deb(tmp_path / "a.deb", {"usr/share/base-passwd/passwd.master": b"root:x:0:0::/root:/bin/sh\n", "lib64/ld.so": b""}))
    layer.furnish(["base-files", "iptables"])
    assert layer.read("etc/passwd").startswith(b"root:")
    layer.write(tmp_path / "l.tar")
    with tarfile.open(tmp_path / "l.tar") as tar:
        assert tar.getmember("bin").linkname == "usr/bin"
        assert tar.getmember("lib64").linkname == "usr/lib64"
        assert tar.getmember("usr/sbin/iptables-save").linkname == "/usr/sbin/iptables-nft-save"
        assert tar.getmember("tmp").mode == 0o1777


def test_users_are_added_to_those_of_the_layers_below() -> None:
    layer = Layer()
    users(layer, {"etc/passwd": b"root:x:0:0::/:/bin/sh\n"}, ["u:x:1000:1000::/:/bin/sh"], [])
    assert layer.read("etc/passwd") == b"root:x:0:0::/:/bin/sh\nu:x:1000:1000::/:/bin/sh\n"
    assert "etc/group" not in layer


def test_busybox_tells_its_commands() -> None:
    binary = b"\x7fELF...\0[\0[[\0" + b"\0".join([b"awk", b"busybox", b"cat", b"nslookup", b"sh", b"wget"]) + b"\0\0other text"
    assert applet_names(binary) == ["[", "[[", "awk", "cat", "nslookup", "sh", "wget"]
    with pytest.raises(ArtifactFailed, match="no list of commands"):
        applet_names(b"\x7fELF nothing of the kind")


@pytest.mark.parametrize("damage", [b"", b"not a package", b"!<arch>\n"])
def test_a_damaged_package_is_refused(tmp_path: Path, damage: bytes) -> None:
    (tmp_path / "bad.deb").write_bytes(damage)
    with pytest.raises(ArtifactFailed, match=r"bad\.deb"):
        Layer().deb(tmp_path / "bad.deb")


def test_an_archive_is_an_oci_layout_that_docker_reads_too(tmp_path: Path) -> None:
    layer = Layer()
    layer.file("/hello", b"hello")
    layer_file = LayerFile(tmp_path / "layer.tar", layer.write(tmp_path / "layer.tar"), "a greeting")
    image = Image("x", "docker.io/kio/x:1", entrypoint=("/hello",), cmd=("-v",), ports=("80/tcp",), user="65535", stop="SIGQUIT")
    digest = archive.write(image, [layer_file], "arm64", tmp_path / "x.tar")
    with tarfile.open(tmp_path / "x.tar") as tar:

        def read(name: str) -> bytes:
            file = tar.extractfile(name)
            assert file is not None
            return file.read()

        index = json.loads(read("index.json"))
        assert index["manifests"][0]["digest"] == digest
        assert index["manifests"][0]["annotations"]["io.containerd.image.name"] == "docker.io/kio/x:1"
        manifest = json.loads(read("blobs/" + digest.replace(":", "/")))
        config = json.loads(read("blobs/" + manifest["config"]["digest"].replace(":", "/")))
        docker = json.loads(read("manifest.json"))[0]
        for name in tar.getnames():
            if name.startswith("blobs/sha256/"):
                assert hashlib.sha256(read(name)).hexdigest() == name.rsplit("/", 1)[1]
    assert config["rootfs"]["diff_ids"] == [manifest["layers"][0]["digest"]]
    assert docker == {
        "Config": "blobs/" + manifest["config"]["digest"].replace(":", "/"),
        "RepoTags": [image.name],
        "Layers": [f"blobs/sha256/{layer_file.sha256}"],
    }
    assert config["architecture"] == "arm64"
    assert config["config"]["Entrypoint"] == ["/hello"] and config["config"]["StopSignal"] == "SIGQUIT"
    assert config["config"]["Labels"][archive.BUILT_HERE] == "true"


def test_apts_answer_is_read() -> None:
    lines = [
        "Reading package lists...",
        "'http://mirror.example/x/libc6_2.36-9%2bdeb12u14_amd64.deb' libc6_2.36-9%2bdeb12u14_amd64.deb 2757000 SHA256:ab",
    ]
    (found,) = parse_uris(lines)
    assert (found.name, found.version, found.file) == ("libc6", "2.36-9+deb12u14", "libc6_2.36-9%2bdeb12u14_amd64.deb")
