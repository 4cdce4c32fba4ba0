"""The chains of a Service as a tree: from the address that a client uses to the Pods, with the chances on the edges."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from typing import TYPE_CHECKING

from lab_utils.draw.canvas import Canvas, Drawing
from lab_utils.draw.table import Table
from lab_utils.draw.text import middle
from lab_utils.errors import BadInput

if TYPE_CHECKING:
    from lab_utils.iptables import Ruleset
    from lab_utils.iptables import Service as Rules
    from lab_utils.topology import Topology

ROW, BOX, HEAD = 46.0, 34.0, 52.0
COLUMNS = ((12.0, 160.0), (216.0, 174.0), (516.0, 174.0), (744.0, 204.0))
WIDTH = 960.0
MOST = 24  # endpoints that are drawn; the table has all


@dataclass(frozen=True)
class Leaf:
    """One endpoint: the rule's own chance among what is left when the packet comes to it, and the overall one."""

    address: str
    chain: str
    own: Fraction
    overall: Fraction
    pod: str


def service(ruleset: Ruleset, name: str, topology: Topology | None = None) -> Drawing:
    """Every port of a Service ("namespace/name"), as the rules of one node have it."""
    ports = [port for port in ruleset.services if port.name.partition(":")[0] == name]
    if not ports:
        raise BadInput(f"no rule speaks of a Service {name!r}", "Headless Services and those of type ExternalName have no rules")
    canvas = Canvas()
    title = f"Service {name} in the rules"
    canvas.text(12, 27, title, "strong", size=14)
    top = 40.0
    rows: list[tuple[str, ...]] = []
    for port in ports:
        leaves = _leaves(port, topology)
        top = _tree(canvas, ruleset, port, leaves, top)
        rows += _rows(port, leaves)
    table = Table.of(("port", "comes in by", "endpoint", "Pod", "chain", "of what is left", "overall"), rows)
    ends = "; ".join(f"{row[2]} {row[6]}" for row in rows)
    return canvas.finish(WIDTH, top + 6, title, f"How the rules lead from Service {name} to its endpoints: {ends or 'nowhere'}", table)


def _leaves(port: Rules, topology: Topology | None) -> list[Leaf]:
    leaves = []
    left = Fraction(1)
    for endpoint in port.endpoints or port.local_endpoints:
        ip = endpoint.address.rpartition(":")[0].strip("[]")
        pod = topology.pod_with_ip(ip) if topology else None
        own = endpoint.probability / left if left else Fraction(0)
        leaves.append(
            Leaf(endpoint.address, endpoint.chain, own, endpoint.probability, f"{middle(pod.name, 24)} on {pod.node}" if pod else "")
        )
        left -= endpoint.probability
    return leaves


def _entries(port: Rules) -> list[tuple[str, str]]:
    """The ways in: an address for people, and what it is."""
    ways = [(f"{port.cluster_ip}:{port.port}", "ClusterIP")] if port.cluster_ip else []
    ways += [(f"{ip}:{port.port}", "load balancer") for ip in port.load_balancer_ips]
    ways += [(f"{ip}:{port.port}", "external IP") for ip in port.external_ips]
    ways += [(f"any node:{port.node_port}", "NodePort")] if port.node_port else []
    return ways


def _rows(port: Rules, leaves: list[Leaf]) -> list[tuple[str, ...]]:
    by = ", ".join(f"{address} ({kind})" for address, kind in _entries(port))
    name = f"{port.port_name or '-'} {port.protocol}"
    if not leaves:
        return [(name, by, "none: rejected" if port.rejected else "none", "", "", "", "")]
    return [(name, by, leaf.address, leaf.pod, leaf.chain, str(leaf.own), str(leaf.overall)) for leaf in leaves]


def _tree(canvas: Canvas, ruleset: Ruleset, port: Rules, leaves: list[Leaf], top: float) -> float:
    shown = leaves[:MOST]
    entries = _entries(port)
    rows = max(len(shown), len(entries), 1)
    label = f"{port.port_name or 'the port'}, {port.protocol} {port.port or port.node_port}"
    canvas.text(12, top + 14, label, "strong", size=11.5)
    for (x, _), head in zip(
        COLUMNS, ("comes in at", "one chain for the Service", "one chain for each endpoint", "destination becomes"), strict=True
    ):
        canvas.text(x, top + 34, head, "soft", size=10)
    start = top + HEAD - 8
    middle_y = start + rows * ROW / 2
    chain = port.chains.get("cluster") or port.chains.get("local") or ""
    external = port.chains.get("external")
    for index, (address, kind) in enumerate(entries):
        y = middle_y + (index - (len(entries) - 1) / 2) * ROW
        x, width = COLUMNS[0]
        through = "KUBE-NODEPORTS" if kind == "NodePort" else "KUBE-SERVICES"
        _box(canvas, x, y, width, address, f"{kind}, in {through}", "link s-linkline")
        by = external if external and kind != "ClusterIP" else ""
        canvas.curve(x + width, y, COLUMNS[1][0], middle_y, "s-cable", width=1.6)
        if by:
            _on_edge(canvas, (x + width + COLUMNS[1][0]) / 2, (y + middle_y) / 2, "via KUBE-EXT")
    if not leaves:
        x, width = COLUMNS[1]
        words = ("rejected", "no endpoints: the client gets an error") if port.rejected else ("nothing", "no endpoint is ready")
        _box(canvas, x, middle_y, width + 40, *words, "none s-bad")
        return start + rows * ROW + 8
    x, width = COLUMNS[1]
    _box(canvas, x, middle_y, width, chain, f"{len(leaves)} endpoint{'s' if len(leaves) != 1 else ''}", "bridge s-bridgeline")
    offset = start + (rows - len(shown)) * ROW / 2
    for index, leaf in enumerate(shown):
        y = offset + index * ROW + ROW / 2
        x1, x2 = COLUMNS[1][0] + COLUMNS[1][1], COLUMNS[2][0]
        canvas.curve(x1, middle_y, x2, y, "s-lit1", width=1.2 + 3.2 * float(leaf.overall))
        _box(canvas, x2, y, COLUMNS[2][1], leaf.chain, f"rule {index + 1} of {len(leaves)}", "tunnel s-tunnelline")
        x3, x4 = x2 + COLUMNS[2][1], COLUMNS[3][0]
        canvas.line([(x3, y), (x4, y)], "s-cable", width=1.6, arrow="cable")
        canvas.text((x3 + x4) / 2, y - 5, "DNAT", "soft", size=9, anchor="middle")
        _box(canvas, x4, y, COLUMNS[3][1], leaf.address, leaf.pod or "no Pod of this address was read", "pod s-podline")
    for index, leaf in enumerate(shown):  # on top of every curve
        y = offset + index * ROW + ROW / 2
        left = "all the rest" if index == len(leaves) - 1 and index else f"{leaf.own} of the rest" if index else f"{leaf.own} of all"
        with canvas.group(f"rule {index + 1} takes {leaf.own} of the packets that come to it; that is {leaf.overall} of all"):
            canvas.badge(COLUMNS[2][0] - 22, y, str(leaf.overall), "lit1")
            if len(leaves) > 1:
                above = index < len(shown) / 2
                canvas.text(COLUMNS[2][0] - 8, y - 12 if above else y + 20, left, "soft halo s-ground", size=9, anchor="end")
    bottom = start + rows * ROW + 8
    if len(leaves) > len(shown):
        canvas.text(COLUMNS[2][0], bottom, f"… and {len(leaves) - len(shown)} more; the table has them", "soft", size=10)
        bottom += 14
    return bottom


def _on_edge(canvas: Canvas, x: float, y: float, words: str) -> None:
    wide = len(words) * 5.6 + 10
    canvas.rect(x - wide / 2, y - 8, wide, 15, "ground s-frame", radius=7)
    canvas.text(x, y + 3, words, "soft", size=9, anchor="middle")


def _box(canvas: Canvas, x: float, y: float, width: float, first: str, second: str, classes: str) -> None:
    """Two lines in a box whose middle is at y."""
    with canvas.group(f"{first}\n{second}"):
        canvas.rect(x, y - BOX / 2, width, BOX, classes, radius=5, width=1.2)
        canvas.text(x + 8, y - 2, middle(first, int((width - 12) / 6.05)), "mono strong", size=10)
        canvas.text(x + 8, y + 11, middle(second, int((width - 12) / 5.2)), "soft", size=9)
