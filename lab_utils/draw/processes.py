"""The processes of a node: who started whom, and what is in a container."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import groupby

from lab_utils.draw.canvas import Canvas, Drawing
from lab_utils.draw.table import Table
from lab_utils.draw.text import middle, mono_width
from lab_utils.processes import Process

PAD, ROW, HEAD, BOX = 14.0, 46.0, 40.0, 30.0
INIT, UNIT, SHIM, POD = (28.0, 92.0), (164.0, 126.0), (356.0, 86.0), (472.0, 434.0)  # x and width of the columns
WIDTH = POD[0] + POD[1] + 2 * PAD
UNITS = ("kubelet", "containerd")  # those that are Kubernetes'; a machine has others


def processes(nodes: Mapping[str, Sequence[Process]], title: str = "Every process of Kubernetes, and who started it") -> Drawing:
    """For each node: process 1, the units that it starts, and the Pods, each of which hangs on a shim of its own."""
    canvas = Canvas()
    canvas.text(PAD, 26, title, "strong", size=15)
    for (x, _), words in zip((INIT, UNIT, SHIM, POD), ("process 1", "units: no containers", "one shim a Pod", "containers"), strict=True):
        canvas.text(x, 50, words, "soft", size=11.5)
    y = 60.0
    told, rows = [], []
    for name, found in nodes.items():
        y = _node(canvas, name, found, y) + 12
        told.append(_sentence(name, found))
        rows += [_cells(name, each) for each in found if _shown(each)]
    _legend(canvas, y + 4)
    headers = ("node", "pid", "parent", "program", "where", "Pod", "Pod comes from")
    return canvas.finish(WIDTH, y + 24, title, " ".join(told), Table.of(headers, rows))


def _shown(each: Process) -> bool:
    return each.kind in ("shim", "pause", "container") or each.program in UNITS


def _pods(found: Sequence[Process]) -> list[tuple[str, list[Process]]]:
    """By Pod: those from files first, as the kubelet starts them; then by name."""
    inside = sorted((each for each in found if each.pod), key=lambda each: (not each.from_file, each.pod, each.pid))
    return [(pod, list(members)) for pod, members in groupby(inside, key=lambda each: each.pod)]


def _node(canvas: Canvas, name: str, found: Sequence[Process], y: float) -> float:
    pods = _pods(found)
    height = HEAD + max(3, len(pods)) * ROW + 8
    canvas.rect(PAD, y, WIDTH - 2 * PAD, height, "node s-frame", radius=8, width=1.5)
    canvas.text(PAD + 12, y + 20, name, "mono strong", size=13)
    inside = sum(each.contained for each in found)
    count = f"{len(pods)} Pods, {inside} processes in containers"
    canvas.text(WIDTH - PAD - 12, y + 20, count, "soft", size=11, anchor="end")
    top = y + HEAD
    centre = top + ROW
    by_name = {each.program: each for each in found if each.kind == "unit" and each.program in UNITS}
    first = next((each for each in found if each.pid == 1), None)
    places = {"kubelet": top + 8, "containerd": top + ROW + 22}
    for program, at in places.items():
        if unit := by_name.get(program):
            canvas.curve(INIT[0] + INIT[1], centre, UNIT[0], at + BOX / 2, "s-cable")
            _box(canvas, UNIT, at, "stack s-stackline", unit.program, f"pid {unit.pid}", unit.args)
    if first:
        _box(canvas, INIT, centre - BOX / 2, "link s-linkline", first.program, "pid 1", first.args)
    if len(by_name) == len(UNITS):
        x = UNIT[0] + 24
        ends = [(x, places["kubelet"] + BOX), (x, places["containerd"] - 1)]
        with canvas.group("the kubelet asks containerd for Pods and containers, over its socket (CRI)"):
            canvas.line(ends, "s-lit2", width=2, arrow="lit2")
            canvas.text(x + 8, (ends[0][1] + ends[1][1]) / 2 + 4, "CRI", "soft", size=10)
    for index, (pod, members) in enumerate(pods):
        at = top + index * ROW
        if "containerd" in by_name:
            canvas.curve(UNIT[0] + UNIT[1], places["containerd"] + BOX / 2, SHIM[0], at + ROW / 2, "s-lit3", width=1.3, dash="4 3")
        _pod(canvas, pod, members, at)
    return y + height


def _pod(canvas: Canvas, pod: str, members: Sequence[Process], y: float) -> None:
    shim = next((each for each in members if each.kind == "shim"), None)
    if shim:
        _box(canvas, SHIM, y + 8, "tunnel s-tunnelline", "shim", f"pid {shim.pid}", shim.args)
        canvas.line([(SHIM[0] + SHIM[1], y + ROW / 2), (POD[0], y + ROW / 2)], "s-cable")
    origin = "from a file" if shim and shim.from_file else "from the API"
    with canvas.group(f"Pod {pod}, {origin}"):
        canvas.rect(POD[0], y + 2, POD[1], ROW - 6, "pod s-podline", radius=6, dash="" if origin == "from the API" else "6 3")
        canvas.text(POD[0] + 8, y + 15, middle(pod.partition("/")[2], 44), "mono soft", size=9.5)
        canvas.text(POD[0] + POD[1] - 8, y + 15, origin, "soft", size=9.5, anchor="end")
    x = POD[0] + 8
    for each in members:
        if each.contained:
            label = f"{each.program} {each.pid}"
            width = mono_width(label, 9.5) + 12
            if x + width > POD[0] + POD[1] - 4:
                canvas.text(x, y + 33, "…", "soft", size=10)
                break
            with canvas.group(each.args):
                canvas.rect(x, y + 20, width, 17, "ground s-podline" if each.kind == "pause" else "bridge s-bridgeline", radius=4)
                canvas.text(x + 6, y + 32, label, "mono", size=9.5)
            x += width + 6


def _box(canvas: Canvas, column: tuple[float, float], y: float, classes: str, name: str, about: str, hover: str) -> None:
    x, width = column
    with canvas.group(hover):
        canvas.rect(x, y, width, BOX, classes, radius=5)
        canvas.text(x + 8, y + 13, middle(name, 15), "mono strong", size=10.5)
        canvas.text(x + 8, y + 25, about, "soft", size=9.5)


def _legend(canvas: Canvas, y: float) -> None:
    canvas.line([(PAD, y), (PAD + 26, y)], "s-cable")
    canvas.text(PAD + 32, y + 4, "its child", "soft", size=10.5)
    canvas.line([(PAD + 104, y), (PAD + 130, y)], "s-lit3", width=1.3, dash="4 3")
    canvas.text(PAD + 136, y + 4, "started by it (and then given to process 1)", "soft", size=10.5)
    canvas.rect(PAD + 386, y - 6, 26, 12, "pod s-podline", dash="6 3")
    canvas.text(PAD + 418, y + 4, "a Pod that the kubelet has from a file", "soft", size=10.5)
    canvas.rect(PAD + 640, y - 6, 26, 12, "ground s-podline")
    canvas.text(PAD + 672, y + 4, "pause: the sandbox itself", "soft", size=10.5)


def _sentence(name: str, found: Sequence[Process]) -> str:
    units = ", ".join(each.program for each in found if each.kind == "unit" and each.program in UNITS)
    pods = "; ".join(
        f"{pod}: {', '.join(each.program for each in members if each.contained)}{' (from a file)' if members[0].from_file else ''}"
        for pod, members in _pods(found)
    )
    return f"On {name}, not in containers: {units or 'nothing'}. In containers, by Pod: {pods or 'none'}."


def _cells(node: str, each: Process) -> tuple[str, ...]:
    where = {"pause": "sandbox", "container": "container", "shim": "no container"}.get(each.kind, "no container")
    origin = ("a file" if each.from_file else "the API") if each.pod else ""
    return (node, str(each.pid), str(each.ppid), each.program, where, each.pod, origin)
