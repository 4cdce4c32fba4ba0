"""Which veth end belongs to which, across namespaces.

A veth device shows its other end as two numbers: `eth0@if7 … link-netnsid 0`. The 7 is an index *in the other
namespace*, and indexes repeat: every first veth of every namespace may be number 2. The 0 says which other
namespace, but only in the words of the one that speaks. So:

1. What the netns id means is looked up where it is known: `ip netns list-id` gives ids and names, the name's
   inode is the namespace's. This is proof.
2. Where it is not known (a Pod has no name for its node), both ends must point at each other, all devices that
   share a netns id must find their ends in one and the same namespace, and a cable has a carrier only if both
   ends are up. A namespace that already has another id cannot be meant. If just one candidate is left on both
   sides, it is the peer.
3. A MAC address that a bridge has learned behind one end decides between candidates.
4. What is still open is called ambiguous. Nothing is guessed.

The kernel's side: rtnl_fill_link_netnsid() in net/core/rtnetlink.c, veth_get_iflink() in drivers/net/veth.c.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from lab_utils.links.devices import Device
from lab_utils.links.namespace import Namespace

FOUND, OUTSIDE, AMBIGUOUS = "found", "outside", "ambiguous"


@dataclass(frozen=True, order=True)
class End:
    """One device, named so that it cannot be mistaken: namespace, index, and the name for people."""

    namespace: str
    index: int
    name: str

    def __str__(self) -> str:
        return f"{self.namespace}:{self.name}"


@dataclass(frozen=True)
class Peer:
    """The answer for one end. `certain` is False when it rests on both ends pointing at each other alone."""

    verdict: str
    end: End | None
    evidence: str
    candidates: tuple[End, ...] = ()
    certain: bool = True


@dataclass(frozen=True)
class _Group:
    """All cables of one namespace that go to the same netns id: they all end in one other namespace."""

    namespace: str
    nsid: int


def match_peers(namespaces: Iterable[Namespace], names: Mapping[str, int] | None = None) -> dict[End, Peer]:
    """The peer of every veth end. `names` gives the inode of each name in /run/netns, where it was looked up."""
    matcher = _Matcher(list(namespaces), names or {})
    return {matcher.end(ns, device): matcher.answer(ns, device) for ns in matcher.all.values() for device in ns.devices if device.is_cable}


class _Matcher:
    def __init__(self, namespaces: list[Namespace], names: Mapping[str, int]) -> None:
        self.all = {ns.name: ns for ns in namespaces}
        if len(self.all) != len(namespaces):
            raise ValueError("two namespaces have the same name")
        self.names = names
        self.groups: dict[_Group, list[Device]] = defaultdict(list)
        for ns in namespaces:
            for device in ns.devices:
                if device.is_cable and device.link_nsid is not None:
                    self.groups[_Group(ns.name, device.link_nsid)].append(device)
        self.known: dict[_Group, str | None] = {}  # what a netns id means; None: a namespace that we were not shown
        for ns in namespaces:
            for nsid, name in ns.nsids.items():
                self._learn_name(_Group(ns.name, nsid), ns, name)
        self.decided: dict[_Group, tuple[str, str, bool]] = {}  # namespace, why, certain
        self.open = {group: sorted(self._possible(group)) for group in self.groups if group not in self.known}
        self._narrow()

    @staticmethod
    def end(ns: Namespace, device: Device) -> End:
        return End(ns.name, device.index, device.name)

    def _learn_name(self, group: _Group, speaker: Namespace, name: str) -> None:
        """A name is as good as its inode. Without one it must be the name of a namespace that we were shown, or it says nothing."""
        inode = self.names.get(name)
        neighbours = [ns for ns in self.all.values() if _same_kernel(ns, speaker)]
        if inode is not None:
            self.known[group] = next((ns.name for ns in neighbours if ns.inode == inode), None)
            if self.known[group] is None and any(ns.inode is None for ns in neighbours):
                del self.known[group]
        elif name in self.all:
            self.known[group] = name

    def _possible(self, group: _Group) -> Iterator[str]:
        """Every namespace that could be meant: the ends there point back, one for one."""
        speaker = self.all[group.namespace]
        taken = {meant for other, meant in self.known.items() if other.namespace == group.namespace and other.nsid != group.nsid}
        for ns in self.all.values():
            if ns.name == group.namespace or ns.name in taken or not _same_kernel(ns, speaker):
                continue
            back = {device.link_nsid for mine in self.groups[group] if (device := _mate(mine, ns))}
            if len(back) != 1 or None in back:
                continue
            reverse = _Group(ns.name, next(iter(back)) or 0)
            if self.known.get(reverse, group.namespace) != group.namespace:
                continue
            theirs = self.groups[reverse]
            if len(theirs) == len(self.groups[group]) and all(_mate(mine, ns) in theirs for mine in self.groups[group]):
                yield ns.name

    def _narrow(self) -> None:
        """Decide what can be decided, until nothing more can."""
        for group, candidates in self.open.items():
            proven = [name for name in candidates if self._reverse(group, name) in self.known]
            seen = [name for name in candidates if self._mac_seen(group, name)]
            if len(proven) == 1:
                self.decided[group] = (proven[0], "the other end is proven to point back", True)
            elif len(seen) == 1:
                self.decided[group] = (seen[0], "a bridge learned its MAC address behind this cable", True)
        changed = True
        while changed:
            changed = False
            for group, candidates in self.open.items():
                if group in self.decided:
                    continue
                left = [name for name in candidates if self._still_possible(group, name)]
                if left != candidates:
                    self.open[group] = left
                    changed = True
        for group, candidates in self.open.items():
            if (
                group not in self.decided
                and len(candidates) == 1
                and self.open.get(self._reverse(group, candidates[0])) == [group.namespace]
            ):
                self.decided[group] = (candidates[0], "the only end that points back", False)

    def _reverse(self, group: _Group, name: str) -> _Group:
        mate = _mate(self.groups[group][0], self.all[name])
        assert mate is not None and mate.link_nsid is not None  # asked of candidates only
        return _Group(name, mate.link_nsid)

    def _still_possible(self, group: _Group, name: str) -> bool:
        """Has nothing been decided meanwhile that speaks against this candidate?"""
        reverse = self._reverse(group, name)
        taken = {found for other, (found, _, _) in self.decided.items() if other.namespace == group.namespace and other != group}
        if name in taken:
            return False
        if reverse in self.decided:
            return self.decided[reverse][0] == group.namespace
        return reverse in self.known or group.namespace in self.open[reverse]

    def _mac_seen(self, group: _Group, name: str) -> bool:
        """Has a bridge learned, behind one of our ends, the MAC address of the end in that namespace (or the other way round)?"""
        mine, other = self.all[group.namespace], self.all[name]
        for device in self.groups[group]:
            mate = _mate(device, other)
            if mate and (_behind(mine, device, mate) or _behind(other, mate, device)):
                return True
        return False

    def answer(self, ns: Namespace, device: Device) -> Peer:
        if device.link_index is None:
            return Peer(OUTSIDE, None, "the kernel names no other end")
        if device.link_nsid is None:
            mate = ns.device(device.link_index)
            return (
                Peer(FOUND, self.end(ns, mate), f"index {mate.index} of the same namespace")
                if mate
                else Peer(OUTSIDE, None, "its other end was not listed")
            )
        group = _Group(ns.name, device.link_nsid)
        numbers = f"index {device.link_index}, netns id {device.link_nsid}"
        if group in self.known:
            meant = self.known[group]
            name = ns.nsids[device.link_nsid]
            if meant is None:
                return Peer(OUTSIDE, None, f"{numbers}; that id is {name!r}, which was not read")
            mate = self.all[meant].device(device.link_index)
            if mate is None:
                return Peer(OUTSIDE, None, f"{numbers}; that id is {name!r}, where the device was not listed")
            return Peer(FOUND, self.end(self.all[meant], mate), f"{numbers}; that id is {name!r}")
        if group in self.decided:
            found, why, certain = self.decided[group]
            mate = _mate(device, self.all[found])
            assert mate is not None  # a namespace is a candidate only if the mate is there
            return Peer(FOUND, self.end(self.all[found], mate), f"{numbers}; {why}", certain=certain)
        ends = tuple(self.end(self.all[name], mate) for name in self.open[group] if (mate := _mate(device, self.all[name])))
        if ends:
            return Peer(
                AMBIGUOUS, None, f"{numbers}; the id has no name here, and these ends fit: {', '.join(map(str, ends))}", ends, certain=False
            )
        return Peer(OUTSIDE, None, f"{numbers}; no namespace that was read has such an end")


def _same_kernel(one: Namespace, other: Namespace) -> bool:
    return not one.kernel or not other.kernel or one.kernel == other.kernel


def _mate(mine: Device, ns: Namespace) -> Device | None:
    """The device in `ns` that could be the other end: indexes crossed, same kind, and both agree whether the cable is live."""
    if mine.link_index is None:
        return None
    theirs = ns.device(mine.link_index)
    if theirs is None or theirs.kind != mine.kind or theirs.link_index != mine.index or theirs.link_nsid is None:
        return None
    if mine.up and mine.carrier != theirs.up:
        return None
    if theirs.up and theirs.carrier != mine.up:
        return None
    return theirs


def _behind(ns: Namespace, port: Device, mate: Device) -> bool:
    return any(entry.learned and entry.device == port.name and entry.mac == mate.mac for entry in ns.forwarding)
