"""A node, and all nodes of a cluster."""

from __future__ import annotations

from dataclasses import dataclass

from lab_utils.draw.canvas import Canvas, Drawing
from lab_utils.draw.layout import (
    BAR,
    BOX,
    COMPACT,
    DETAILED,
    PAD,
    STACK,
    TRACK,
    Bar,
    NodeLayout,
    Placed,
    Style,
    columns_for,
    lay_out,
    uplinks,
)
from lab_utils.draw.table import Table
from lab_utils.draw.text import middle
from lab_utils.links import Device
from lab_utils.topology import Topology

BUS, LANE = 40.0, 15.0  # how far right of the nodes their network runs, and the tunnels' lane


@dataclass
class Picture:
    """Nodes under one another, and the lanes that join them."""

    topology: Topology
    style: Style
    nodes: list[NodeLayout]
    width: float
    height: float
    bus: float
    lane: float


def cluster(topology: Topology) -> Drawing:
    """All nodes, every Pod with its cable, and how the nodes are joined."""
    names = sorted(topology.nodes, key=lambda name: (topology.nodes[name].role != "control-plane", name))
    picture = arrange(topology, names, COMPACT, top=44)
    canvas = Canvas()
    pods = sum(len(topology.pods_on(name)) for name in names)
    title = topology.title or "Cluster"
    canvas.text(PAD, 27, title, "strong", size=15)
    canvas.text(PAD + 9 * len(title) + 14, 27, f"{len(names)} nodes, {pods} Pods, {len(topology.services)} Services", "soft", size=11.5)
    paint(canvas, picture)
    table = cables_table(topology, names)
    description = f"{len(names)} nodes: " + "; ".join(
        f"{name} ({topology.nodes[name].ip}) with {len(topology.pods_on(name))} Pods" for name in names
    )
    return canvas.finish(picture.width, picture.height, title, description, table)


def node(topology: Topology, name: str) -> Drawing:
    """One node with every device, and both ends of every cable."""
    view = topology.node(name)
    picture = arrange(topology, [name], DETAILED, top=10)
    canvas = Canvas()
    paint(canvas, picture)
    table = Table.of(("index", "device", "kind", "joined to", "addresses", "MTU", "how it is known"), _device_rows(topology, name))
    description = f"Node {name} ({view.ip}) has {len(view.netns.devices)} network devices and {len(topology.pods_on(name))} Pods."
    return canvas.finish(picture.width, picture.height, f"Node {name}", description, table)


def arrange(topology: Topology, names: list[str], style: Style, top: float, only: set[str] | None = None) -> Picture:
    columns = columns_for(topology, names, style, only)
    places = []
    y = top
    for name in names:
        place = lay_out(topology, name, PAD, y, style, columns, only)
        places.append(place)
        y += place.height + 12
    right = PAD + (places[0].width if places else 300)
    return Picture(topology, style, places, right + BUS + 26, y, right + BUS, right + LANE)


def paint(canvas: Canvas, picture: Picture, dim: bool = False) -> None:
    """Draw everything. `dim` leaves the lines grey, for a way to be lit on top."""
    for place in picture.nodes:
        _paint_node(canvas, picture, place)
    _paint_lanes(canvas, picture)


def _paint_node(canvas: Canvas, picture: Picture, place: NodeLayout) -> None:
    topology, view = picture.topology, picture.topology.node(place.name)
    with canvas.group(f"node {place.name}, {view.role or 'node'}, {view.ip}"):
        canvas.rect(place.x, place.y, place.width, place.height, "node s-frame", radius=8, width=1.5)
    canvas.text(place.x + PAD, place.y + 20, place.name, "mono strong", size=13)
    canvas.text(place.x + PAD + 8 * len(place.name) + 12, place.y + 20, f"{view.role}  {view.ip}", "soft", size=11)
    count = len(topology.pods_on(place.name))
    canvas.text(place.x + place.width - PAD, place.y + 20, f"{count} Pod{'s' if count != 1 else ''}", "soft", size=11, anchor="end")
    spans: dict[str, list[Bar]] = {}
    for bar in place.bars:
        spans.setdefault(bar.section.bridge.name if bar.section.bridge else "", []).append(bar)
    for bars in spans.values():
        _paint_spine(canvas, place, bars)
    for placed in place.placed:
        _paint_pod(canvas, picture.style, placed)
    _paint_stack(canvas, topology, place)
    for index, line in enumerate(place.footer):
        canvas.text(place.x + PAD, place.footer_y + 9 + 13 * index, line, "soft", size=10)


def _paint_spine(canvas: Canvas, place: NodeLayout, bars: list[Bar]) -> None:
    """A bridge: one bar, or several that a spine joins, and its own leg into the IP layer."""
    bridge = bars[0].section.bridge
    classes = "bridge s-bridgeline" if bridge else "none s-cable"
    ip_middle = place.ip_y + TRACK
    ends = [bar.y + BAR / 2 for bar in bars] + [ip_middle]
    canvas.line(
        [(place.spine, min(ends)), (place.spine, max(ends))],
        "s-bridgeline" if bridge else "s-cable",
        width=3 if bridge else 1.5,
        dash="" if bridge else "4 3",
    )
    canvas.line(
        [(place.spine, ip_middle), (place.stack_x, ip_middle)],
        "s-bridgeline" if bridge else "s-cable",
        width=3 if bridge else 1.5,
        dash="" if bridge else "4 3",
    )
    for bar in bars:
        with canvas.group(device_title(bridge) if bridge else "no bridge: the node routes to each Pod"):
            canvas.rect(bar.x, bar.y, bar.width, BAR, classes, radius=5, width=1.2, dash="" if bridge else "4 3")
            label_x = bar.x + place.first_port + 10  # between two ports, where no line crosses it
            label = bridge.name if bridge else "routed, no bridge"
            canvas.text(label_x, bar.y + 13, label, "mono strong", size=10.5)
            addresses = ", ".join(str(address) for address in bridge.usable_addresses) if bridge else ""
            kind = "bridge" if bridge else ""
            canvas.text(
                label_x + 6.6 * len(label) + 8,
                bar.y + 13,
                f"{kind}  {addresses}".strip() + ("" if bar.first else "  (goes on)"),
                "soft",
                size=9.5,
            )


def _paint_pod(canvas: Canvas, style: Style, placed: Placed) -> None:
    item = placed.item
    x, y = placed.box
    pod, peer = item.pod, item.peer
    evidence = (
        f"{item.device.index}: {item.device.name} on the node ↔ {peer.end or peer.verdict}: {peer.evidence}"
        if peer
        else device_title(item.device)
    )
    with canvas.group(evidence):
        canvas.line([placed.plug, placed.port], "s-cable", width=1.6, dash="" if pod and peer and peer.certain else "3 3")
        canvas.dot(*placed.port, "bridgeline s-ground")
        start = (placed.plug[1] if placed.above else placed.port[1]) + style.cable / 2 + 3
        if style.detailed:
            inside = f"{peer.end.index}: {peer.end.name}" if peer and peer.end else ""
            outside = f"{item.device.index}: {item.device.name}" + (
                f"  nsid {item.device.link_nsid}" if item.device.link_nsid is not None else ""
            )
            first, second = (inside, outside) if placed.above else (outside, inside)
            canvas.text(placed.port[0] - 7, start - 7, first, "mono soft", size=9.5, anchor="end")
            canvas.text(placed.port[0] - 7, start + 6, second, "mono soft", size=9.5, anchor="end")
        else:
            canvas.text(placed.port[0] - 6, start, middle(item.device.name, 18), "mono soft", size=8.5, anchor="end")
    if pod is None:
        with canvas.group(f"The other end of {item.device.name} was not read: {peer.evidence if peer else 'it is not a cable'}"):
            canvas.rect(x, y, style.pod_width, style.pod_height, "none s-podline", radius=5, dash="3 3")
            canvas.text(x + 8, y + 20, "other end", "soft", size=10)
            canvas.text(x + 8, y + 34, peer.verdict if peer else "not a cable", "soft", size=10)
        return
    title = f"Pod {pod.key}\n{', '.join(pod.ips)}\n{pod.owner}\n{pod.phase}"
    with canvas.group(title):
        canvas.rect(x, y, style.pod_width, style.pod_height, "pod s-podline", radius=5)
        canvas.text(x + 8, y + 15, middle(pod.name, style.name_length), "mono strong", size=10)
        canvas.text(x + 8, y + 28, middle(pod.namespace, style.name_length), "soft", size=9.5)
        canvas.text(x + 8, y + 41, pod.ip, "mono", size=9.5)
        canvas.dot(*placed.plug, "podline s-ground")


def _paint_stack(canvas: Canvas, topology: Topology, place: NodeLayout) -> None:
    view = topology.node(place.name)
    x, width = place.stack_x, STACK
    centre, bypass = place.track, place.bypass
    rules = view.iptables.count("\n-A ")
    how = f"{rules} iptables rules" if rules else "rules not read"
    if '"kube-proxy"' in view.nft:
        how = "nftables"
    tops = [top for _, top in [*place.tunnels, *place.uplinks]]
    with canvas.group():
        if place.tunnels:
            chain = [place.ip_y + BOX, *[top for _, top in place.tunnels], *[top for _, top in place.uplinks[:1]]]
            canvas.line([(centre, chain[0]), (centre, chain[-1])], "s-cable", width=1.3)
        if place.uplinks:
            canvas.line([(bypass, place.ip_y + BOX), (bypass, max(tops))], "s-cable", width=1.3)
    with canvas.group("\n".join(["the node's routes", *[str(route) for route in view.netns.routes]])):
        canvas.rect(x, place.ip_y, width, BOX, "stack s-stackline", radius=5)
        canvas.text(x + 10, place.ip_y + 14, "IP layer", "strong", size=10.5)
        canvas.text(x + 10, place.ip_y + 26, f"{len(view.netns.routes)} routes, {how}", "soft", size=9.5)
    for device, top in place.tunnels:
        with canvas.group(device_title(device)):
            canvas.rect(x, top, width - 26, BOX, "tunnel s-tunnelline", radius=5, dash="5 3")
            canvas.text(x + 10, top + 14, device.name, "mono strong", size=10.5)
            what = f"VXLAN {device.vxlan.vni}" if device.vxlan else device.kind
            address = f" {device.usable_addresses[0].ip}" if device.usable_addresses else ""
            canvas.text(x + 10, top + 26, what + address, "soft", size=9.5)
    for device, top in place.uplinks:
        with canvas.group(device_title(device)):
            canvas.rect(x, top, width, BOX, "link s-linkline", radius=5)
            canvas.text(x + 10, top + 14, device.name, "mono strong", size=10.5)
            canvas.text(x + 10, top + 26, str(device.usable_addresses[0]), "mono soft", size=9.5)


def _paint_lanes(canvas: Canvas, picture: Picture) -> None:
    """The nodes' own network, and the tunnels that run on top of it."""
    plugs = [
        (place.stack_x + STACK, top + TRACK)
        for place in picture.nodes
        for device, top in place.uplinks
        if _is_underlay(picture, place, device)
    ]
    mouths = [(place.stack_x + STACK - 26, top + TRACK) for place in picture.nodes for device, top in place.tunnels if device.vxlan]
    if len(picture.nodes) > 1 and mouths:
        with canvas.group(
            "the tunnel: what goes in on one node comes out on another; underneath, it travels through the nodes' own network"
        ):
            for x, y in mouths:
                canvas.line([(x, y), (picture.lane, y)], "s-tunnelline", width=1.6, dash="5 3")
            canvas.line([(picture.lane, mouths[0][1]), (picture.lane, mouths[-1][1])], "s-tunnelline", width=1.6, dash="5 3")
    if plugs:
        with canvas.group("the nodes' own network"):
            for x, y in plugs:
                canvas.line([(x, y), (picture.bus, y)], "s-linkline", width=2)
            bottom = plugs[-1][1] if len(plugs) > 1 else plugs[0][1] + 14
            canvas.line([(picture.bus, plugs[0][1] if len(plugs) > 1 else plugs[0][1] - 14), (picture.bus, bottom)], "s-linkline", width=5)
            words = "the nodes’ own network" if len(picture.nodes) > 1 else "to the other nodes"
            canvas.upright(picture.bus + 13, (plugs[0][1] + bottom) / 2, words, "soft", size=10)


def _is_underlay(picture: Picture, place: NodeLayout, device: Device) -> bool:
    ip = picture.topology.node(place.name).ip
    return any(str(address.ip) == ip for address in device.addresses)


def device_title(device: Device) -> str:
    """What rests behind a device: shown when the mouse stays on it."""
    lines = [f"{device.index}: {device.name} ({device.kind or 'hardware'}), MTU {device.mtu}, {device.mac}"]
    lines += [str(address) for address in device.usable_addresses]
    if device.vxlan:
        lines.append(f"VNI {device.vxlan.vni}, from {device.vxlan.local}, UDP port {device.vxlan.port}, over {device.vxlan.underlay}")
    return "\n".join(lines)


def cables_table(topology: Topology, names: list[str]) -> Table:
    rows: list[tuple[str, ...]] = []
    for name in names:
        own = topology.node(name).netns
        joined = {cable.pod.key: cable for cable in topology.cables(name)}
        for pod in topology.pods_on(name):
            cable = joined.get(pod.key)
            if cable:
                master = (own.device(cable.host.index) or own.devices[0]).master or "routed"
                rows.append((name, pod.key, pod.ip, f"{cable.inside.name} ↔ {cable.host.name}", master))
            else:
                rows.append((name, pod.key, pod.ip, "the node's own network" if pod.host_network else "not known", ""))
        rows += [(name, "", str(device.usable_addresses[0].ip), f"{device.name} (uplink)", "") for device in uplinks(topology, name)]
    return Table.of(("node", "Pod", "address", "device", "bridge"), rows)


def _device_rows(topology: Topology, name: str) -> list[tuple[str, ...]]:
    rows: list[tuple[str, ...]] = []
    for device in topology.node(name).netns.devices:
        peer = topology.peer(name, device)
        joined = str(peer.end) if peer and peer.end else peer.verdict if peer else ""
        if device.master:
            joined = f"{joined}; port of {device.master}".removeprefix("; ")
        kind = f"vxlan {device.vxlan.vni}" if device.vxlan else device.kind or "hardware"
        addresses = ", ".join(str(address) for address in device.usable_addresses)
        rows.append((str(device.index), device.name, kind, joined, addresses, str(device.mtu), peer.evidence if peer else ""))
    return rows
