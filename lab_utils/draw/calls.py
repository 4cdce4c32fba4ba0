"""Who called the driver, and when: a line for each process, an arrow for each call, time running down."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from lab_utils.csi.recording import Call, callers
from lab_utils.draw.canvas import Canvas, Drawing
from lab_utils.draw.table import Table
from lab_utils.draw.text import middle, wrap

LEFT, LANE, ROW, HEAD, PAD = 76.0, 118.0, 34.0, 62.0, 14.0
BOX = 104.0  # the width of a process
COLOURS = {"Identity": "lit4", "Controller": "lit1", "Node": "lit3", "Registration": "lit2"}


def calls(found: Sequence[Call], title: str = "Who calls the driver", sockets: Mapping[str, str] | None = None) -> Drawing:
    """`sockets` may say of a caller at which socket it calls; else it is named after the caller, as the driver has it."""
    canvas = Canvas()
    nodes = list(dict.fromkeys(call.node for call in found))
    lanes = callers(found)
    at = {name: LEFT + BOX / 2 + index * LANE for index, name in enumerate(lanes)}
    drivers = {node: LEFT + BOX / 2 + (len(lanes) + index) * LANE + 150 for index, node in enumerate(nodes)}
    width = max(drivers.values(), default=LEFT) + BOX / 2 + PAD
    bottom = HEAD + 34 + ROW * len(found) + 8
    canvas.text(PAD, 26, title, "strong", size=15)
    for name, x in at.items():
        socket = (sockets or {}).get(name, f"{name}.sock")
        _lane(canvas, x, bottom, "stack s-stackline", name, socket)
    for node, x in drivers.items():
        _lane(canvas, x, bottom, "pod s-podline", "driver", f"on {node}" if node else "")
    begin = found[0].at if found else None
    y = HEAD + 34.0
    for number, call in enumerate(found, 1):
        assert begin is not None
        y += ROW
        _call(canvas, call, number, (call.at - begin).total_seconds(), at[call.caller], drivers[call.node], y - 12)
    told = "; ".join(f"{call.caller} calls {call.method}: {call.code}" for call in found) or "Nobody called."
    rows = [
        (
            str(number),
            f"{(call.at - begin).total_seconds():.3f} s" if begin else "",
            call.caller,
            f"driver on {call.node}" if call.node else "driver",
            f"{call.service}/{call.method}",
            ", ".join(call.concerns),
            f"{call.seconds * 1000:.0f} ms",
            call.code if call.ok else f"{call.code}: {call.why}",
        )
        for number, call in enumerate(found, 1)
    ]
    headers = ("call", "after", "caller", "callee", "method", "concerns", "took", "answer")
    return canvas.finish(width, bottom + 12, title, told, Table.of(headers, rows))


def _lane(canvas: Canvas, x: float, bottom: float, classes: str, name: str, below: str) -> None:
    canvas.line([(x, HEAD + 28), (x, bottom)], "s-frame", dash="3 4", width=1)
    canvas.rect(x - BOX / 2, HEAD - 22, BOX, 40, classes, width=1.5)
    canvas.text(x, HEAD - 6, name, "strong", size=11.5, anchor="middle")
    canvas.text(x, HEAD + 10, middle(below, 18), "mono", size=9, anchor="middle")


def _call(canvas: Canvas, call: Call, number: int, after: float, start: float, end: float, y: float) -> None:
    colour = COLOURS.get(call.service, "cable") if call.ok else "bad"
    hover = f"{call.caller} → {call.service}/{call.method}\n{', '.join(call.concerns)}\n{call.code} {call.why}"
    canvas.text(LEFT - 10, y + 4, f"{after:.2f} s", "soft", size=10, anchor="end")
    with canvas.group(hover):
        canvas.line([(start, y), (end - 4, y)], f"s-{colour}", width=2, arrow=colour, dash="" if call.ok else "5 4")
        canvas.rect(end - 4, y - 5, 8, 12, colour, radius=2)
        canvas.badge(start, y, str(number), colour, size=9)
        answer = f"{call.seconds * 1000:.0f} ms" if call.ok else call.code
        canvas.text(end - 12, y - 5, call.method, f"strong halo s-ground {colour}", size=10.5, anchor="end")
        canvas.text(
            end - 12, y + 13, answer if call.ok else wrap(f"{answer}: {call.why}", 60)[0], "soft halo s-ground", size=9.5, anchor="end"
        )
