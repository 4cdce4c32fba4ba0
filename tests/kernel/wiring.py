"""Wires throw-away network namespaces with the real `ip`, and takes them down again.

Every namespace made here carries a prefix that nothing else on the machine has, and its devices die with it.
"""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from lab_utils.links import Namespace, read_namespace
from lab_utils.links.namespace import COMMANDS
from lab_utils.run import run

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="making network namespaces needs root")


class Wiring:
    """A handful of network namespaces. Short names are ours; on the machine they carry the prefix."""

    def __init__(self, prefix: str = "") -> None:
        self.prefix = prefix or f"kio{secrets.token_hex(3)}-"
        self.names: list[str] = []

    def add(self, name: str) -> None:
        run(["ip", "netns", "add", self.prefix + name])
        self.names.append(name)
        self.ip(name, "link set lo up")

    def ip(self, name: str, words: str) -> str:
        return run(["ip", "-n", self.prefix + name, *words.split()]).stdout

    def bridge(self, name: str, words: str) -> str:
        return run(["bridge", "-n", self.prefix + name, *words.split()]).stdout

    def inside(self, name: str, *argv: str) -> str:
        return run(["nsenter", f"--net=/run/netns/{self.prefix}{name}", *argv]).stdout

    def veth(self, one: str, device: str, other: str, peer: str) -> None:
        self.ip(one, f"link add {device} type veth peer name {peer} netns {self.prefix}{other}")

    def outputs(self, name: str) -> dict[str, str]:
        """What the programs print in one namespace, key by key as `read_namespace` takes them."""
        return {key: self.inside(name, *command.split()) for key, command in COMMANDS.items()}

    def inode(self, name: str) -> int:
        return (Path("/run/netns") / (self.prefix + name)).stat().st_ino

    def read(self, name: str, *, with_ids: bool = True) -> Namespace:
        outputs: dict[str, Any] = self.outputs(name)
        if not with_ids:
            outputs["nsids"] = {}
        return read_namespace(name, outputs, inode=self.inode(name))

    @property
    def inodes(self) -> dict[str, int]:
        """The inode of each of our names in /run/netns."""
        return {self.prefix + name: self.inode(name) for name in self.names}

    def say(self, name: str, to: str, port: int = 9) -> None:
        """Send one datagram, so that ARP happens and bridges learn. Nobody needs to listen."""
        self.inside(name, "python3", "-c", f"import socket; socket.socket(2, socket.SOCK_DGRAM).sendto(b'x', ({to!r}, {port}))")

    def remove(self) -> None:
        for name in self.names:
            run(["ip", "netns", "del", self.prefix + name], check=False)
        self.names.clear()


@contextmanager
def wiring(prefix: str = "") -> Iterator[Wiring]:
    made = Wiring(prefix)
    try:
        yield made
    finally:
        made.remove()
