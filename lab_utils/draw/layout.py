"""Where the parts of a node go. Plain arithmetic: everybody's eye finds the same thing in the same place on every node.

┌ node ───────────────────────────────────────────────┐
│ [Pod] [Pod] [Pod]                                    │
│   │ cable │     │              ┌────────────┐         │      cable   a veth pair
│ ══╧═══════╧═════╧═ bridge ═════│ IP layer   │         │      bar     the bridge, Pods on both of its sides
│   │                            ├────────────┤         │
│ [Pod]                          │ tunnel     │╌╌╌╌╌╌╌╌╌┼╌╌╌╌  to the other nodes' tunnels
│                                │ uplink     │─────────┼────  the nodes' own network
└──────────────────────────────────────────────────────┘
"""

from __future__ import annotations

from dataclasses import dataclass, field

from lab_utils.draw.text import wrap
from lab_utils.links import FOUND, Device, Peer
from lab_utils.topology import Pod, Topology

Point = tuple[float, float]

TUNNELS = ("vxlan", "ipip", "sit", "gre", "ip6tnl", "geneve", "wireguard", "tun")


@dataclass(frozen=True)
class Style:
    """Sizes. A single node has room to name both ends of every cable; a cluster has not."""

    columns: int
    pod_width: float
    pod_height: float
    cable: float
    name_length: int
    detailed: bool


COMPACT = Style(columns=5, pod_width=134, pod_height=49, cable=20, name_length=20, detailed=False)
DETAILED = Style(columns=4, pod_width=178, pod_height=49, cable=40, name_length=27, detailed=True)

GAP, BAR, PAD, HEADER, STACK, BOX = 8.0, 27.0, 12.0, 30.0, 172.0, 43.0
TRACK = 35.0  # how far below the top of a box of the stack packets run, under its words


@dataclass(frozen=True)
class Item:
    """One port of a bridge (or a routed cable), and the Pod behind it if there is one."""

    device: Device
    pod: Pod | None
    peer: Peer | None


@dataclass(frozen=True)
class Section:
    """A bridge with its ports; without a bridge: cables that end in the node's IP layer, as Calico wires Pods."""

    bridge: Device | None
    items: list[Item]


@dataclass(frozen=True)
class Placed:
    item: Item
    box: tuple[float, float]  # left, top
    plug: Point  # where the cable leaves the Pod
    port: Point  # where it enters the bridge
    bar: float  # y of the line inside the bar that packets follow
    above: bool


@dataclass(frozen=True)
class Bar:
    section: Section
    x: float
    y: float
    width: float
    first: bool


@dataclass
class NodeLayout:
    name: str
    x: float
    y: float
    width: float = 0
    height: float = 0
    placed: list[Placed] = field(default_factory=list)
    bars: list[Bar] = field(default_factory=list)
    first_port: float = 0
    spine: float = 0
    stack_x: float = 0
    ip_y: float = 0
    tunnels: list[tuple[Device, float]] = field(default_factory=list)  # with the top of each box
    uplinks: list[tuple[Device, float]] = field(default_factory=list)
    footer: list[str] = field(default_factory=list)
    footer_y: float = 0

    @property
    def track(self) -> float:
        """x of the line from the IP layer through a tunnel to the uplink."""
        return self.stack_x + STACK - 42

    @property
    def bypass(self) -> float:
        """x of the line from the IP layer straight to an uplink."""
        return self.stack_x + STACK - 12


def sections(topology: Topology, node: str) -> list[Section]:
    """What hangs on which bridge, in the order of the devices' indexes."""
    own = topology.node(node).netns
    pods = {pod.netns: pod for pod in topology.pods.values() if pod.netns and not pod.host_network}

    def item(device: Device) -> Item:
        peer = topology.peer(node, device)
        pod = pods.get(peer.end.namespace) if peer and peer.verdict == FOUND and peer.end else None
        return Item(device, pod, peer)

    found = [Section(bridge, [item(port) for port in own.ports(bridge.name)]) for bridge in own.bridges]
    loose = [item(device) for device in own.devices if device.is_cable and not device.master]
    routed = [one for one in loose if one.pod is not None]
    return [section for section in [*found, Section(None, routed)] if section.items or section.bridge]


def uplinks(topology: Topology, node: str) -> list[Device]:
    """Devices that lead out of the node: real hardware, or a cable whose other end nobody here has, with an address."""
    found = []
    for device in topology.node(node).netns.devices:
        peer = topology.peer(node, device)
        leads_out = device.kind == "" or (peer is not None and peer.verdict != FOUND and not device.master)
        if leads_out and device.usable_addresses:
            found.append(device)
    return found


def lay_out(topology: Topology, node: str, x: float, y: float, style: Style, columns: int, only: set[str] | None = None) -> NodeLayout:
    """Place everything of one node, its upper left corner at (x, y). `only`: the Pods to show; the rest is counted."""
    place = NodeLayout(node, x, y)
    left = x + PAD
    place.first_port = style.pod_width - 18
    area = columns * (style.pod_width + GAP) - GAP
    place.spine = left + area + 16
    place.stack_x = place.spine + 26
    place.width = place.stack_x + STACK + PAD - x
    top = y + HEADER
    hidden = 0
    for section in sections(topology, node):
        items = section.items
        if only is not None:
            items = [item for item in items if item.pod is not None and item.pod.key in only]
            hidden += len(section.items) - len(items)
        chunks = [items[i : i + 2 * columns] for i in range(0, len(items), 2 * columns)] or [[]]
        for index, chunk in enumerate(chunks):
            top = _branch(place, Section(section.bridge, chunk), left, top, columns, style, first=index == 0) + GAP
    _stack(place, topology, node)
    stack_bottom = max([place.ip_y + BOX, *(box + BOX for _, box in [*place.tunnels, *place.uplinks])])
    place.footer_y = max(top, stack_bottom + 4) + 6
    place.footer = _footer(topology, node, hidden, place.width - 2 * PAD)
    place.height = place.footer_y + 13 * len(place.footer) + 8 - y - (0 if place.footer else 6)
    return place


def _branch(place: NodeLayout, section: Section, left: float, top: float, columns: int, style: Style, *, first: bool) -> float:
    """One bar with up to `columns` Pods above and as many below. Returns its lower end."""
    upper, lower = section.items[:columns], section.items[columns:]
    bar_y = top + (style.pod_height + style.cable if upper else 0)
    for row, above in ((upper, True), (lower, False)):
        for column, item in enumerate(row):
            box_x = left + column * (style.pod_width + GAP)
            middle = box_x + style.pod_width - 18
            if above:
                box, plug, port = (box_x, top), (middle, top + style.pod_height), (middle, bar_y)
            else:
                box_y = bar_y + BAR + style.cable
                box, plug, port = (box_x, box_y), (middle, box_y), (middle, bar_y + BAR)
            place.placed.append(Placed(item, box, plug, port, bar_y + BAR - 7, above))
    place.bars.append(Bar(section, left, bar_y, place.spine - left + 8, first))
    return bar_y + BAR + (style.cable + style.pod_height if lower else 0)


def _stack(place: NodeLayout, topology: Topology, node: str) -> None:
    place.ip_y = place.y + HEADER
    top = place.ip_y + BOX + 14
    for device in topology.node(node).netns.devices:
        if device.kind in TUNNELS:
            place.tunnels.append((device, top))
            top += BOX + 12
    for device in uplinks(topology, node):
        place.uplinks.append((device, top))
        top += BOX + 12


def _footer(topology: Topology, node: str, hidden: int, width: float) -> list[str]:
    length = int(width / 5.6)
    lines: list[str] = []
    if hidden:
        lines.append(f"… and {hidden} more on the bridges of this node")
    pods = topology.pods_on(node)
    if own := [pod.name for pod in pods if pod.host_network]:
        lines += wrap(f"On the node's own network: {', '.join(own)}", length)
    drawn = {item.pod.key for section in sections(topology, node) for item in section.items if item.pod}
    if loose := [pod.name for pod in pods if not pod.host_network and pod.key not in drawn]:
        lines += wrap(f"Not joined to a device that was read: {', '.join(loose)}", length)
    return lines


def columns_for(topology: Topology, nodes: list[str], style: Style, only: set[str] | None = None) -> int:
    """As many as the fullest node needs for one bar with both sides, but no more than fit on a page."""
    most = 1
    for node in nodes:
        for section in sections(topology, node):
            count = len([item for item in section.items if only is None or (item.pod and item.pod.key in only)])
            most = max(most, count if count <= 3 else (count + 1) // 2)
    return max(2, min(style.columns, most))
