"""How this machine's package manager calls what is missing, and the command that installs it."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterable
from functools import cache
from pathlib import Path

TABLE = Path(__file__).with_name("packages.txt")
# In the order in which they are looked for where the system does not say what it is.
INSTALL = {"apt-get": "apt-get install", "dnf": "dnf install", "pacman": "pacman -S --needed", "zypper": "zypper install"}
FAMILIES = {
    **dict.fromkeys(("debian", "ubuntu"), "apt-get"),
    **dict.fromkeys(("fedora", "rhel", "centos"), "dnf"),
    "arch": "pacman",
    **dict.fromkeys(("suse", "opensuse", "sles"), "zypper"),
}
FETCH_KEYS = "get /usr/share/keyrings/debian-archive-keyring.gpg out of https://packages.debian.org/debian-archive-keyring"


@cache
def table() -> dict[str, dict[str, str]]:
    """What is needed → package manager → package."""
    rows = [line.split() for line in TABLE.read_text().splitlines() if line and not line.startswith("#")]
    return {what: dict(zip(INSTALL, names, strict=True)) for what, *names in rows}


def family(os_release: Path | None = None) -> str:
    """The package manager of this machine, or "". What the system calls itself comes first: Fedora's mmdebstrap brings an apt-get along."""
    file = os_release or Path(os.environ.get("OS_RELEASE", "/etc/os-release"))
    try:
        said = file.read_text(errors="replace")
    except OSError:
        said = ""
    if known := family_in(said):
        return known
    places = f"{os.environ.get('PATH', '')}:/usr/bin"
    return next((manager for manager in INSTALL if shutil.which(manager, path=places)), "")


def family_in(os_release: str) -> str:
    """os-release(5): ID says what a system is, ID_LIKE what it came from. Pure."""
    said = dict(line.split("=", 1) for line in os_release.splitlines() if "=" in line)
    words = f"{said.get('ID', '')} {said.get('ID_LIKE', '')}".replace('"', " ").replace("'", " ").split()
    return next((FAMILIES[word] for word in words if word in FAMILIES), "")


def packages(needed: Iterable[str], manager: str) -> list[str]:
    """The names of the packages. Pure."""
    names = [table()[what].get(manager, table()[what]["apt-get"]) for what in needed]
    return sorted({name for name in names if name != "-"})


def how_to_install(needed: Iterable[str], manager: str | None = None) -> str:
    """One command to paste; where no package manager is known, what Debian calls the packages."""
    wanted = list(needed)
    manager = family() if manager is None else manager
    names = " ".join(packages(wanted, manager))
    if not manager:
        return f"Install with your package manager what Debian calls {names}"
    sudo = "" if os.geteuid() == 0 else "sudo "
    steps = [f"{sudo}{INSTALL[manager]} {names}"] if names else []
    return ", and ".join([*steps, *([FETCH_KEYS] if "-" in (table()[what][manager] for what in wanted) else [])])
