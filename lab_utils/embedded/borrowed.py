"""What clusters change on the host, and how it is given back.

Several may stand on the same change: the first to come remembers what the host said, the last to go puts that back. What somebody else has
changed since stays as it is. Both functions are called with the host's lock held (state.host_lock).
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from lab_utils.embedded import cgroups, forward, network, state
from lab_utils.embedded.state import State

# Keys of State.host_before that are no files below /proc/sys.
NETNS = str(network.NETNS_DIR)
BRIDGE_NETFILTER = "br_netfilter"

# systemd, containerd, kubelet and others of a node hold about fifteen of these each, and the kernel's 128 are for all of root's
# processes on the machine: the third cluster's kubelets would end with "inotify_init: too many open files".
INOTIFY = Path("/proc/sys/fs/inotify/max_user_instances")
INOTIFY_ENOUGH = 8192

IP_FORWARD = Path("/proc/sys/net/ipv4/ip_forward")


def remember(known: State, ways: list[str]) -> None:
    """Write down what the host says now, before any of it is changed. `ways` are the devices by which the nodes shall go out; what was
    changed for others is given back."""
    if not known.of_this_boot:
        known.host_before, known.forward_rules = {}, False
    known.boot = state.boot_id()
    give_back(known, [str(network.forwarding(way)) for way in known.ways if way not in ways])
    known.ways = ways
    said = {
        NETNS: "mounted" if network.NETNS_DIR.is_mount() else "not mounted",
        BRIDGE_NETFILTER: network.bridge_netfilter(),
        str(INOTIFY): INOTIFY.read_text().strip(),
    }
    said |= {str(file): file.read_text().strip() for file in cgroups.dividing()}
    said |= {str(file): file.read_text().strip() for file in map(network.forwarding, ways)}
    known.forward_rules = known.forward_rules or forward.is_closed()
    # Another cluster may have changed it already: then it is that one's record which holds the host's own value.
    elsewhere = {key: value for other in _others(known) for key, value in other.host_before.items()}
    for key, now in said.items():
        known.host_before.setdefault(key, elsewhere.get(key, now))
    known.save()


def give_back(known: State, keys: Iterable[str]) -> None:
    """What no other cluster stands on becomes what it was."""
    needed = {key for other in _others(known) for key in other.host_before}
    for key in keys:
        said = known.host_before.pop(key, None)
        if said is None or key in needed or not known.of_this_boot:
            continue
        if key == NETNS:
            if said == "not mounted":
                network.forget_netns_mount()
        elif key == BRIDGE_NETFILTER:
            if said == "not loaded":
                network.unload_bridge_netfilter()
        elif Path(key).name == cgroups.CONTROL:
            if Path(key).exists():
                cgroups.keep_back(Path(key), said)
        elif _still_ours(Path(key)):
            Path(key).write_text(said)


def _others(known: State) -> list[State]:
    return [other for other in state.all_states() if other.name != known.name and other.of_this_boot]


def _still_ours(file: Path) -> bool:
    """Does it hold what we wrote? Whoever set it since has a reason, and who lets everything through (Docker does) needs every device."""
    try:
        says = file.read_text().strip()
    except OSError:  # its device has gone
        return False
    if file == INOTIFY:
        return says == str(INOTIFY_ENOUGH)
    return says == "1" and IP_FORWARD.read_text().strip() != "1"
