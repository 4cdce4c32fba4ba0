"""What this machine is, in the words of those who release programs."""

from __future__ import annotations

import platform
from functools import cache

from lab_utils.errors import HostLacks


@cache
def arch() -> str:
    names = {"x86_64": "amd64", "aarch64": "arm64", "arm64": "arm64"}  # the last is what macOS says; its containers are arm64 Linux
    machine = platform.machine()
    if machine not in names:
        raise HostLacks(f"this machine is {machine}", "Kubernetes nodes here are amd64 or arm64")
    return names[machine]
