"""What a provider's clusters leave on a host, to be compared before and after."""

from __future__ import annotations

import shutil

from lab_utils.run import run
from tests.cluster import leaks

Look = dict[str, set[str]]


def look(provider: str) -> Look:
    """For kind everything is Docker's: what it holds, whoever made it. For Vagrant with libvirt, this machine's and libvirt's."""
    if provider == "vagrant" and shutil.which("virsh"):
        return {**leaks.look(), **_libvirt()}
    if provider != "kind":
        return leaks.look()
    return {
        "containers": _lines("ps", "--all", "--format", "{{.Names}}"),
        "volumes": _lines("volume", "ls", "--format", "{{.Name}}"),
        "networks": _lines("network", "ls", "--format", "{{.Name}}"),
    }


def what_is_left(provider: str, before: Look) -> list[str]:
    after = look(provider)
    if provider != "kind":
        return leaks.difference(before, after)
    return [f"{what}: {line}" for what in before for line in sorted(before[what] ^ after[what])]


def _libvirt() -> Look:
    def of(*words: str) -> set[str]:
        return set(run(["virsh", "--connect", "qemu:///system", *words]).stdout.split())

    pools = of("pool-list", "--name")
    return {
        "machines": of("list", "--all", "--name"),
        "libvirt networks": of("net-list", "--all", "--name"),
        "pools": of("pool-list", "--all", "--name"),
        "volumes": {volume for pool in pools for volume in of("vol-list", pool)},
    }


def _lines(*words: str) -> set[str]:
    return set(run(["docker", *words]).stdout.split())
