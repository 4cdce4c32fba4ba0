"""A user namespace around a node: its root is root of everything in it, and nobody on this machine.

A node is a set of namespaces over the host's kernel. Without a user namespace its root has user id 0, which is the host's, and the
capabilities of the host's root. What it can do with them, on any host:

    devices     mknod the host's disk and read it: every other cluster's keys, the answers, this machine's own files
    mounts      a fresh mount of /proc has a writable /proc/sys, whatever was laid over the first one. Whoever may write
                kernel/core_pattern (or kernel/modprobe) names a program that the kernel runs as root, outside of every namespace
    cgroups v1  release_agent is another such name: cgroups(7)
    modules     init_module runs code in the kernel
    clock       CLOCK_REALTIME has no namespace: settime sets everybody's
    images      the node's image store is made of hard links into the cache. Writing into one writes into every other cluster's

No list of things taken away closes these for good: capabilities, seccomp and a devices cgroup leave the second one, because containerd
has to mount. In a user namespace (user_namespaces(7)) each of them is refused by the same rule: the kernel asks for the right in the
namespace that owns the thing, and disks, modules, clock, core_pattern and other people's files belong to the first one.

So for a guarded node
    ids         0…65535 inside are a range of their own outside, another for each node of each cluster: no file of the host's is theirs
    network     the network namespace is made by the user namespace, which therefore owns it
    root        lies over the shared Debian root, whose owners are shifted by an idmapped mount (mount_setattr(2), overlay since Linux 5.19)
    images      folders belong to the node, the linked files stay the host's: they can be read, and not be written
    devices     null, zero, full, random, urandom, tty, tun and fuse, made before; nothing can be added
    cgroups     the node may divide what it was given (its groups' folders are its own) and not enlarge it (the limits are the host's)
    processes   what the host runs on the node (`node.inside`) runs in the user namespace too: a program there may be anybody's

What it does not bound: the host's disk, which a node may fill until it is reset, and its share of the processor. A bug in the kernel is
beyond it, as it is for every container. Who wants a stronger wall grades on virtual machines (`--provider vagrant`).

Run as a program it is a link in the chain of boot.sh:   guard.py idmap NETNS SOURCE TARGET   |   guard.py enter NETNS COMMAND…
"""

from __future__ import annotations

import ctypes
import fcntl
import os
import sys
import time

FIRST, IDS = 1_600_000_000, 65_536  # far above what distributions and directories hand out, and above the grader's sandboxes
NODES = 16  # ranges that a cluster may take
NS_GET_USERNS = 0xB701  # ioctl_ns(2)

# mount(2)'s newer relatives; these numbers are the same on every architecture (since Linux 5.2).
OPEN_TREE, MOVE_MOUNT, MOUNT_SETATTR = 428, 429, 442
AT_FDCWD, AT_EMPTY_PATH, AT_RECURSIVE, OPEN_TREE_CLONE = -100, 0x1000, 0x8000, 1
MOVE_MOUNT_F_EMPTY_PATH, MOUNT_ATTR_IDMAP = 4, 0x100000


def first_id(cluster: int, node: int) -> int:
    """The id on this machine of the root of a cluster's node."""
    return FIRST + (cluster * NODES + node) * IDS


def map_ids(pid: int, first: int) -> None:
    """Say once who is who in the user namespace that a process has just made."""
    for name in ("uid_map", "gid_map"):
        with open(f"/proc/{pid}/{name}", "w") as file:  # noqa: PTH123 (this file is a program too, and starts without pathlib)
            file.write(f"0 {first} {IDS}")


def wait_unshared(pid: int, seconds: float = 10) -> None:
    """Until the process has user and network namespaces of its own."""
    deadline = time.monotonic() + seconds
    while any(os.readlink(f"/proc/{pid}/ns/{kind}") == os.readlink(f"/proc/self/ns/{kind}") for kind in ("user", "net")):  # noqa: PTH115
        if time.monotonic() > deadline:
            raise TimeoutError("the kernel makes no user namespace")
        time.sleep(0.005)


def owner_of(netns: str) -> int:
    """A descriptor of the user namespace that owns a network namespace."""
    descriptor = os.open(netns, os.O_RDONLY)
    try:
        return fcntl.ioctl(descriptor, NS_GET_USERNS)
    finally:
        os.close(descriptor)


class _MountAttr(ctypes.Structure):
    _fields_ = [(name, ctypes.c_uint64) for name in ("attr_set", "attr_clr", "propagation", "userns_fd")]


def idmap(netns: str, source: str, target: str) -> None:
    """Mount `source` on `target` with its owners shifted: who is 0 there is the node's root here."""
    libc = ctypes.CDLL(None, use_errno=True)

    def call(*words: object) -> int:
        done = int(libc.syscall(*words))
        if done < 0:
            code = ctypes.get_errno()
            raise OSError(code, f"{os.strerror(code)}: this kernel cannot shift the owners of {source}")
        return done

    tree = call(OPEN_TREE, AT_FDCWD, source.encode(), OPEN_TREE_CLONE | os.O_CLOEXEC)
    attributes = _MountAttr(attr_set=MOUNT_ATTR_IDMAP, userns_fd=owner_of(netns))
    call(MOUNT_SETATTR, tree, b"", AT_EMPTY_PATH, ctypes.byref(attributes), ctypes.c_size_t(ctypes.sizeof(attributes)))
    call(MOVE_MOUNT, tree, b"", AT_FDCWD, target.encode(), MOVE_MOUNT_F_EMPTY_PATH)


def enter(netns: str, command: list[str]) -> None:
    """Become root of the namespaces and run the command in their place."""
    owner = owner_of(netns)
    os.set_inheritable(owner, True)
    os.execvp("nsenter", ["nsenter", f"--user=/proc/self/fd/{owner}", f"--net={netns}", "--", *command])


if __name__ == "__main__":
    if sys.argv[1] == "idmap":
        idmap(*sys.argv[2:])
    else:
        enter(sys.argv[2], sys.argv[3:])
