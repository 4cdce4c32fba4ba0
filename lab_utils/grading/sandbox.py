"""A place where a student's code can run: bubblewrap, with everything in it named here.

    sees      /usr, the Python of the grader, this package, the lab's own files: all read-only
    writes    its HOME, /tmp and /dev/shm: small file systems in memory that vanish with it
    is        a user that nobody else is, without capabilities, in user, pid, mount, network, ipc and uts
              namespaces of its own
    reaches   the doors that it is given (the API server, perhaps ssh of the nodes) and nothing else
    has       an environment made from nothing

The grader reads the answers through a descriptor that was opened inside (see `inside.py`), so no path of
the host is writable in here. bubblewrap is the tool behind Flatpak; see bwrap(1).
"""

from __future__ import annotations

import json
import os
import select
import shutil
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import lab_utils
from lab_utils.errors import HostLacks, LabError
from lab_utils.grading import cgroups
from lab_utils.grading.limits import Limits

HOME = "/home/student"
ANSWERS = f"{HOME}/.lab/answers"
SOCKETS = "/tmp/kernel"
FIRST_UID = 1_500_000_000  # far above what distributions, directories and containers hand out
CAPABILITIES = ("SETUID", "SETGID", "SETPCAP", "NET_ADMIN", "NET_BIND_SERVICE")  # of inside.py; the kernel has none


@dataclass(frozen=True)
class Door:
    """One way out of the sandbox: what is reached in there at `address:port` is `target` out here."""

    address: str
    port: int
    target: tuple[str, int]


@dataclass(frozen=True)
class View:
    """What of the host is shown inside, read-only: path in the sandbox → path on the host."""

    read_only: Mapping[str, Path]
    files: Mapping[str, str] = field(default_factory=dict)  # small files, written inside before the kernel starts


class SandboxFailed(LabError):
    """The sandbox could not be made; no student's code has run."""


class Sandbox:
    """One running sandbox. `kill` ends all of it, whatever its processes do about signals."""

    def __init__(
        self, name: str, view: View, argv: Sequence[str], env: Mapping[str, str], limits: Limits, doors: Sequence[Door] = ()
    ) -> None:
        self.name = name
        self.doors: list[tuple[Door, socket.socket]] = []
        self.cgroup = cgroups.make(name, limits.memory_bytes, limits.processes)
        self._stderr = b""
        self._pidfd = -1
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
        info_read, info_write = os.pipe()
        words = wrap(view, limits)
        args = os.memfd_create("bwrap-args")
        os.write(args, b"\0".join(word.encode() for word in words) + b"\0")
        os.lseek(args, 0, os.SEEK_SET)
        command = [bwrap(), "--args", str(args), "--info-fd", str(info_write), "--"]
        command += [sys.executable, "-I", "-S", "-B", str(_here("inside.py")), str(theirs.fileno())]
        try:
            self.process = subprocess.Popen(  # not run(): this program lives on while we talk to it
                command,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                env={"PATH": "/usr/bin:/bin"},
                cwd="/",
                pass_fds=(args, info_write, theirs.fileno()),
                start_new_session=True,
                preexec_fn=self.cgroup.enter,
            )
        finally:
            theirs.close()
            os.close(args)
            os.close(info_write)
        self._listener = threading.Thread(target=self._listen, name=f"{name}-stderr", daemon=True)
        self._listener.start()
        try:
            self._first_process(info_read)
            self._greet(ours, argv, env, view, limits, doors)
        except BaseException:
            self.kill()
            raise
        finally:
            os.close(info_read)
            ours.close()

    def _first_process(self, info: int) -> None:
        """Hold on to the first process of the pid namespace: when it dies, the kernel kills all others."""
        said = b""
        while not said.rstrip().endswith(b"}") and select.select([info], [], [], 20)[0]:  # it is written in pieces
            more = os.read(info, 4096)
            if not more:
                break
            said += more
        try:
            self._pidfd = os.pidfd_open(json.loads(said)["child-pid"])
        except (ValueError, KeyError, OSError):
            raise SandboxFailed(f"bubblewrap did not start: {self.last_words() or 'it said nothing'}", "Run `lab doctor`") from None

    def _greet(
        self, ours: socket.socket, argv: Sequence[str], env: Mapping[str, str], view: View, limits: Limits, doors: Sequence[Door]
    ) -> None:
        uid = FIRST_UID + os.getpid() if os.geteuid() == 0 else None
        config = {
            "uid": uid,
            "gid": uid,
            "doors": [[door.address, door.port] for door in doors],
            "folders": [ANSWERS, SOCKETS, f"{HOME}/.ipython", f"{HOME}/work"],
            "files": dict(view.files),
            "rlimits": rlimits(limits),
            "cwd": f"{HOME}/work",
            "argv": list(argv),
            "env": dict(env),
        }
        text = json.dumps(config).encode()
        ours.settimeout(20)
        try:
            ours.sendall(struct.pack("!I", len(text)) + text)
            said, descriptors, _, _ = socket.recv_fds(ours, 16, 4 + len(doors))
            if said != b"ready" or len(descriptors) != 4 + len(doors):
                raise OSError("it did not get ready")
            ours.sendall(b"g")
        except OSError as error:
            raise SandboxFailed(f"the sandbox did not start ({error}): {self.last_words() or 'it said nothing'}") from None
        self.answers, self.sockets = descriptors[:2]
        for spare in descriptors[2:4]:
            os.close(spare)
        self.doors = [(door, socket.socket(fileno=number)) for door, number in zip(doors, descriptors[4:], strict=True)]

    def _listen(self) -> None:
        """Drain what the kernel's own process says; keep the first bytes, for a kernel that does not start."""
        assert self.process.stdout is not None
        with suppress(OSError, ValueError):
            while data := self.process.stdout.read1(65536):  # type: ignore[attr-defined]
                if len(self._stderr) < 8192:
                    self._stderr += data[: 8192 - len(self._stderr)]

    def last_words(self) -> str:
        self._listener.join(0.5)
        return self._stderr.decode(errors="replace").strip()

    @property
    def alive(self) -> bool:
        return self.process.poll() is None

    def kill(self) -> None:
        """End every process of the sandbox. A pid namespace dies as a whole with its first process: pid_namespaces(7)."""
        if self._pidfd >= 0:
            with suppress(ProcessLookupError):
                signal.pidfd_send_signal(self._pidfd, signal.SIGKILL)
            select.select([self._pidfd], [], [], 20)  # readable when it has ended, and then all others have: pidfd_open(2)
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait(20)

    def close(self) -> None:
        self.kill()
        self._listener.join(2)
        if self.process.stdout:
            self.process.stdout.close()
        for _, door in self.doors:
            door.close()
        self.doors = []
        for name in ("answers", "sockets", "_pidfd"):
            number = getattr(self, name, -1)
            if number >= 0:
                os.close(number)
                setattr(self, name, -1)
        self.cgroup.remove()


def bwrap() -> str:
    found = shutil.which("bwrap")
    if not found:
        raise HostLacks("grading needs bubblewrap, and `bwrap` is not on this machine", "Install it: apt-get install bubblewrap")
    return found


def rlimits(limits: Limits) -> dict[str, int]:
    return {
        "RLIMIT_AS": limits.memory_bytes,
        "RLIMIT_NPROC": limits.processes,
        "RLIMIT_NOFILE": limits.open_files,
        "RLIMIT_FSIZE": limits.file_bytes,
        "RLIMIT_CORE": 0,
        "RLIMIT_MEMLOCK": 1024 * 1024,
        "RLIMIT_MSGQUEUE": 0,
    }


def wrap(view: View, limits: Limits) -> list[str]:
    """bubblewrap's words, in the order in which it makes the mounts."""
    words = ["--unshare-pid", "--unshare-net", "--unshare-ipc", "--unshare-uts", "--unshare-cgroup-try"]
    words += ["--die-with-parent", "--new-session", "--hostname", "sandbox", "--clearenv"]
    words += ["--cap-drop", "ALL"]
    words += [word for name in CAPABILITIES for word in ("--cap-add", f"CAP_{name}")] if os.geteuid() == 0 else []
    if os.geteuid() != 0:  # without root, a user namespace is what allows all the others
        words += ["--unshare-user", "--uid", "0", "--gid", "0"]
        # SETFCAP is asked of whoever maps a root user into a further namespace: user_namespaces(7), since Linux 5.12.
        words += ["--cap-add", "CAP_NET_ADMIN", "--cap-add", "CAP_NET_BIND_SERVICE", "--cap-add", "CAP_SETFCAP"]
    shown: dict[str, Path] = {"/usr": Path("/usr")}
    for place in ("/bin", "/lib", "/lib64", "/sbin"):
        if Path(place).is_symlink():
            words += ["--symlink", str(Path(place).readlink()), place]
        elif Path(place).exists():
            shown[place] = Path(place)
    for name in ("ld.so.cache", "alternatives", "ssl/certs", "localtime", "nsswitch.conf", "protocols", "services"):
        if (Path("/etc") / name).exists():
            shown[f"/etc/{name}"] = Path("/etc") / name
    shown |= python_view()
    shown |= dict(view.read_only)
    words += ["--proc", "/proc", "--dev", "/dev"]
    for place in (HOME, "/tmp", "/dev/shm"):
        words += [*_parents(place), "--perms", "1777", "--size", str(limits.disk_bytes), "--tmpfs", place]
    for inside, outside in sorted(shown.items()):
        words += [*_parents(inside), "--ro-bind", str(outside), inside]
    return [*words, "--remount-ro", "/dev", "--remount-ro", "/"]


def python_view() -> dict[str, Path]:
    """The interpreter that runs us, its libraries and this package, at the same paths as out here."""
    places = {Path(sys.prefix), Path(sys.base_prefix), Path(sys.executable).parent, Path(lab_utils.__file__).parent}
    # A virtual environment's python is a chain of links; each of its stops must exist.
    stop = Path(sys.executable)
    while stop.is_symlink():
        stop = stop.parent / stop.readlink()
        places.add(Path(os.path.normpath(stop.parent)))
    outer = {place for place in places if not any(other != place and other in place.parents for other in places)}
    return {str(place): place for place in outer if not place.is_relative_to("/usr") and str(place) != "/bin"}


def _parents(place: str) -> list[str]:
    """Make the folders above a place readable for everyone; bubblewrap would make them for root only."""
    above = [str(parent) for parent in reversed(Path(place).parents) if str(parent) != "/"]
    return [word for parent in above for word in ("--perms", "0755", "--dir", parent)]


def _here(name: str) -> Path:
    return Path(__file__).resolve().parent / name


def wait_gone(process: subprocess.Popen[bytes], seconds: float) -> bool:
    deadline = time.monotonic() + seconds
    while process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.02)
    return process.poll() is not None
