"""What Debian's tools are asked for, and that two commands at once never let two of them work in one folder."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from lab_utils.artifacts import debian, store
from lab_utils.artifacts.store import Provenance
from lab_utils.errors import CommandFailed, HostLacks
from lab_utils.progress import Silent
from lab_utils.providers import embedded
from tests.artifacts.conftest import Told

# A command whose apt takes a while, and notes when it begins and ends. It says when another one had begun and not ended.
COMMAND = """
import sys, time
from pathlib import Path
from lab_utils.artifacts import debian
from lab_utils.progress import Silent

log, base = Path(sys.argv[1]), Path(sys.argv[2])

def in_root(root, argv, **_):
    with log.open("a") as file:
        file.write("begin\\n"); file.flush()
        time.sleep(0.5)
        file.write("end\\n")
    return []

debian.in_root = in_root
debian.need_root = lambda what: None
{call}
"""
CALLS = {
    "lists": 'debian.lists(base, "bookworm", Silent())',
    "packages": 'debian.fetch_debs(base, ["nginx"], debian.root_cache_dir() / "debian" / "lists-bookworm", Silent())',
    "all": 'apt = debian.lists(base, "bookworm", Silent()); debian.fetch_debs(base, ["nginx"], apt, Silent())',
}
RUNS = {"lists": 1, "packages": 2, "all": 3}  # lists that another command has just fetched are fresh


@pytest.fixture
def base(tmp_path: Path) -> Path:
    sources = tmp_path / "base/root/etc/apt/sources.list"
    sources.parent.mkdir(parents=True)
    sources.write_text("deb http://deb.debian.org/debian bookworm main\n")
    return tmp_path / "base"


@pytest.mark.parametrize("what", CALLS)
def test_two_commands_at_once_wait_for_each_other(what: str, base: Path, tmp_path: Path) -> None:
    words = [sys.executable, "-c", COMMAND.replace("{call}", CALLS[what]), str(tmp_path / "log"), str(base)]
    both = [subprocess.Popen(words, stderr=subprocess.PIPE, text=True) for _ in range(2)]
    said = [command.communicate(timeout=60)[1] for command in both]
    assert [command.returncode for command in both] == [0, 0], said
    assert (tmp_path / "log").read_text().split() == ["begin", "end"] * RUNS[what]


def test_lists_that_cannot_be_fetched_anew_stay_and_the_lock_is_given_back(base: Path, told: Told, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(debian, "in_root", lambda *_, **__: [])
    folder = debian.lists(base, "bookworm", told)
    os.utime(folder / "updated", (1, 1))

    def no_mirror(*_: object, **__: object) -> list[str]:
        raise CommandFailed(["apt-get"], 100, "", "")

    monkeypatch.setattr(debian, "in_root", no_mirror)
    for _ in range(2):
        assert debian.lists(base, "bookworm", told) == folder
    assert "no Debian mirror answers" in told and "waiting" not in told


def test_fresh_lists_need_no_lock(base: Path, told: Told, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(debian, "in_root", lambda *_, **__: [])
    folder = debian.lists(base, "bookworm", told)
    with store.locked(folder, told):  # as another command does that downloads by them
        begun = time.monotonic()
        assert debian.lists(base, "bookworm", told) == folder
        assert time.monotonic() - begun < 5 and "waiting" not in told


@pytest.fixture
def tools(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A machine with everything but what makes a Debian."""
    folder = tmp_path / "bin"
    folder.mkdir()
    for name in (*embedded.NEEDED, "setpriv"):
        (folder / name).symlink_to("/bin/true")
    (tmp_path / "os-release").write_text("ID=fedora\n")
    (tmp_path / "keyring.gpg").touch()
    monkeypatch.setenv("PATH", str(folder))
    monkeypatch.setenv("OS_RELEASE", str(tmp_path / "os-release"))
    monkeypatch.setattr(debian, "KEYRING", tmp_path / "keyring.gpg")
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    return folder


def test_what_the_first_build_would_stop_for_is_said_by_doctor(tools: Path, tmp_path: Path) -> None:
    (tmp_path / "keyring.gpg").unlink()
    said = embedded.PROVIDER.usability()
    assert not said.usable
    assert "mmdebstrap (or debootstrap)" in said.why and "Debian's archive keys" in said.why
    assert said.mend == "sudo dnf install debian-keyring mmdebstrap"
    with pytest.raises(HostLacks, match="sudo dnf install debian-keyring mmdebstrap"):
        debian._bootstrap("bookworm", tmp_path / "root", Silent())


@pytest.mark.parametrize("program", debian.BOOTSTRAPS)
def test_either_program_will_do(program: str, tools: Path) -> None:
    (tools / program).symlink_to("/bin/true")
    assert debian.lacking() == {}


def test_once_the_root_is_in_the_cache_nothing_makes_it(tools: Path, tmp_path: Path) -> None:
    (tmp_path / "keyring.gpg").unlink()
    assert set(debian.lacking()) == {"bootstrap", "debian-keys"}
    place = debian.base_place()
    with store.locked(place, Silent()), store.making(place) as part:
        (part / "root").mkdir()
        (part / "root/file").touch()
        store.finish(place, Provenance("debian", "12", "debian"), tree=True)
    assert debian.lacking() == {}
    store.remove(place)
    assert set(debian.lacking()) == {"bootstrap", "debian-keys"}


@pytest.mark.parametrize("program", debian.BOOTSTRAPS)
def test_the_program_that_is_there_is_asked_for_a_nodes_packages(
    program: str, tools: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tools / program).symlink_to("/bin/true")
    asked: list[str] = []

    def follow(argv: list[str], *_: object, **__: object) -> int:
        asked.extend(map(str, argv))
        return 0

    monkeypatch.setattr(debian, "follow", follow)
    debian._bootstrap("bookworm", tmp_path / "root", Silent())
    assert program in asked and f"--include={','.join(debian.packages())}" in asked
    assert asked[-2:] == ["bookworm", str(tmp_path / "root")]
