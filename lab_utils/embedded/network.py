"""A cluster's network on the host: one switch in a namespace of its own, and one link to the host.

      host ── kioN ═══ uplink ┐
                              │ br0   in namespace kio-NAME-lan
      cp   ── eth0 ═══ cp ────┤
      w1   ── eth0 ═══ w1 ────┘       (═══ is a veth pair)

The switch has a namespace of its own so that what nodes say to each other never meets the host's firewall
(a Docker host drops what it forwards). On the host remain: one link, one nft table for the ways out, and
forwarding switched on for that link and the devices that lead somewhere; each is recorded before it is changed.
"""

from __future__ import annotations

import ipaddress
import json
import os
import re
import signal
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from lab_utils.embedded import forward, guard
from lab_utils.embedded.kubeadm import POD_SUBNET, SERVICE_SUBNET
from lab_utils.errors import HostLacks
from lab_utils.run import run, start

NETNS_DIR = Path("/run/netns")
BRIDGE_SYSCTLS = Path("/proc/sys/net/bridge")
WIDEST = 8  # 10.0.0.0/8 is the widest network that is anybody's own (RFC 1918)


@dataclass(frozen=True)
class Plan:
    """Names and addresses of one cluster's network. `index` is unique among the clusters of this machine."""

    cluster: str
    index: int
    subnet: str

    @property
    def link(self) -> str:
        return f"kio{self.index}"

    @property
    def lan(self) -> str:
        return f"kio-{self.cluster}-lan"

    @property
    def gateway(self) -> str:
        return str(ipaddress.ip_network(self.subnet)[1])

    def netns(self, node: str) -> str:
        return f"kio-{self.cluster}-{node}"

    def address(self, position: int) -> str:
        """The first node, `cp`, gets .11, then .12, …"""
        return str(ipaddress.ip_network(self.subnet)[11 + position])


def free_subnet(taken: Iterable[str], index: int) -> str:
    """A /24 that overlaps nothing in `taken`; `index` picks where to begin. Pure.

    A route wider than any company's network is the way to everything else, and takes no address: the default route, or the halves
    0.0.0.0/1 and 128.0.0.0/1 by which a VPN goes before it.
    """
    used = [ipaddress.ip_network(text, strict=False) for text in taken if ":" not in text]
    pool = [
        net
        for block in ("172.31.64.0/18", "10.213.0.0/16", "192.168.128.0/17", "198.18.0.0/15")
        for net in ipaddress.ip_network(block).subnets(new_prefix=24)
    ]
    for candidate in pool[index:] + pool[:index]:
        if not any(candidate.overlaps(net) for net in used if net.prefixlen >= WIDEST):
            return str(candidate)
    raise HostLacks(
        "no free network of 256 addresses was found beside the host's own", "Remove an unused cluster with `lab down`, or leave a VPN"
    )


def subnets_in_use() -> list[str]:
    """What the host's routes and addresses already cover."""
    routes = json.loads(run(["ip", "-j", "-4", "route", "show", "table", "all"]).stdout or "[]")
    found = [route["dst"] for route in routes if route.get("dst", "default") != "default" and route.get("type") != "broadcast"]
    return [dst for dst in found if dst[0].isdigit()]


def make(plan: Plan, nodes: list[str], owners: Mapping[str, int] | None = None) -> None:
    """Make what is missing of the network; what is there stays. Some nodes' namespaces are owned by user namespaces (guard.py)."""
    if not (NETNS_DIR / plan.lan).exists():
        _netns_add(plan.lan)
        _ip(
            f"-n {plan.lan} link set lo up",
            f"-n {plan.lan} link add br0 type bridge",
            f"-n {plan.lan} link set br0 up",
            f"link add {plan.link} type veth peer name uplink netns {plan.lan}",
            f"-n {plan.lan} link set uplink master br0 up",
            f"addr add {plan.gateway}/24 dev {plan.link}",
            f"link set {plan.link} up",
        )
    for position, node in enumerate(nodes):
        name = plan.netns(node)
        if (NETNS_DIR / name).exists():
            continue
        if first := (owners or {}).get(node):
            _guarded_netns_add(name, first)
        else:
            _netns_add(name)
        _ip(
            f"-n {name} link set lo up",
            # The MAC address follows from the IP address, as a machine keeps its card over a restart.
            f"-n {name} link add eth0 address {mac(plan.address(position))} type veth peer name {node} netns {plan.lan}",
            f"-n {plan.lan} link set {node} master br0 up",
            f"-n {name} addr add {plan.address(position)}/24 dev eth0",
            f"-n {name} link set eth0 up",
            f"-n {name} route add default via {plan.gateway}",
        )


def mac(address: str) -> str:
    return "02:6b:" + ":".join(f"{byte:02x}" for byte in ipaddress.ip_address(address).packed)


def leading_somewhere(routes: str) -> list[str]:
    """Of `ip -j route show table all`, the devices by which packets leave: that of the default route, and perhaps a VPN's, or that of a
    second network. Other clusters' links are none of them. Pure."""
    unicast = [route for route in json.loads(routes or "[]") if route.get("type", "unicast") == "unicast"]
    devices = {hop["dev"] for route in unicast for hop in route.get("nexthops", [route]) if "dev" in hop}
    return sorted(device for device in devices if device != "lo" and not re.fullmatch(r"kio\d+", device))


def ways_out() -> list[str]:
    """The devices by which the nodes shall go out: all of the host's, as what it reaches is what they should reach."""
    return leading_somewhere(run(["ip", "-j", "-4", "route", "show", "table", "all"]).stdout)


def forwarding(device: str) -> Path:
    """The switch that lets packets pass through the host: one per device that they come in by, never the global one."""
    return Path(f"/proc/sys/net/ipv4/conf/{device}/forwarding")


def open_ways_out(plan: Plan, ways: Iterable[str], closed: Iterable[str], *, through_forward_chain: bool) -> None:
    """Let the nodes reach what the host reaches, by NAT; where the host drops what it forwards, past that too.

    What is meant for a Pod or a Service that is gone finds no rule on its node and follows the default route: it ends here, and
    does not go out to be answered by whoever has that address there. Two clusters see each other's nodes by their own addresses.

    The switch of a device lets all packets in that come by it. Those that were `closed` stay so to each other: the host does not become
    a router between its networks.
    """
    for device in (plan.link, *ways):
        forwarding(device).write_text("1")
    devices = ", ".join(f'"{device}"' for device in closed)
    between = f"iifname {{ {devices} }} oifname {{ {devices} }} drop" if devices else ""
    rules = f"""
        table ip {plan.link} {{
            chain out {{ type nat hook postrouting priority srcnat; ip saddr {plan.subnet} oifname != "kio*" masquerade; }}
            chain strays {{
                type filter hook forward priority filter;
                iifname "{plan.link}" ip daddr {{ {POD_SUBNET}, {SERVICE_SUBNET} }} reject with icmp type host-unreachable
                {between}
            }}
        }}
    """
    run(["nft", "-f", "-"], input=f"table ip {plan.link} {{}}\ndelete table ip {plan.link}\n{rules}")
    if through_forward_chain:
        forward.let_through(plan.link)


def close_ways_out(plan: Plan, *, through_forward_chain: bool) -> None:
    run(["nft", "delete", "table", "ip", plan.link], check=False)
    if through_forward_chain:
        forward.take_back(plan.link)


def fence(plan: Plan, closed: bool) -> None:
    """Keep nodes and Pods from reaching the host and beyond it. What the host asks them is answered; between them nothing changes.

    On the host, where nobody in the cluster can lift it, and in a table of its own, so that a restarted cluster stays fenced.
    """
    name = f"{plan.link}-fence"
    rules = f"""
        table inet {name} {{
            chain forward {{ type filter hook forward priority filter; iifname "{plan.link}" oifname != "{plan.link}" reject; }}
            chain input {{ type filter hook input priority filter; iifname "{plan.link}" ct state new reject; }}
        }}
    """
    run(["nft", "-f", "-"], input=f"table inet {name} {{}}\ndelete table inet {name}\n{rules if closed else ''}")


def unplug(plan: Plan, nodes: list[str]) -> None:
    """Remove the networks of some nodes, and first their ends at the switch: with a namespace they would go, but a while later."""
    for node in nodes:
        run(["ip", "-n", plan.lan, "link", "delete", node], check=False)
        _netns_delete(plan.netns(node))


def remove(plan: Plan, nodes: list[str]) -> None:
    """Remove all that `make` made. A namespace takes its links along, and a veth its other end."""
    run(["ip", "link", "delete", plan.link], check=False)
    for name in [*(plan.netns(node) for node in nodes), plan.lan]:
        _netns_delete(name)


def index_of(cluster: str) -> int:
    """Which `kioN` leads to the cluster's switch, asked of the kernel; -1 when there is none. For a record that was lost."""
    lan = Plan(cluster, -1, "0.0.0.0/24").lan
    ids = {item["name"]: item.get("id") for item in json.loads(run(["ip", "-j", "netns", "list"]).stdout or "[]")}
    for link in json.loads(run(["ip", "-j", "link"]).stdout):
        number = link["ifname"].removeprefix("kio")
        if number.isdigit() and lan in ids and link.get("link_netnsid") == ids[lan]:
            return int(number)
    return -1


def nameservers() -> list[str]:
    """Name servers that a node can reach too: one on the host's loopback is of no use to it. Where /etc/resolv.conf names that one alone,
    systemd-resolved and NetworkManager (for its dnsmasq) keep the real ones in files beside it."""
    for file in map(Path, ("/etc/resolv.conf", "/run/systemd/resolve/resolv.conf", "/run/NetworkManager/no-stub-resolv.conf")):
        try:
            found = parse_nameservers(file.read_text())
        except OSError:
            continue
        if found:
            return found
    return []


def names_stay_inside() -> bool:
    """Has this machine a name server, and none that nodes could reach?"""
    try:
        return "nameserver" in Path("/etc/resolv.conf").read_text() and not nameservers()
    except OSError:
        return False


def parse_nameservers(text: str) -> list[str]:
    words = [line.split() for line in text.splitlines()]
    servers = [line[1] for line in words if len(line) > 1 and line[0] == "nameserver"]
    return [server for server in servers if _reachable(server)]


def _reachable(server: str) -> bool:
    """By a node, whose loopback is another, and which has IPv4 alone. What is no address at all, the resolver passes over as well."""
    try:
        return not ipaddress.IPv4Address(server).is_loopback
    except ValueError:
        return False


def _netns_add(name: str) -> None:
    run(["ip", "netns", "add", name])


def _netns_delete(name: str) -> None:
    if (NETNS_DIR / name).exists():
        run(["ip", "netns", "delete", name], check=False)


def _guarded_netns_add(name: str, first: int) -> None:
    """As `ip netns add`, but the network namespace is made by a user namespace. Both live as long as the name does."""
    place = NETNS_DIR / name
    place.touch(mode=0o444)
    holder = start(["unshare", "--user", "--net", "sleep", "60"], log=Path(os.devnull), env={"PATH": os.environ["PATH"]})
    try:
        guard.wait_unshared(holder)
        guard.map_ids(holder, first)
        run(["mount", "--bind", f"/proc/{holder}/ns/net", place])
    except BaseException:
        place.unlink()
        raise
    finally:
        os.kill(holder, signal.SIGKILL)


def _ip(*lines: str) -> None:
    """Several `ip` commands, the first failing one named."""
    for line in lines:
        run(["ip", *line.split()])


def bridge_netfilter() -> str:
    return "loaded" if BRIDGE_SYSCTLS.is_dir() else "not loaded"


def load_bridge_netfilter() -> None:
    """Services need it: what Pods of one node say to each other over its bridge has to pass kube-proxy's rules (flannel refuses to
    start without). It is switched per network namespace and on by default, so the host's own bridges are taken out of it."""
    if bridge_netfilter() == "not loaded":
        run(["modprobe", "br_netfilter"])
        for file in BRIDGE_SYSCTLS.glob("bridge-nf-call-*"):
            file.write_text("0")


def unload_bridge_netfilter() -> None:
    """Unless somebody has come to rely on it: Docker without its userland proxy and k3s switch it on again for the host's bridges. Nothing
    counts who uses it, so the kernel would let it go."""
    switches = [file.read_text().strip() for file in BRIDGE_SYSCTLS.glob("bridge-nf-call-*")]
    if not any(value == "1" for value in switches):
        run(["modprobe", "-r", "br_netfilter"], check=False)


def forget_netns_mount() -> None:
    """`ip netns add` turns /run/netns into a mount of its own; when the last name is gone, so may that be."""
    if NETNS_DIR.is_dir() and not any(NETNS_DIR.iterdir()):
        run(["umount", NETNS_DIR], check=False)
        try:
            NETNS_DIR.rmdir()
        except OSError:
            pass
