"""Where requests lead: from hosts and paths to Pods. The Service is beside the way, for it is read and not passed."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby

from lab_utils.draw.canvas import Canvas, Drawing
from lab_utils.draw.table import Table
from lab_utils.draw.text import middle
from lab_utils.ingress import Route, Server

PAD, HEAD, CHIP, SLOT, BOX, GAP = (
    14.0,
    30.0,
    22.0,
    28.0,
    28.0,
    16.0,
)  # at the edges; heights of a title, a Service, a Pod, a path; between rows
PATH, SERVICE, POD = (28.0, 226.0), (292.0, 216.0), (546.0, 330.0)  # x and width of the columns
WIDTH = POD[0] + POD[1] + 2 * PAD


def ingress(routes: Sequence[Route], title: str = "Where requests lead") -> Drawing:
    """A frame for each host of each Ingress, a row for each path, and the Pods that are ready behind it."""
    canvas = Canvas()
    canvas.text(PAD, 26, title, "strong", size=15)
    for (x, _), words in zip((PATH, SERVICE, POD), ("asked for", "the Service: read, not passed", "Pods that answer"), strict=True):
        canvas.text(x, 50, words, "soft", size=11.5)
    y = 60.0
    for (name, chosen, host, secret), group in groupby(routes, key=lambda each: (each.ingress, each.ingress_class, each.host, each.secret)):
        rows = list(group)
        height = HEAD + sum(_height(row) + GAP for row in rows)
        canvas.rect(PAD, y, WIDTH - 2 * PAD, height, "node s-frame", radius=8, width=1.5)
        canvas.text(PATH[0], y + 20, middle(host or "any host", 40), "mono strong", size=12)
        told = f"Ingress {name}, class {chosen or 'not said'}" + (f"; certificate in Secret {secret}" if secret else "; no certificate")
        canvas.text(WIDTH - 2 * PAD, y + 20, middle(told, 76), "soft", size=11, anchor="end")
        y += HEAD
        for row in rows:
            _row(canvas, row, y)
            y += _height(row) + GAP
        y += GAP
    headers = ("host", "path", "type", "Service", "its address", "Pods")
    said = "; ".join(_sentence(each) for each in routes) or "There is no Ingress."
    return canvas.finish(WIDTH, y, title, said, Table.of(headers, [_cells(each) for each in routes]))


def _height(route: Route) -> float:
    return CHIP + max(BOX, SLOT * len(route.servers))


def _row(canvas: Canvas, route: Route, top: float) -> None:
    centre = top + CHIP + (_height(route) - CHIP) / 2
    lines = [centre + (index - (len(route.servers) - 1) / 2) * SLOT for index in range(len(route.servers))]
    for at in lines:
        canvas.curve(PATH[0] + PATH[1], centre, POD[0], at, "s-lit3", width=2.5)
    if not lines:
        canvas.line([(PATH[0] + PATH[1], centre), (POD[0], centre)], "s-bad", dash="4 4")
    x, width = SERVICE
    with canvas.group(f"Service {route.service}, {route.address or 'which is not there'}"):
        canvas.rect(x, top, width, CHIP, "stack s-stackline", dash="4 3")
        canvas.text(x + 8, top + 15, middle(route.service, 18), "mono", size=10.5)
        canvas.text(x + width - 7, top + 15, route.address or "is not there", "soft" if route.address else "bad", size=10, anchor="end")
    x, width = PATH
    with canvas.group(f"{route.kind} {route.path}"):
        canvas.rect(x, centre - BOX / 2, width, BOX, "bridge s-bridgeline", width=1.5)
        canvas.text(x + 8, centre + 4, middle(route.path, 22), "mono strong", size=11)
        canvas.text(
            x + width - 7, centre + 4, {"ImplementationSpecific": "as it likes"}.get(route.kind, route.kind), "soft", size=10, anchor="end"
        )
    for at, server in zip(lines, route.servers, strict=True):
        _pod(canvas, server, at)
    if not lines:
        canvas.rect(POD[0], centre - 12, POD[1], 24, "none s-bad", dash="4 3")
        canvas.text(POD[0] + 8, centre + 4, "nobody", "bad", size=11)


def _pod(canvas: Canvas, server: Server, centre: float) -> None:
    x, width = POD
    with canvas.group(f"Pod {server.pod} on {server.node}, {server.address}"):
        canvas.rect(x, centre - 12, width, 24, "pod s-podline")
        canvas.text(x + 8, centre + 4, middle(server.pod, 25), "mono", size=10)
        canvas.text(x + width - 34, centre + 4, server.address, "mono soft", size=10, anchor="end")
        canvas.text(x + width - 7, centre + 4, middle(server.node, 4), "soft", size=10, anchor="end")


def _sentence(route: Route) -> str:
    pods = ", ".join(f"{server.pod} at {server.address} on {server.node}" for server in route.servers) or "nobody"
    return f"{route.host or 'any host'}, {route.kind} {route.path}, by Service {route.service}, leads to {pods}"


def _cells(route: Route) -> tuple[str, ...]:
    pods = ", ".join(f"{server.pod} ({server.address}, {server.node})" for server in route.servers)
    return route.host or "any", route.path, route.kind, route.service, route.address or "is not there", pods or "nobody"
