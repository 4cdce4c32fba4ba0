"""A packet's way, lit on the drawing of the nodes that it visits, its hops numbered and told below."""

from __future__ import annotations

from dataclasses import dataclass

from lab_utils.draw.canvas import DASHES, Canvas, Drawing
from lab_utils.draw.layout import COMPACT, PAD, TRACK, NodeLayout, Placed, Point
from lab_utils.draw.nodes import Picture, arrange, paint
from lab_utils.draw.table import Table
from lab_utils.draw.text import wrap
from lab_utils.topology import Hop, Path, Topology, Way

LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
MOST_WAYS = 4  # that many can still be told apart; the table has them all


@dataclass(frozen=True)
class Spot:
    """A place that a way goes through. `kind` decides how lines run to it."""

    kind: str  # pod, port, bridge, ip, tunnel, uplink
    x: float
    y: float
    node: str
    bar: float = 0  # for a port: the line inside its bar
    spine: float = 0


@dataclass(frozen=True)
class Leg:
    """Hops that are drawn in one colour: what all ways share, or what one has for itself."""

    label: str
    heading: str
    first: int  # the number of its first hop
    hops: tuple[Hop, ...]
    lead: Hop | None  # the hop before, where its line begins
    colour: int


def path(found: Path, topology: Topology) -> Drawing:
    """Light the ways of a path. A Service's ways part where a rule rewrites the destination; each has its letter."""
    legs = _legs(found)
    nodes = [name for name in topology.nodes if any(hop.node == name for way in found.ways for hop in way.hops)]
    nodes.sort(key=lambda name: min(i for way in found.ways for i, hop in enumerate(way.hops) if hop.node == name))
    pods = {hop.namespace for way in found.ways for hop in way.hops if hop.namespace in topology.pods}
    few = all(len(topology.cables(name)) <= 4 for name in nodes)
    picture = arrange(topology, nodes, COMPACT, top=44, only=None if few else pods)
    canvas = Canvas()
    title = f"{found.source} → {found.target}"
    canvas.text(PAD, 27, title, "strong", size=14)
    paint(canvas, picture)
    spots = _spots(picture)
    taken: list[tuple[float, float, float]] = []
    for leg in legs:
        _light(canvas, picture, spots, leg)
    for leg in legs:
        _number(canvas, spots, leg, taken)
    height = picture.height
    for leg in legs:
        height = _tell(canvas, leg, height + 8, picture.width, reasons=len(found.ways) == 1)
    more = len(found.ways) - MOST_WAYS
    if more > 0:
        canvas.text(PAD, height + 14, f"… and {more} more ways; the table has them.", "soft", size=11)
        height += 20
    return canvas.finish(picture.width, height + 8, title, _description(found), path_table(found))


def _description(found: Path) -> str:
    ends = "; ".join(
        f"{way.destination} with probability {way.probability}, {len(way.hops)} hops, {way.hops[-1].what}" for way in found.ways if way.hops
    )
    return f"The way of a packet from {found.source} to {found.target}: {ends}"


def path_table(found: Path) -> Table:
    rows = []
    for index, way in enumerate(found.ways):
        name = f"{_letter(index)} {way.destination} ({way.probability})" if len(found.ways) > 1 else way.destination
        for number, hop in enumerate(way.hops, 1):
            rows.append((name, str(number), hop.namespace, hop.device, hop.what, "; ".join(hop.why)))
    return Table.of(("way", "hop", "where", "device", "what happens", "because"), rows)


def _letter(index: int) -> str:
    return LETTERS[index] if index < len(LETTERS) else f"{LETTERS[index % 26]}{index // 26}"


def _legs(found: Path) -> list[Leg]:
    ways = found.ways
    if not ways:
        return []
    if len(ways) == 1:
        return [Leg("", "", 1, ways[0].hops, None, 1)]
    shared = 0
    shortest = min(len(way.hops) for way in ways)
    while shared < shortest and len({way.hops[shared] for way in ways}) == 1:
        shared += 1
    common = ways[0].hops[:shared]
    legs = [Leg("", "On every way", 1, common, None, 0)] if common else []
    for index, way in enumerate(ways[:MOST_WAYS]):
        letter = _letter(index)
        legs.append(Leg(letter, _heading(letter, way), shared + 1, way.hops[shared:], common[-1] if common else None, index + 1))
    return legs


def _heading(letter: str, way: Way) -> str:
    masks = ", source masqueraded" if way.masquerade else ""
    return f"Way {letter}, probability {way.probability}: to {way.destination}{f' ({way.pod})' if way.pod else ''}{masks}"


def _spots(picture: Picture) -> dict[tuple[str, str], Spot]:
    """Where each device of each namespace is in the picture; "" is a node's IP layer."""
    spots: dict[tuple[str, str], Spot] = {}
    for place in picture.nodes:
        name = place.name
        spots[name, ""] = Spot("ip", place.track, place.ip_y + TRACK, name)
        for bar in reversed(place.bars):
            if bar.section.bridge:
                spots[name, bar.section.bridge.name] = Spot("bridge", place.spine, bar.y + 20, name, bar.y + 20, place.spine)
        for placed in place.placed:
            _pod_spots(spots, place, placed)
        for device, top in place.tunnels:
            spots[name, device.name] = Spot("tunnel", place.track, top + TRACK, name)
        for device, top in place.uplinks:
            spots[name, device.name] = Spot("uplink", place.bypass, top + TRACK, name)
    return spots


def _pod_spots(spots: dict[tuple[str, str], Spot], place: NodeLayout, placed: Placed) -> None:
    spots[place.name, placed.item.device.name] = Spot("port", *placed.port, place.name, placed.bar, place.spine)
    if placed.item.pod and placed.item.peer and placed.item.peer.end:
        end = placed.item.peer.end
        spots[end.namespace, end.name] = Spot("pod", *placed.plug, place.name, placed.bar, place.spine)


def _through(hop: Hop, before: Hop | None, spots: dict[tuple[str, str], Spot]) -> list[Spot]:
    """The spots of one hop. A node's IP layer decides before a device of its own gets the packet.

    Only a tunnel's outer packet goes straight from the tunnel to the uplink: nothing leads it up again.
    """
    at = spots.get((hop.namespace, hop.device))
    layer = spots.get((hop.namespace, ""))
    outer = hop.kind == "route" and before is not None and before.kind == "wrap"
    if layer is None or outer or hop.kind not in ("rules", "route", "wrap", "send", "lost"):
        return [at] if at else []
    if hop.kind == "rules" or at is None:
        return [layer]
    return [at] if hop.kind == "lost" else [layer, at]


def _light(canvas: Canvas, picture: Picture, spots: dict[tuple[str, str], Spot], leg: Leg) -> None:
    colour = leg.colour or 1
    shift = (leg.colour - 1) * 4.0 if leg.label else 0.0
    before = _last(_through(leg.lead, None, spots)) if leg.lead else None
    points: list[Point] = [(before.x, before.y)] if before else []
    previous = leg.lead
    for hop in leg.hops:
        for spot in _through(hop, previous, spots):
            points += _join(before, spot, picture) if before else [(spot.x, spot.y)]
            before = spot
        if hop.kind == "leave" and before is not None:
            points += [(picture.bus, before.y), (picture.bus + 16, before.y)]
        previous = hop
    points = [point for index, point in enumerate(points) if index == 0 or point != points[index - 1]]
    moved = [(x + shift, y + shift) for x, y in points]
    if len(moved) > 1:
        canvas.line(moved, "s-ground", width=6.5)
        canvas.line(moved, f"s-lit{colour}", width=3.2, dash=DASHES[colour - 1] if leg.label else "", arrow=f"lit{colour}")


def _last(spots: list[Spot]) -> Spot | None:
    return spots[-1] if spots else None


def _join(a: Spot, b: Spot, picture: Picture) -> list[Point]:
    """From a to b along the lines of the picture: cables, bars, spines, the stack and the lanes."""
    if a.node != b.node:
        return [(picture.bus, a.y), (picture.bus, b.y), (b.x, b.y)]
    if a.kind == "port" and b.kind == "port":
        inside = [(a.x, a.bar), (b.x, b.bar)] if a.bar == b.bar else [(a.x, a.bar), (a.spine, a.bar), (a.spine, b.bar), (b.x, b.bar)]
        return [*inside, (b.x, b.y)]
    if a.kind == "port" and b.kind in ("bridge", "ip"):
        return [(a.x, a.bar), (a.spine, a.bar), *([(a.spine, b.y)] if b.kind == "ip" else []), (b.x, b.y)]
    if a.kind == "bridge" and b.kind == "port":
        return [(a.x, b.bar), (b.x, b.bar), (b.x, b.y)]
    if a.kind == "ip" and b.kind == "port":
        return [(b.spine, a.y), (b.spine, b.bar), (b.x, b.bar), (b.x, b.y)]
    if {a.kind, b.kind} == {"bridge", "ip"}:
        corner = (a.x, b.y) if a.kind == "bridge" else (b.x, a.y)
        return [corner, (b.x, b.y)]
    if a.kind == "tunnel" and b.kind == "uplink":
        return [(a.x, b.y), (b.x, b.y)]
    if a.kind == "uplink" and b.kind == "tunnel":
        return [(b.x, a.y), (b.x, b.y)]
    if a.kind == "ip" and b.kind == "uplink":
        return [(b.x, a.y), (b.x, b.y)]
    if a.kind == "uplink" and b.kind == "ip":
        return [(a.x, b.y), (b.x, b.y)]
    return [(b.x, b.y)]


def _number(canvas: Canvas, spots: dict[tuple[str, str], Spot], leg: Leg, taken: list[tuple[float, float, float]]) -> None:
    spot: Spot | None = None
    previous = leg.lead
    for index, hop in enumerate(leg.hops):
        spot = _last(_through(hop, previous, spots)) or spot
        previous = hop
        if spot is None:
            continue
        words = f"{leg.label}{leg.first + index}" + ("✕" if hop.kind == "lost" else "")
        x, y = _beside(spot)
        half = canvas.badge_width(words) / 2
        for other_x, other_y, other_half in sorted(taken, reverse=True):  # to the left, until it covers no other
            if abs(other_y - y) < 16 and abs(other_x - x) < half + other_half + 1:
                x = other_x - other_half - half - 1
        taken.append((x, y, half))
        with canvas.group(f"{words}. {hop.what}\n" + "\n".join(hop.why)):
            canvas.badge(x, y, words, "bad" if hop.kind == "lost" else f"lit{leg.colour or 1}")


def _beside(spot: Spot) -> Point:
    """Where the first badge of a spot goes."""
    if spot.kind == "pod":
        return spot.x - 1, spot.y + (-12 if spot.y < spot.bar else 12)
    if spot.kind in ("port", "bridge"):
        return spot.x - 14, spot.bar
    if spot.kind == "uplink":
        return spot.x - 2, spot.y - 14
    return spot.x, spot.y - 14


def _tell(canvas: Canvas, leg: Leg, top: float, width: float, *, reasons: bool) -> float:
    """The hops in words, under the picture. Where there are several ways, the reasons are in the table and behind the numbers."""
    colour = f"lit{leg.colour or 1}"
    if leg.heading:
        canvas.text(PAD, top + 10, leg.heading, f"strong {colour}", size=11.5)
        top += 18
    for index, hop in enumerate(leg.hops):
        where = f"{hop.namespace}  {hop.device}" if hop.namespace else "outside"
        canvas.badge(PAD + 14, top + 8, f"{leg.label}{leg.first + index}", "bad" if hop.kind == "lost" else colour)
        canvas.text(PAD + 34, top + 12, where, "mono strong", size=10)
        top += 13
        lines = [(line, "", 10.5) for line in wrap(hop.what, int((width - 60) / 5.7))]
        lines += [(line, "mono soft", 9.5) for reason in hop.why if reasons for line in wrap(reason, int((width - 60) / 5.75))]
        for words, classes, size in lines:
            canvas.text(PAD + 34, top + 12, words, classes, size=size)
            top += 13
        top += 5
    return top
