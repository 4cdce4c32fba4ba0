"""What this machine is, in the words of those who release programs. Decided here alone: whoever else needs it is told."""

from __future__ import annotations

import platform
from functools import cache

from lab_utils.errors import HostLacks
from lab_utils.run import run

# uname's names, and what macOS, Windows and Docker say; on macOS containers are arm64 Linux, too.
NAMES = {"x86_64": "amd64", "amd64": "amd64", "x64": "amd64", "aarch64": "arm64", "arm64": "arm64"}


@cache
def arch() -> str:
    return "arm64" if _is_apple_silicon() else debian_name(platform.machine())


def debian_name(machine: str) -> str:
    if machine.lower() not in NAMES:
        raise HostLacks(f"this machine is {machine}", "Kubernetes nodes here are amd64 or arm64")
    return NAMES[machine.lower()]


def _is_apple_silicon() -> bool:
    """A Python for Intel runs there too, under Rosetta, and is told that the machine is one of Intel's. Machines and containers are not."""
    return platform.system() == "Darwin" and run(["/usr/sbin/sysctl", "-n", "hw.optional.arm64"], check=False).stdout.strip() == "1"
