"""What `make setup` installs: what is missing, for a reason that is said, and nothing where all is there.

The script is the real one. Around it is a machine of a few stubs, whose apt-get notes what it was asked for.
"""

from __future__ import annotations

import os
import shutil
import socket
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from lab_utils.host import packages
from lab_utils.paths import repo_dir
from lab_utils.run import Result, run

SCRIPT = repo_dir() / "lab_utils" / "host" / "packages.sh"
HAS = ("ip", "nft", "iptables", "ipset", "unshare", "mmdebstrap", "ssh", "bwrap", "tcpdump")
NOBODY = "http://127.0.0.1:9"  # the address of a mirror that does not answer


@dataclass
class Host:
    folder: Path

    def has(self, name: str, script: str = "exit 0") -> None:
        path = self.folder / "bin" / name
        path.unlink(missing_ok=True)
        path.write_text(f"#!/bin/sh\n{script}\n")
        path.chmod(0o755)

    def is_a(self, os_release: str) -> None:
        (self.folder / "os-release").write_text(f"{os_release}\n")

    def lacks(self, name: str) -> None:
        (self.folder / "bin" / name).unlink()

    def caches(self, record: str) -> None:
        path = self.folder / "cache" / record
        path.parent.mkdir(parents=True)
        path.write_text("{}")

    def packages(self, *words: str, **environment: str) -> Result:
        own = {"PATH": str(self.folder / "bin"), "LAB_CACHE": str(self.folder / "cache"), "NO_PROXY": "*", "PYTHON": sys.executable}
        own["DEBIAN_KEYRING"] = str(self.folder / "keyring.gpg")
        own["OS_RELEASE"] = str(self.folder / "os-release")
        own["SBIN"] = str(self.folder / "sbin")
        return run(["/bin/sh", SCRIPT, *words], env={**own, **environment}, check=False)

    @property
    def installed(self) -> list[str]:
        """What apt-get was asked to install."""
        noted = self.folder / "installed"
        return [word for word in noted.read_text().split() if not word.startswith("-")] if noted.exists() else []


@pytest.fixture
def host(tmp_path: Path) -> Host:
    made = Host(tmp_path)
    (tmp_path / "bin").mkdir()
    (tmp_path / "keyring.gpg").touch()
    for name in HAS:
        made.has(name)
    for name in ("uname", "dirname", "ls"):
        (tmp_path / "bin" / name).symlink_to(str(shutil.which(name)))
    made.is_a("ID=debian")
    made.has("id", "echo 0")
    made.has("apt-get", f'[ "$1" != install ] || {{ shift; echo "$@" >> {tmp_path}/installed; }}')
    return made


@pytest.fixture
def somebody() -> Iterator[str]:
    """The address of a mirror that answers."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield f"http://127.0.0.1:{server.getsockname()[1]}"


def test_where_all_is_there_nothing_is_installed_and_nothing_said(host: Host, somebody: str) -> None:
    assert host.packages(LAB_RELEASES=somebody) == Result("", "", 0)
    assert host.installed == []


def test_a_program_that_is_missing_is_installed_and_the_reason_said(host: Host, somebody: str) -> None:
    host.lacks("bwrap")
    assert "lab: installing bubblewrap: nodes as Linux namespaces" in host.packages(LAB_RELEASES=somebody).stdout
    assert host.installed == ["bubblewrap"]


def test_debians_keys_are_asked_for_by_themselves_because_ubuntus_mmdebstrap_comes_without(host: Host, somebody: str) -> None:
    (host.folder / "keyring.gpg").unlink()
    host.packages(LAB_RELEASES=somebody)
    assert host.installed == ["debian-archive-keyring"]


def test_where_nothing_can_be_downloaded_a_c_compiler_is_wanted_and_no_go(host: Host) -> None:
    host.packages(LAB_RELEASES=NOBODY)
    assert {"gcc", "pkg-config"} <= set(host.installed) <= {"gcc", "pkg-config", "libc6-dev", "libseccomp-dev"}


def test_where_all_is_in_the_cache_no_compiler_is_wanted_with_no_network_either(host: Host) -> None:
    host.caches("programs/runc/v1-abc.json")
    host.caches("root/imagestore/abc.json")
    assert host.packages(LAB_RELEASES=NOBODY) == Result("", "", 0)
    assert host.installed == []


def test_half_a_cache_does_not_do(host: Host) -> None:
    host.caches("programs/runc/v1-abc.json")
    host.packages(LAB_RELEASES=NOBODY)
    assert "gcc" in host.installed


def test_what_cannot_be_installed_is_named(host: Host, somebody: str) -> None:
    host.lacks("ssh")
    host.has("apt-get", "exit 100")
    result = host.packages(LAB_RELEASES=somebody)
    assert (result.code, result.stderr) == (2, "lab: apt-get could not install openssh-client; try it by hand to see why\n")


def test_without_apt_the_packages_are_named_and_left_to_the_user(host: Host, somebody: str) -> None:
    host.lacks("ssh")
    host.lacks("apt-get")
    host.is_a("ID=another")
    result = host.packages(LAB_RELEASES=somebody)
    told = "install with your package manager what Debian calls openssh-client"
    assert (result.code, result.stderr) == (2, f"lab: these are missing on this machine: {told}\n")


FEDORA = "sudo dnf install iproute iptables-nft mmdebstrap debian-keyring openssh-clients"
ARCH = "sudo pacman -S --needed iproute2 iptables debootstrap debian-archive-keyring openssh"
SUSE = "sudo zypper install iproute2 iptables debootstrap openssh-clients"


@pytest.mark.parametrize(
    ("os_release", "command"),
    [
        ("ID=fedora", FEDORA),
        ('ID="rocky"\nID_LIKE="rhel centos fedora"', FEDORA),
        ("ID=arch", ARCH),
        ("ID=manjaro\nID_LIKE=arch", ARCH),
        ('ID="opensuse-tumbleweed"\nID_LIKE="opensuse suse"', SUSE),
    ],
)
def test_elsewhere_the_command_has_the_names_of_that_system(os_release: str, command: str, host: Host, somebody: str) -> None:
    """Also where there is an apt-get: Fedora's mmdebstrap brings one along."""
    host.is_a(os_release)
    for name in ("ip", "iptables", "mmdebstrap", "ssh"):
        host.lacks(name)
    (host.folder / "keyring.gpg").unlink()
    result = host.packages(LAB_RELEASES=somebody)
    lines = [f"lab: these are missing on this machine: install them with: {command}"]
    if command == SUSE:
        where = "get it from https://packages.debian.org"
        lines.append(f"lab: no package is known here for what Debian calls debian-archive-keyring: {where}")
    assert (result.code, result.stderr.splitlines(), host.installed) == (2, lines, [])


def test_a_system_that_does_not_say_its_name_is_known_by_its_package_manager(host: Host, somebody: str) -> None:
    (host.folder / "os-release").unlink()
    host.lacks("ssh")
    host.packages(LAB_RELEASES=somebody)
    assert host.installed == ["openssh-client"]


def test_debootstrap_does_in_the_place_of_mmdebstrap(host: Host, somebody: str) -> None:
    host.lacks("mmdebstrap")
    host.has("debootstrap")
    assert host.packages(LAB_RELEASES=somebody) == Result("", "", 0)


NAMES = [what for what in packages.table() if what not in ("mount", "libc", "libseccomp", "gcc", "pkg-config")]


@pytest.mark.parametrize("os_release", ["ID=debian", "ID=fedora", "ID=arch", "ID=opensuse-leap\nID_LIKE=suse"])
def test_the_script_and_doctor_say_the_same(os_release: str, host: Host, somebody: str) -> None:
    host.is_a(os_release)
    for name in HAS:
        host.lacks(name)
    (host.folder / "keyring.gpg").unlink()
    result = host.packages(LAB_RELEASES=somebody)
    manager = packages.family_in(os_release)
    asked = host.installed or result.stderr.splitlines()[0].partition(f"sudo {packages.INSTALL[manager]} ")[2].split()
    assert sorted(asked) == packages.packages(NAMES, manager)


def test_what_installs_is_one_command(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    assert packages.how_to_install(["nft", "ip", "ssh"], "dnf") == "sudo dnf install iproute nftables openssh-clients"
    assert packages.how_to_install(["bootstrap"], "") == "Install with your package manager what Debian calls mmdebstrap"
    assert packages.how_to_install(["ip", "debian-keys"], "zypper") == f"sudo zypper install iproute2, and {packages.FETCH_KEYS}"
    assert packages.how_to_install(["debian-keys"], "zypper") == packages.FETCH_KEYS
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    assert packages.how_to_install(["ip"], "pacman") == "pacman -S --needed iproute2"


@pytest.mark.parametrize(
    ("os_release", "manager"),
    [
        ("ID=ubuntu\nID_LIKE=debian\n", "apt-get"),
        ('NAME="Linux Mint"\nID=linuxmint\nID_LIKE="ubuntu debian"', "apt-get"),
        ("ID=alpine", ""),
        ("not what it should be", ""),
    ],
)
def test_a_system_says_what_it_is(os_release: str, manager: str) -> None:
    assert packages.family_in(os_release) == manager


def test_an_old_python_is_refused_in_one_line(host: Host) -> None:
    host.has("python3", '[ "$1" = --version ] && echo Python 3.9.2 && exit 0\nexit 1')
    result = host.packages("python", PYTHON="python3")
    assert result.code == 2 and host.installed == []
    told = "and 3.11 or newer is needed: install one and name it, for example: make lab PYTHON=python3.11"
    assert result.stderr == f"lab: {host.folder}/bin/python3 is Python 3.9.2, {told}\n"


def test_where_python_is_not_divided_the_whole_of_it_is_named(host: Host) -> None:
    host.is_a("ID=suse")
    host.has("python3.12", 'case "$2" in *venv*) exit 1 ;; esac')
    result = host.packages("python", PYTHON="python3.12")
    assert (result.code, result.stderr.split()[-2:]) == (2, ["install", "python312"])


@pytest.mark.parametrize(("python", "package"), [("python3", "python3-venv"), ("python3.12", "python3.12-venv")])
def test_a_python_that_makes_no_virtual_environment_gets_the_package_of_its_version(host: Host, python: str, package: str) -> None:
    host.has(python, 'case "$2" in *venv*) exit 1 ;; esac')
    assert host.packages("python", PYTHON=python).code == 0
    assert host.installed == [package]


def test_a_machine_without_any_python_gets_one(host: Host) -> None:
    assert host.packages("python", PYTHON="python3").code == 0
    assert host.installed == ["python3-venv"]
