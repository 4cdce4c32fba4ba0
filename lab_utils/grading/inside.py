"""The first program inside the sandbox: makes it ready, gives up every privilege, becomes the kernel.

It runs as `python -I -S inside.py` before any code of a student, needs the standard library only, and
talks to the grader over one inherited Unix socket:

    →  the configuration, as one JSON document
    ←  open descriptors: the folders of answers and of the kernel's sockets, and one listening TCP socket
       per door to the cluster. They were opened *in here*, so the grader can accept connections made inside
       a network namespace that has no way out, and can read files of a tmpfs that exists nowhere else.
    →  one byte: the grader has what it needs

Nothing in here is trusted once the kernel runs; this program has been replaced by then.
"""

# This runs before every submission, and os is imported already; pathlib would be one more import.
# ruff: noqa: PTH101, PTH103, PTH120, PTH123
import ctypes
import json
import os
import resource
import socket
import struct
import sys

CLONE_NEWUSER = 0x10000000
PR_SET_NO_NEW_PRIVS, PR_CAPBSET_DROP, PR_SET_DUMPABLE = 38, 24, 4
NOBODY_ELSE = 1000  # who the student is when the grader is not root: bubblewrap made us root of its namespace only
RTM_NEWADDR, NLM_F_REQUEST_ACK_CREATE = 20, 0x1 | 0x4 | 0x400
IFA_LOCAL, IFA_ADDRESS = 2, 1


def main() -> None:
    grader = socket.socket(fileno=int(sys.argv[1]))
    config = receive(grader)
    doors = [listen(address, port) for address, port in config["doors"]]
    give_up_privileges(config["uid"], config["gid"])
    os.umask(0o077)
    folders = []
    for path in config["folders"]:
        os.makedirs(path, exist_ok=True)
        folders.append(os.open(path, os.O_PATH | os.O_DIRECTORY))
    for path, text in config["files"].items():
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with open(path, "w") as file:
            file.write(text)
        os.chmod(path, 0o700 if text.startswith("#!") else 0o600)
    socket.send_fds(grader, [b"ready"], folders + [door.fileno() for door in doors])
    if grader.recv(1) != b"g":
        sys.exit("the grader went away")
    for descriptor in folders:
        os.close(descriptor)
    for door in doors:
        door.close()
    grader.close()
    for name, value in config["rlimits"].items():
        kind = getattr(resource, name)
        hard = resource.getrlimit(kind)[1]
        value = value if hard == resource.RLIM_INFINITY else min(value, hard)
        resource.setrlimit(kind, (value, value))
    os.chdir(config["cwd"])
    os.execve(config["argv"][0], config["argv"], config["env"])


def receive(grader: socket.socket) -> dict:  # type: ignore[type-arg]
    (size,) = struct.unpack("!I", exactly(grader, 4))
    return dict(json.loads(exactly(grader, size)))


def exactly(grader: socket.socket, size: int) -> bytes:
    data = b""
    while len(data) < size:
        more = grader.recv(size - len(data))
        if not more:
            sys.exit("the grader went away")
        data += more
    return data


def listen(address: str, port: int) -> socket.socket:
    """Listen on an address of the cluster: it is given to our loopback device, so that names, certificates
    and known hosts are the same in here as outside."""
    give_loopback(address)
    door = socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET, socket.SOCK_STREAM)
    door.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    door.bind((address, port))
    door.listen(64)
    return door


def give_loopback(address: str) -> None:
    """`ip address add ADDRESS dev lo`, said to the kernel directly: see rtnetlink(7)."""
    if address.startswith("127.") or address == "::1":
        return
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    packed = socket.inet_pton(family, address)
    body = struct.pack("=BBBBi", family, len(packed) * 8, 0, 0, socket.if_nametoindex("lo"))
    for kind in (IFA_LOCAL, IFA_ADDRESS):
        body += struct.pack("=HH", 4 + len(packed), kind) + packed
    head = struct.pack("=IHHII", 16 + len(body), RTM_NEWADDR, NLM_F_REQUEST_ACK_CREATE, 1, 0)
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 0) as netlink:
        netlink.send(head + body)
        answer = netlink.recv(4096)
    (error,) = struct.unpack_from("=i", answer, 16)
    if error not in (0, -17):  # EEXIST: two doors on one address
        raise OSError(-error, os.strerror(-error), address)


def give_up_privileges(uid: "int | None", gid: "int | None") -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    if uid is not None and gid is not None:
        for capability in range(64):
            libc.prctl(PR_CAPBSET_DROP, capability, 0, 0, 0)  # EINVAL beyond the last one
        os.setgroups([])
        os.setresgid(gid, gid, gid)
        os.setresuid(uid, uid, uid)  # drops every capability: none is kept across a change of uid from 0
        libc.prctl(PR_SET_DUMPABLE, 1, 0, 0, 0)  # else /proc/self belongs to root and the maps cannot be written
    me, mine = os.getuid(), os.getgid()
    # A user namespace of our own: processes are counted in it (RLIMIT_NPROC since Linux 5.14), and no
    # further one can be made in it, which keeps much of the kernel out of a student's reach.
    if libc.unshare(CLONE_NEWUSER) == 0:
        put("/proc/self/setgroups", "deny")
        put("/proc/self/uid_map", f"{me or NOBODY_ELSE} {me} 1")
        put("/proc/self/gid_map", f"{mine or NOBODY_ELSE} {mine} 1")
        put("/proc/sys/user/max_user_namespaces", "0")
    elif me == 0:
        sys.exit("no user namespace can be made here, so nothing would be given up")
    if libc.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0:
        sys.exit("PR_SET_NO_NEW_PRIVS is refused")


def put(path: str, text: str) -> None:
    with open(path, "w") as file:
        file.write(text)


if __name__ == "__main__":
    main()
