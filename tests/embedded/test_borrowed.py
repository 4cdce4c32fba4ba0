"""What clusters change on the host is given back by the last of them, and never what somebody else has set since."""

from __future__ import annotations

from pathlib import Path

import pytest

from lab_utils.embedded import borrowed, cgroups, forward, network, operations, state
from lab_utils.embedded.state import State


class Host:
    """A host whose switches are files in a folder of the test's."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.folder = folder
        self.boot = "first"
        self.closed = False
        self.ways = ["wlan0"]
        self.opened: list[tuple[list[str], bool]] = []
        self.closed_before: list[str] = []
        self.unloaded = 0
        folder.mkdir()
        self.say(inotify="128", ip_forward="0", wlan0="0", eth0="0")
        monkeypatch.setenv("LAB_STATE", str(folder / "state"))
        monkeypatch.setattr(state, "boot_id", lambda: self.boot)
        for module in (borrowed, operations):
            monkeypatch.setattr(module, "INOTIFY", folder / "inotify")
        monkeypatch.setattr(borrowed, "IP_FORWARD", folder / "ip_forward")
        monkeypatch.setattr(network, "forwarding", lambda device: folder / (device or "nothing"))
        monkeypatch.setattr(forward, "is_closed", lambda: self.closed)
        monkeypatch.setattr(network, "ways_out", lambda: self.ways)
        monkeypatch.setattr(network, "bridge_netfilter", lambda: "not loaded")
        monkeypatch.setattr(network, "unload_bridge_netfilter", self.unload)
        monkeypatch.setattr(network, "open_ways_out", self.open)
        for name in ("load_bridge_netfilter", "make", "close_ways_out", "fence", "unplug", "remove", "forget_netns_mount"):
            monkeypatch.setattr(network, name, lambda *_, **__: None)

    def say(self, **values: str) -> None:
        for name, value in values.items():
            (self.folder / name).write_text(f"{value}\n")

    def says(self, name: str) -> str:
        return (self.folder / name).read_text().strip()

    def open(self, plan: network.Plan, ways: list[str], closed: list[str], *, through_forward_chain: bool) -> None:
        self.opened.append((ways, through_forward_chain))
        self.closed_before = closed
        self.say(**dict.fromkeys(ways, "1"))

    def unload(self) -> None:
        self.unloaded += 1


@pytest.fixture
def host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Host:
    return Host(tmp_path / "host", monkeypatch)


def up(name: str = "lab") -> State:
    """What `lab up` does to the host, for a cluster that is new or known."""
    known = state.load(name) or State(name, 1, "172.31.64.0/24", ["cp"], "", "", "")
    known.save()
    operations._wire(known)
    return known


def down(name: str = "lab") -> None:
    known = state.load(name)
    assert known
    operations._remove(known)


def test_a_cluster_leaves_the_host_as_it_was(host: Host) -> None:
    up()
    assert (host.says("inotify"), host.says("wlan0"), host.opened) == ("8192", "1", [(["wlan0"], False)])
    down()
    assert (host.says("inotify"), host.says("wlan0"), host.unloaded) == ("128", "0", 1)


def test_what_is_enough_already_is_left_alone(host: Host) -> None:
    host.say(inotify="65536", wlan0="1")
    up()
    assert host.closed_before == [], "who has opened it may want what comes by it"
    down()
    assert (host.says("inotify"), host.says("wlan0")) == ("65536", "1")


def test_the_last_of_several_clusters_gives_back_whichever_that_is(host: Host) -> None:
    up("one")
    up("two")
    down("one")
    assert (host.says("inotify"), host.says("wlan0"), host.unloaded) == ("8192", "1", 0)
    down("two")
    assert (host.says("inotify"), host.says("wlan0"), host.unloaded) == ("128", "0", 1)


def test_a_cluster_that_is_only_planned_holds_nothing_back(host: Host) -> None:
    """It has not looked yet: it would find the changes of the one that goes, and take them for the host's own."""
    up("one")
    State("planned", 2, "172.31.65.0/24", ["cp"], "", "", "").save()
    down("one")
    assert (host.says("inotify"), host.says("wlan0"), host.unloaded) == ("128", "0", 1)


def test_what_somebody_has_set_since_is_not_undone(host: Host) -> None:
    up()
    host.say(inotify="65536", wlan0="0")
    down()
    assert (host.says("inotify"), host.says("wlan0")) == ("65536", "0")


def test_who_lets_everything_through_keeps_it(host: Host) -> None:
    """Docker switches the whole host to forwarding; it was not so when the cluster came."""
    up()
    host.say(ip_forward="1")
    down()
    assert host.says("wlan0") == "1"


def test_a_boot_has_undone_everything_so_nothing_is_given_back(host: Host) -> None:
    up()
    host.boot = "second"
    host.say(inotify="8192", wlan0="1")  # the administrator's, in /etc/sysctl.d
    down()
    assert (host.says("inotify"), host.says("wlan0"), host.unloaded) == ("8192", "1", 0)


def test_after_a_boot_it_is_remembered_anew(host: Host) -> None:
    up("one")
    up("two")
    host.boot = "second"
    host.say(inotify="256", wlan0="0")
    host.closed = False
    up("one")
    down("one")
    assert host.says("inotify") == "256", "what the other one remembers is of the boot before"


def test_another_way_out_is_taken_and_the_old_one_given_back(host: Host) -> None:
    up()
    host.ways = ["eth0"]
    known = up()
    assert host.opened == [(["wlan0"], False), (["eth0"], False)]
    assert (host.says("wlan0"), host.says("eth0"), known.ways) == ("0", "1", ["eth0"])
    down()
    assert (host.says("wlan0"), host.says("eth0")) == ("0", "0")


def test_all_ways_are_opened_and_given_back(host: Host) -> None:
    """A laptop in a VPN that takes a part of the addresses, and whose user then leaves it."""
    host.ways = ["eth0", "wlan0"]
    up()
    assert (host.says("wlan0"), host.says("eth0"), host.closed_before) == ("1", "1", ["eth0", "wlan0"])
    up()
    assert host.closed_before == ["eth0", "wlan0"], "they were closed before the cluster came"
    host.ways = ["wlan0"]
    up()
    assert (host.says("wlan0"), host.says("eth0")) == ("1", "0")
    down()
    assert (host.says("wlan0"), host.says("eth0")) == ("0", "0")


def test_an_old_way_out_that_another_cluster_still_takes_stays_open(host: Host) -> None:
    up("one")
    up("two")
    host.ways = ["eth0"]
    up("one")
    assert host.says("wlan0") == "1"
    down("two")
    assert (host.says("wlan0"), host.says("eth0")) == ("0", "1")


def test_a_device_that_has_gone_keeps_no_cluster_from_starting(host: Host) -> None:
    up()
    (host.folder / "wlan0").unlink()
    host.ways = []
    assert up().ways == []
    host.ways = ["eth0"]
    assert up().ways == ["eth0"]
    down()
    assert host.says("eth0") == "0"


def test_without_a_way_out_for_now_the_one_before_is_kept(host: Host) -> None:
    up()
    host.ways = []
    assert up().ways == ["wlan0"]


def test_a_firewall_that_came_later_is_noticed(host: Host) -> None:
    up()
    host.closed = True
    assert up().forward_rules
    assert host.opened[-1] == (["wlan0"], True)
    host.closed = False
    assert up().forward_rules, "our two rules are there, and have to be removed"


def test_controllers_that_groups_hand_to_their_children_are_kept_back_by_the_last(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    """A control group as the kernel shows it (cgroup-v2.rst): what is written to it begins with + or -, what is read does not."""

    class Control(type(host.folder)):  # type: ignore[misc]
        def write_text(self, text: str) -> int:
            names = set(self.read_text().split())
            for word in text.split():
                names = names | {word[1:]} if word[0] == "+" else names - {word[1:]}
            with self.open("w") as file:
                return int(file.write(" ".join(sorted(names))))

    group = host.folder / "group"
    group.mkdir()
    control = Control(group / cgroups.CONTROL)
    Path(control).write_text("pids")
    monkeypatch.setattr(cgroups, "dividing", lambda: [control])
    monkeypatch.setattr(borrowed, "Path", Control)
    up("one")
    control.write_text("+cpu +memory")  # as `cgroups.place` does for its first node
    up("two")
    down("one")
    assert control.read_text() == "cpu memory pids", "another cluster stands on it"
    down("two")
    assert control.read_text() == "pids"
