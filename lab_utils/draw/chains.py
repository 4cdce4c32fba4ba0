"""The chains of a Service as a tree: from the address that a client uses to the Pods, with the chances on the edges."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import TYPE_CHECKING

from lab_utils.draw.canvas import Canvas, Drawing
from lab_utils.draw.table import Table
from lab_utils.draw.text import middle
from lab_utils.errors import BadInput
from lab_utils.iptables import Ruleset
from lab_utils.trace import Packet, trace

if TYPE_CHECKING:
    from lab_utils.iptables import Service as Rules
    from lab_utils.nft import NftRuleset
    from lab_utils.topology import NodeView, Topology

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
    how: str = ""


@dataclass(frozen=True)
class Tree:
    """One chain that spreads packets over endpoints, and every way in that ends there."""

    label: str
    entries: tuple[tuple[str, str, str], ...]  # address, kind, the chains in between
    chain: str
    leaves: tuple[Leaf, ...]
    nothing: str  # what happens to a packet if there is no endpoint

    iptables: bool = True

    @property
    def third(self) -> str:
        return "one entry for each endpoint" if self.leaves and self.leaves[0].chain.startswith("entry ") else "one chain for each endpoint"


def service(ruleset: Ruleset | NftRuleset, name: str, topology: Topology | None = None) -> Drawing:
    """Every port of a Service ("namespace/name"), as the rules of one node have it.

    The rules of kube-proxy's nftables mode do not name their Services so plainly: there the topology is needed too.
    """
    trees = _trees(ruleset, name, topology) if isinstance(ruleset, Ruleset) else _merged(_traced(ruleset, name, topology))
    if not trees:
        raise BadInput(f"no rule speaks of a Service {name!r}", "Headless Services and those of type ExternalName have no rules")
    canvas = Canvas()
    title = f"Service {name} in the rules"
    canvas.text(12, 27, title, "strong", size=14)
    top = 40.0
    rows: list[tuple[str, ...]] = []
    for tree in trees:
        top = _paint(canvas, tree, top)
        rows += _rows(tree)
    table = Table.of(("port", "comes in by", "endpoint", "Pod", "chain", "of what is left", "overall"), rows)
    ends = "; ".join(f"{row[2]} {row[6]}" for row in rows)
    return canvas.finish(WIDTH, top + 6, title, f"How the rules lead from Service {name} to its endpoints: {ends}", table)


def _trees(ruleset: Ruleset, name: str, topology: Topology | None) -> list[Tree]:
    """Ways in that end in the same chain make one tree. A Local policy has one for the node's own endpoints."""
    trees = []
    for port in ruleset.services:
        if port.name.partition(":")[0] != name:
            continue
        found: dict[str, list[tuple[str, str, str]]] = {}
        for address, kind, first in _entries(port):
            chain, between = _follow(ruleset, first)
            found.setdefault(chain, []).append((address, kind, between))
        for chain, entries in found.items():
            leaves = _leaves(ruleset, chain, topology)
            local = " on this node" if chain.startswith(("KUBE-SVL-", "KUBE-EXT-")) else ""
            nothing = "rejected: the client gets an error" if port.rejected else f"dropped: no endpoint{local} is ready"
            label = f"{port.port_name or 'the port'}, {port.protocol} {port.port or port.node_port}" + (
                f", endpoints{local} only" if local else ""
            )
            trees.append(Tree(label, tuple(entries), chain, tuple(leaves), nothing))
    return trees


def _traced(ruleset: NftRuleset, name: str, topology: Topology | None) -> Iterator[Tree]:
    """The same for any rules: send a packet to each address and port, and see where it goes."""
    if topology is None:
        raise BadInput("to find a Service in nftables rules, its address is needed", "Give the topology too")
    wanted = topology.service(name)
    node = next((view for view in topology.nodes.values() if view.ruleset is ruleset or view.ruleset6 is ruleset), None)
    client = next((pod for pod in topology.pods.values() if pod.netns in topology.pods and pod.ip not in wanted.endpoints), None)
    for port in wanted.ports:
        label = f"{port.name or 'the port'}, {port.protocol} {port.port}"
        for ip in wanted.ips:
            stranger = "2001:db8::1" if ":" in ip else "192.0.2.1"
            inside = next((own for own in (client.ips if client else ()) if (":" in own) == (":" in ip)), stranger)
            where = f"[{ip}]:{port.port}" if ":" in ip else f"{ip}:{port.port}"
            yield _sent(ruleset, Packet(inside, ip, port.port, protocol=port.protocol), (where, "ClusterIP", ""), label, topology, node)
        if port.node_port and node:
            packet = Packet("192.0.2.1", node.ip, port.node_port, protocol=port.protocol)
            yield _sent(ruleset, packet, (f"{node.name}:{port.node_port}", "NodePort", ""), label, topology, node)


def _merged(trees: Iterable[Tree]) -> list[Tree]:
    """Ways in that end in the same chain make one tree here too."""
    found: dict[tuple[str, str, tuple[Leaf, ...], str], Tree] = {}
    for tree in trees:
        key = (tree.label, tree.chain, tree.leaves, tree.nothing)
        found[key] = replace(tree, entries=found[key].entries + tree.entries) if key in found and tree.leaves else tree
    return list(found.values())


def _sent(ruleset: NftRuleset, packet: Packet, entry: tuple[str, str, str], label: str, topology: Topology, node: NodeView | None) -> Tree:
    own = node.netns.addresses if node else []
    result = trace(ruleset, packet, own, "external" if entry[1] == "NodePort" else "pod")
    leaves = []
    chain = ""
    for number, end in enumerate(result.destinations):
        passed = [step.chain for step in end.steps if step.matched and step.chain and step.hook == "PREROUTING"]
        home = next((step.chain for step in reversed(end.steps) if step.matched and "dnat" in step.rule), "")
        share = Fraction(end.probability)
        if home.startswith("endpoint-"):  # as for session affinity: a chain for each endpoint, as in iptables
            chain = next((name for name in reversed(passed) if name != home), home)
            leaves.append(Leaf(end.address, home, share, share, _pod_at(end.address, topology), "by a map"))
        else:
            chain = home
            leaves.append(Leaf(end.address, f"entry {number} of the map", share, share, _pod_at(end.address, topology), "numgen random"))
    nothing = {"REJECT": "rejected: the client gets an error", "DROP": "dropped: no endpoint on this node is ready"}
    ends = nothing.get(result.verdict, "nothing: no rule rewrites the destination")
    return Tree(label, (entry,), chain, tuple(leaves), ends, iptables=False)


def _entries(port: Rules) -> list[tuple[str, str, str]]:
    """The ways in: an address for people, what it is, and the chain that it jumps to."""
    inside = next((rule.jump for rule in port.rules if rule.comment.endswith(" cluster IP") and rule.jump), "")
    outside = port.chains.get("firewall") or port.chains.get("external") or inside
    ways = [(f"{port.cluster_ip}:{port.port}", "ClusterIP", inside)] if port.cluster_ip else []
    ways += [(f"{ip}:{port.port}", "load balancer", outside) for ip in port.load_balancer_ips]
    ways += [(f"{ip}:{port.port}", "external IP", port.chains.get("external") or inside) for ip in port.external_ips]
    ways += [(f"any node:{port.node_port}", "NodePort", port.chains.get("external") or inside)] if port.node_port else []
    return ways


def _follow(ruleset: Ruleset, chain: str) -> tuple[str, str]:
    """Through the chains for outside traffic to the one that spreads what strangers send.

    A Local policy has rules before it for the cluster's own Pods and for the node itself; those have conditions.
    """
    between: list[str] = []
    chains = ruleset["nat"].chains
    while chain.startswith(("KUBE-EXT-", "KUBE-FW-", "KUBE-XLB-")) and chain in chains and chain not in between:
        between.append(chain)
        for rule in chains[chain]:
            conditional = rule.source is not None or rule.match("addrtype") is not None
            if (
                rule.jump
                and rule.jump.startswith(("KUBE-EXT-", "KUBE-SVC-", "KUBE-SVL-"))
                and (not conditional or chain.startswith("KUBE-FW-"))
            ):
                chain = rule.jump
                break
    return chain, ", ".join(sorted({name[:8] for name in between}))


def _leaves(ruleset: Ruleset, chain: str, topology: Topology | None) -> list[Leaf]:
    if chain not in ruleset["nat"].chains or not chain.startswith(("KUBE-SVC-", "KUBE-SVL-")):
        return []
    leaves = []
    left = Fraction(1)
    for endpoint in ruleset.endpoints(chain):
        own = endpoint.probability / left if left else Fraction(0)
        leaves.append(Leaf(endpoint.address, endpoint.chain, own, endpoint.probability, _pod_at(endpoint.address, topology)))
        left -= endpoint.probability
    return leaves


def _pod_at(address: str, topology: Topology | None) -> str:
    pod = topology.pod_with_ip(address.rpartition(":")[0].strip("[]")) if topology else None
    return f"{middle(pod.name, 24)} on {pod.node}" if pod else ""


def _rows(tree: Tree) -> list[tuple[str, ...]]:
    by = ", ".join(f"{address} ({kind})" for address, kind, _ in tree.entries)
    if not tree.leaves:
        return [(tree.label, by, "none", "", "", "", tree.nothing)]
    rows: list[tuple[str, ...]] = []
    for leaf in tree.leaves:
        where = f"{tree.chain}, {leaf.chain}" if leaf.chain.startswith("entry ") else leaf.chain
        rows.append((tree.label, by, leaf.address, leaf.pod, where, str(leaf.own), str(leaf.overall)))
    return rows


def _paint(canvas: Canvas, tree: Tree, top: float) -> float:
    shown = tree.leaves[:MOST]
    rows = max(len(shown), len(tree.entries), 1)
    canvas.text(12, top + 14, tree.label, "strong", size=11.5)
    for (x, _), head in zip(COLUMNS, ("comes in at", "one chain for the Service", tree.third, "destination becomes"), strict=True):
        canvas.text(x, top + 34, head, "soft", size=10)
    start = top + HEAD - 8
    middle_y = start + rows * ROW / 2
    for index, (address, kind, between) in enumerate(tree.entries):
        y = middle_y + (index - (len(tree.entries) - 1) / 2) * ROW
        x, width = COLUMNS[0]
        through = "in KUBE-NODEPORTS" if kind == "NodePort" else "in KUBE-SERVICES"
        _box(canvas, x, y, width, address, f"{kind}, {through}" if tree.iptables else kind, "link s-linkline")
        canvas.curve(x + width, y, COLUMNS[1][0], middle_y, "s-cable", width=1.6)
        if between:
            canvas.text((x + width + COLUMNS[1][0]) / 2, (y + middle_y) / 2 + 3, between, "soft halo s-ground", size=9, anchor="middle")
    x, width = COLUMNS[1]
    if not shown:
        _box(canvas, x, middle_y, width + 90, tree.nothing.partition(":")[0], tree.nothing.partition(": ")[2], "none s-bad")
        return start + rows * ROW + 8
    _box(
        canvas, x, middle_y, width, tree.chain, f"{len(tree.leaves)} endpoint{'s' if len(tree.leaves) != 1 else ''}", "bridge s-bridgeline"
    )
    offset = start + (rows - len(shown)) * ROW / 2
    for index, leaf in enumerate(shown):
        _paint_leaf(canvas, leaf, leaf.how or f"rule {index + 1} of {len(tree.leaves)}", middle_y, offset + (index + 0.5) * ROW)
    for index, leaf in enumerate(shown):  # on top of every curve
        _paint_chance(canvas, leaf, index, len(tree.leaves), len(shown), offset + (index + 0.5) * ROW)
    bottom = start + rows * ROW + 8
    if len(tree.leaves) > len(shown):
        canvas.text(COLUMNS[2][0], bottom, f"… and {len(tree.leaves) - len(shown)} more; the table has them", "soft", size=10)
        bottom += 14
    return bottom


def _paint_leaf(canvas: Canvas, leaf: Leaf, rule: str, from_y: float, y: float) -> None:
    begin, x = COLUMNS[1][0] + COLUMNS[1][1], COLUMNS[2][0]
    canvas.curve(begin, from_y, x, y, "s-lit1", width=1.2 + 3.2 * float(leaf.overall))
    _box(canvas, x, y, COLUMNS[2][1], leaf.chain, rule, "tunnel s-tunnelline")
    end, last = x + COLUMNS[2][1], COLUMNS[3][0]
    canvas.line([(end, y), (last, y)], "s-cable", width=1.6, arrow="cable")
    canvas.text((end + last) / 2, y - 5, "DNAT", "soft", size=9, anchor="middle")
    _box(canvas, last, y, COLUMNS[3][1], leaf.address, leaf.pod or "no Pod of this address was read", "pod s-podline")


def _paint_chance(canvas: Canvas, leaf: Leaf, index: int, count: int, shown: int, y: float) -> None:
    left = f"{leaf.own} of all" if leaf.own == leaf.overall else "all the rest" if leaf.own == 1 else f"{leaf.own} of the rest"
    with canvas.group(f"rule {index + 1} takes {leaf.own} of the packets that come to it; that is {leaf.overall} of all"):
        canvas.badge(COLUMNS[2][0] - 22, y, str(leaf.overall), "lit1")
        if count > 1:
            above = index < shown / 2
            canvas.text(COLUMNS[2][0] - 8, y - 12 if above else y + 20, left, "soft halo s-ground", size=9, anchor="end")


def _box(canvas: Canvas, x: float, y: float, width: float, first: str, second: str, classes: str) -> None:
    """Two lines in a box whose middle is at y."""
    with canvas.group(f"{first}\n{second}"):
        canvas.rect(x, y - BOX / 2, width, BOX, classes, radius=5, width=1.2)
        canvas.text(x + 8, y - 2, middle(first, int((width - 12) / 6.05)), "mono strong", size=10)
        canvas.text(x + 8, y + 11, middle(second, int((width - 12) / 5.2)), "soft", size=9)
