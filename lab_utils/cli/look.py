"""`lab trace`, `topology`, `service`, `snapshot`: see what rules and devices do, live or from a recorded snapshot.

Each prints a table; `--svg FILE` writes the drawing, `--json` the facts for a program. FILE may be `-`.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from ipaddress import ip_address
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, Literal

import click

from lab_utils.cli.clusters import name_option
from lab_utils.errors import BadInput, LabError

if TYPE_CHECKING:
    from lab_utils.draw import Drawing
    from lab_utils.snapshot import Snapshot
    from lab_utils.topology import NodeView, Topology
    from lab_utils.trace import Trace

Origin = Literal["external", "pod", "local"]
LONGEST_LINE = 1 << 17

snapshot_option = click.option(
    "--snapshot", "folder", default=None, metavar="DIR", help="A folder that `lab snapshot` made, instead of a running cluster."
)
svg_option = click.option("--svg", default=None, metavar="FILE", help="Write the drawing there (- for standard output).")
json_option = click.option("--json", "as_json", is_flag=True, help="Print the facts as JSON.")


def load(folder: str | None, name: str | None) -> Snapshot:
    """The recorded snapshot, or one taken now and kept in memory."""
    if folder is not None:
        from lab_utils.snapshot import read_snapshot

        return read_snapshot(Path(folder))
    from lab_utils.cluster import connect
    from lab_utils.snapshot.record import record

    cluster = connect(name)
    try:
        return record(cluster)
    finally:
        cluster.close()


def topology_of(folder: str | None, name: str | None) -> Topology:
    from lab_utils.topology import Topology

    return Topology.from_snapshot(load(folder, name))


def show(text: str, drawing: Drawing, svg: str | None) -> None:
    """The text, or the drawing where it was asked for."""
    if svg is None:
        click.echo(text)
    elif svg == "-":
        click.echo(drawing.svg)
    else:
        try:
            drawing.save(svg)
        except OSError as error:
            raise BadInput(f"{svg} cannot be written ({error.strerror or error})") from None
        click.echo(f"wrote {svg}")


@contextmanager
def opened(file: str) -> Iterator[BinaryIO]:
    """FILE or, for -, standard input. A dump may be huge: it is read line by line."""
    try:
        if file == "-":
            yield sys.stdin.buffer
        else:
            with Path(file).open("rb") as stream:
                yield stream
    except OSError as error:
        raise BadInput(f"{file} cannot be read ({error.strerror or error})") from None


def read_rules(file: str) -> Any:
    """iptables-save, or the JSON of nft: told apart by the first character."""
    where = "standard input" if file == "-" else file
    with opened(file) as stream:
        first = stream.readline(LONGEST_LINE)
        if first.lstrip()[:1] == b"{":
            from lab_utils.nft import parse as parse_nft

            rules: Any = parse_nft(first + stream.read())
        else:
            from lab_utils.iptables import parse

            rules = parse(lines(first, stream))
    if not rules.tables:
        raise BadInput(f"{where} holds no rules: it is not what iptables-save or `nft -j list ruleset` prints")
    return rules


def lines(first: bytes, stream: BinaryIO) -> Iterator[bytes]:
    """Line by line, and of a line no more than any rule has: a file that is no text may be one line of gigabytes."""
    yield first
    while line := stream.readline(LONGEST_LINE):
        yield line


def read_sets(file: str) -> dict[str, list[str]]:
    from lab_utils.iptables import parse_sets

    with opened(file) as stream:
        return parse_sets(text_lines(stream))


def text_lines(stream: BinaryIO) -> Iterator[str]:
    for number, line in enumerate(lines(b"", stream)):
        try:
            yield line.decode()
        except UnicodeDecodeError:
            raise BadInput(f"line {number}: this is not UTF-8 text", "Save the sets as UTF-8") from None


def address(text: str, what: str) -> str:
    try:
        return str(ip_address(text.strip("[]")))
    except ValueError:
        raise BadInput(f"{what} {text!r} is not an IP address") from None


def address_and_port(text: str) -> tuple[str, int | None]:
    """ "10.96.0.10:53", "[fd00::a]:53", or an address alone."""
    host, port = text, ""
    if text.startswith("["):
        host, _, rest = text[1:].partition("]")
        port = rest.removeprefix(":")
    elif text.count(":") == 1:
        host, _, port = text.partition(":")
    if port and not (port.isdecimal() and 0 < int(port) < 65536):
        raise BadInput(f"{port!r} is not a port; ports are 1 to 65535")
    return address(host, "the destination"), int(port) if port else None


@click.command()
@name_option
@click.option(
    "--dump", default=None, metavar="FILE", help="Rules as iptables-save or `nft -j list ruleset` prints them (- for standard input)."
)
@click.option("--node", default=None, help="Whose rules. [default: those of the node where the packet starts]")
@snapshot_option
@click.option("--from", "source", required=True, metavar="IP", help="Who sends.")
@click.option("--to", "target", required=True, metavar="IP:PORT", help="To whom.")
@click.option("--protocol", default="tcp", show_default=True)
@click.option(
    "--origin",
    type=click.Choice(["external", "pod", "local"]),
    default=None,
    help="Where the packet comes from. [default: what its source tells]",
)
@click.option("--local", multiple=True, metavar="IP", help="With --dump: an address of the node that the rules are from. May be repeated.")
@click.option("--sets", default=None, metavar="FILE", help="With --dump: what `ipset save` prints.")
@click.option("--explain", is_flag=True, help="Also tell why rules did not match.")
@json_option
@svg_option
def trace(
    name: str | None,
    dump: str | None,
    node: str | None,
    folder: str | None,
    source: str,
    target: str,
    protocol: str,
    origin: Origin | None,
    local: tuple[str, ...],
    sets: str | None,
    explain: bool,
    as_json: bool,
    svg: str | None,
) -> None:
    """What a node's rules do to a packet, rule by rule.

    The JSON is an object: packet, verdict (ACCEPT, DROP or REJECT), masquerade, destinations (each with address and
    probability, a fraction as text), steps (each with hook, table, chain, rule, why, matched, probability), undecided, notes.
    """
    from lab_utils.trace import Packet
    from lab_utils.trace import trace as follow

    src = address(source, "the source")
    dst, port = address_and_port(target)
    packet = Packet(src, dst, port, protocol=protocol)
    if dump is not None:
        if folder is not None or node is not None:
            raise BadInput("--dump says where the rules come from, so do --node and --snapshot", "Give one of them")
        rules = read_rules(dump)
        own = [address(text, "the node's address") for text in local]
        found = follow(rules, packet, own, origin or "external", sets=read_sets(sets) if sets else None, explain=explain)
    else:
        topology = topology_of(folder, name)
        view = whose_rules(topology, node, src)
        traced = view.trace(packet, origin or origin_of(topology, view, src), explain=explain)
        if traced is None:
            raise BadInput(f"no rules of node {view.name} were read")
        found = traced
    print_trace(found, as_json, svg)


def whose_rules(topology: Topology, node: str | None, src: str) -> NodeView:
    """The node that was named; else where the packet starts; else a worker, as for traffic from outside."""
    if node is not None:
        return topology.node(node)
    pod = topology.pod_with_ip(src)
    if pod is not None and pod.node in topology.nodes:
        return topology.node(pod.node)
    workers = [view for view in topology.nodes.values() if view.role == "worker"] or list(topology.nodes.values())
    if not workers:
        raise BadInput("there is no node here whose rules could be asked")
    return topology.node_with_ip(src) or workers[0]


def origin_of(topology: Topology, view: NodeView, src: str) -> Origin:
    if src in view.netns.addresses:
        return "local"
    pod = topology.pod_with_ip(src)
    return "pod" if pod is not None and pod.node == view.name else "external"


def print_trace(found: Trace, as_json: bool, svg: str | None) -> None:
    from lab_utils import draw

    show(json.dumps(found.to_dict(), indent=2) if as_json else str(found), draw.trace(found), svg)


@click.command()
@name_option
@snapshot_option
@click.option("--node", default=None, help="One node with every device.")
@click.option("--from", "source", default=None, metavar="WHAT", help="A Pod (namespace/name), a node or an IP: draw its way to --to.")
@click.option("--to", "target", default=None, metavar="WHAT", help="A Pod, a node, service/NAMESPACE/NAME or an IP.")
@click.option("--port", type=click.IntRange(1, 65535), default=None, help="The port that is asked for; then rules are followed too.")
@click.option("--protocol", default="tcp", show_default=True)
@svg_option
def topology(
    name: str | None,
    folder: str | None,
    node: str | None,
    source: str | None,
    target: str | None,
    port: int | None,
    protocol: str,
    svg: str | None,
) -> None:
    """Nodes, Pods, veth pairs, bridges and tunnels; with --from and --to, the way of a packet."""
    from lab_utils import draw

    if (source is None) != (target is None):
        raise BadInput("--from and --to belong together")
    found = topology_of(folder, name)
    if source is not None and target is not None:
        way = found.path(source, target, port, protocol)
        show(str(way), draw.path(way, found), svg)
        return
    drawing = draw.node(found, node) if node else draw.cluster(found)
    show(str(drawing.table), drawing, svg)


@click.command()
@name_option
@snapshot_option
@click.option("-n", "--namespace", default="default", show_default=True)
@click.option("--node", default=None, help="Whose rules. [default: a worker's]")
@svg_option
@click.argument("service_name", metavar="NAME")
def service(name: str | None, folder: str | None, namespace: str, node: str | None, svg: str | None, service_name: str) -> None:
    """The chains that lead from a Service to its Pods, with the chance of each."""
    from lab_utils import draw

    found = topology_of(folder, name)
    if "/" in service_name:
        namespace, _, service_name = service_name.partition("/")
    wanted = found.service(service_name, namespace)
    rules = whose_rules(found, node, "").ruleset
    if rules is None:
        raise BadInput("no rules of that node were read")
    drawing = draw.service(rules, wanted.key, found)
    show(str(drawing.table), drawing, svg)


@click.command()
@name_option
@click.option("--out", required=True, metavar="DIR", help="A new or empty folder.")
def snapshot(name: str | None, out: str) -> None:
    """Record rules, network namespaces, sandboxes and API objects of a running cluster as plain files. No secrets."""
    from lab_utils.snapshot import write_snapshot
    from lab_utils.snapshot.folder import refuse_unless_empty

    folder = Path(out)
    refuse_unless_empty(folder)
    taken = load(None, name)
    try:
        write_snapshot(taken, folder)
    except OSError as error:
        raise LabError(f"{folder} cannot be written ({error.strerror or error})") from None
    boxes = sum(len(node.sandboxes) for node in taken.nodes)
    click.echo(f"{folder}: {len(taken.nodes)} nodes, {boxes} sandboxes, {len(taken.pods)} Pods, {len(taken.services)} Services")
