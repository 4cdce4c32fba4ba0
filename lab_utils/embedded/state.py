"""What root has made for one cluster, written down before it is made.

/var/lib/kubernetes-inside-out/NAME/
    state.json          this record
    nodes/NODE/         upper/ work/ root/ (the overlay), containerd/ (its images), console.log
    pristine/           what `reset` goes back to
Beside it, .NAME.lock is held while a command works on the cluster, and .lock while one decides what it takes of the host.
"""

from __future__ import annotations

import fcntl
import json
import pwd
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any

from lab_utils.embedded import guard
from lab_utils.embedded.network import Plan
from lab_utils.errors import BadInput, Busy
from lab_utils.paths import root_state_dir
from lab_utils.progress import Progress


@dataclass
class State:
    name: str
    index: int
    subnet: str
    nodes: list[str]
    lower: str  # the node root that all nodes share
    store: str  # the image store that each node gets by hard links
    token: str
    options: dict[str, Any] = field(default_factory=dict)
    owner: int = 0
    finished: bool = False
    restoring: bool = False  # a reset has begun and its files are not all back
    ways: list[str] = field(default_factory=list)  # the host's devices that lead somewhere, when it was last asked for them
    resolv_conf: str = ""  # what the nodes were told last
    boot: str = ""  # the boot of the host that `host_before` and `forward_rules` tell of
    host_before: dict[str, str] = field(default_factory=dict)  # /proc/sys file → what it said
    forward_rules: bool = False
    launchers: dict[str, list[int]] = field(default_factory=dict)  # node → [pid, start time] of its first process on the host
    groups: dict[str, list[str]] = field(default_factory=dict)  # node → its control groups

    @property
    def folder(self) -> Path:
        return root_state_dir() / self.name

    @property
    def plan(self) -> Plan:
        return Plan(self.name, self.index, self.subnet)

    @property
    def control_plane(self) -> str:
        return self.nodes[0]

    @property
    def workers(self) -> list[str]:
        return self.nodes[1:]

    def ip(self, node: str) -> str:
        return self.plan.address(self.nodes.index(node))

    def unit(self, node: str) -> str:
        """A name for the node that is unique on this machine: its control groups and its scope carry it."""
        return f"kio-{self.name}-{node}"

    def first_id(self, node: str) -> int:
        """Of a guarded node, who its root is on this machine; 0 when it is this machine's root."""
        return guard.first_id(self.index, self.nodes.index(node)) if self.options.get("guarded") else 0

    def node_dir(self, node: str) -> Path:
        return self.folder / "nodes" / node

    @property
    def of_this_boot(self) -> bool:
        """Has the host not booted since? A boot undoes all that was changed. A record from before boots were noted counts as new."""
        return self.boot in ("", boot_id())

    def save(self) -> None:
        """For root alone: the nodes' ssh key is in it, and kubeadm's token."""
        self.folder.mkdir(parents=True, exist_ok=True)
        draft = self.folder / "state.json.new"
        draft.unlink(missing_ok=True)
        draft.touch(mode=0o600)
        draft.write_text(json.dumps(asdict(self), indent=2) + "\n")
        draft.replace(self.folder / "state.json")

    def forget(self) -> None:
        """From here on no other cluster takes this one into account. Its folder is still there."""
        (self.folder / "state.json").unlink(missing_ok=True)


FIELDS = {each.name for each in fields(State)}


def boot_id() -> str:
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()


def load(name: str) -> State | None:
    path = root_state_dir() / name / "state.json"
    try:
        said = json.loads(path.read_text())
        return State(**{key: said[key] for key in said.keys() & FIELDS})  # a newer version may have written more
    except FileNotFoundError:
        return None
    except (ValueError, TypeError, AttributeError) as error:
        raise BadInput(f"{path} cannot be read ({error})", f"Remove what is left with `lab down --name {name}`") from None


def salvaged(name: str, guess: State) -> State:
    """Of a record that does not make sense as a whole, what can still be read: the host's own values above all, to give them back."""
    try:
        said = json.loads((root_state_dir() / name / "state.json").read_text())
        found = {key: said[key] for key in ("host_before", "forward_rules", "boot", "ways", "groups", "launchers", "nodes", "owner")}
    except (OSError, ValueError, TypeError, KeyError):
        return guess
    same = all(type(value) is type(getattr(guess, key)) for key, value in found.items())
    return replace(guess, **found) if same else guess


def may_touch(known: State, request: dict[str, Any]) -> bool:
    """By its owner, and when that user has gone, by root."""
    asking = request["asked_by"]
    return known.owner in asking or (0 in asking and who(known).isdigit())


def who(known: State) -> str:
    try:
        return pwd.getpwuid(known.owner).pw_name
    except KeyError:
        return str(known.owner)


def all_states() -> list[State]:
    """Every cluster whose record can be read: one that cannot is no reason to fail for the others."""
    found = []
    for path in sorted(root_state_dir().glob("*/state.json")):
        try:
            found.append(load(path.parent.name))
        except BadInput:
            continue
    return [state for state in found if state]


@contextmanager
def locked(name: str, progress: Progress) -> Iterator[None]:
    """One command at a time per name; a second one says that it waits, and gives up after ten minutes."""
    folder = root_state_dir()
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / f".{name}.lock").open("a") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            progress.note(f"another command works on {name!r}; waiting for it")
            _wait(file.fileno(), name)
        yield


@contextmanager
def host_lock() -> Iterator[None]:
    """One command at a time decides what its cluster takes of the host, or gives back: a number, addresses, settings.

    Two clusters' commands run side by side otherwise. It is held for a moment only, and by one command never twice.
    """
    folder = root_state_dir()
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / ".lock").open("a") as file:  # no cluster's lock is called so
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _wait(fileno: int, name: str, seconds: float = 600) -> None:
    import time

    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        try:
            fcntl.flock(fileno, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        except BlockingIOError:
            time.sleep(0.3)
    raise Busy(f"another command still works on {name!r} after {seconds / 60:.0f} minutes")
