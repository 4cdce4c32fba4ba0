"""Runs a program inside a Debian root on this disk, in namespaces of its own.

Its mounts live in a private mount namespace and its processes in a pid namespace, so when the program ends, or is killed,
nothing of either remains: no cleaning up to be forgotten.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from lab_utils import unshare
from lab_utils.errors import CommandFailed, HostLacks
from lab_utils.run import follow


def alone() -> list[str]:
    """Whatever starts with these words ends with us, with all of its children and mounts."""
    return ["setpriv", "--pdeathsig=KILL", "--", unshare.program(), "--mount", "--pid", "--ipc", "--uts", "--fork", "--kill-child"]


PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

# $1 root, $2 rw or ro, $3 how many pairs of folders to bind follow, then the pairs, then the program.
SCRIPT = """
set -eu
root=$1 mode=$2 count=$3; shift 3
mount --make-rprivate /
mount --bind "$root" "$root"
mount -t proc proc "$root/proc"
mount -t sysfs -o ro sysfs "$root/sys" 2>/dev/null || mount --rbind /sys "$root/sys"
mount -t tmpfs -o mode=755 tmpfs "$root/dev"
for device in null zero full random urandom tty; do
    touch "$root/dev/$device"; mount --bind "/dev/$device" "$root/dev/$device"
done
ln -s /proc/self/fd "$root/dev/fd"
mkdir -p "$root/dev/pts" "$root/dev/shm"
mount -t tmpfs -o mode=755 tmpfs "$root/run"
mount -t tmpfs -o mode=1777 tmpfs "$root/tmp"
mount -t tmpfs -o mode=755 tmpfs "$root/mnt"
while [ "$count" -gt 0 ]; do
    if [ -d "$1" ]; then mkdir -p "$root$2"; elif [ ! -e "$root$2" ]; then touch "$root$2"; fi
    mount --bind "$1" "$root$2"
    shift 2; count=$((count - 1))
done
mount -o "remount,bind,$mode" "$root"
exec chroot "$root" "$@"
"""


def need_root(what: str) -> None:
    if os.geteuid() != 0:
        raise HostLacks(f"{what} needs root", "Run it with sudo")


def in_root(
    root: Path,
    argv: Sequence[str | Path],
    *,
    binds: Mapping[Path, str] | None = None,
    env: Mapping[str, str] | None = None,
    on_line: Callable[[str], object] | None = None,
    writable: bool = False,
) -> list[str]:
    """Run a program as root in `root`, with folders of the host bound to places in it. Returns the lines that it said.

    The root itself stays as it is unless it is `writable`; /tmp, /run and /mnt are the program's own and go with it.
    """
    pairs = [word for source, target in (binds or {}).items() for word in (str(source), target)]
    said: list[str] = []

    def line(text: str) -> None:
        said.append(text)
        if on_line:
            on_line(text)

    inner = ["env", "-i", f"PATH={PATH}", "HOME=/root", "LC_ALL=C.UTF-8", "DEBIAN_FRONTEND=noninteractive"]
    inner += [f"{name}={value}" for name, value in (env or {}).items()]
    words = [*alone(), "sh", "-c", SCRIPT, "in_root"]
    code = follow([*words, str(root), "rw" if writable else "ro", str(len(pairs) // 2), *pairs, *inner, *argv], line)
    if code != 0:
        raise CommandFailed(["chroot", str(root), *map(str, argv)], code, "\n".join(said[-20:]), "")
    return said
