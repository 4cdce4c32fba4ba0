"""What the rules did to one packet, as a story from top to bottom: hook by hook, rule by rule."""

from __future__ import annotations

from itertools import groupby
from typing import TYPE_CHECKING

from lab_utils.draw.canvas import Canvas, Drawing
from lab_utils.draw.table import Table
from lab_utils.draw.text import wrap

if TYPE_CHECKING:
    from lab_utils.trace import Step, Trace

WIDTH, LEFT, LINE = 900.0, 132.0, 13.0


def trace(found: Trace) -> Drawing:
    """Each step with the table and chain it happened in; near misses are marked with a cross and grey."""
    canvas = Canvas()
    title = f"{found.packet}: {found.verdict}"
    canvas.text(12, 27, title, "strong" + (" bad" if found.verdict != "ACCEPT" else ""), size=14)
    top = 42.0
    number = 0
    for hook, steps in groupby(found.steps, key=lambda step: step.hook):
        group = list(steps)
        start = top
        for step in group:
            number += 1
            top = _step(canvas, step, number, top + 5)
        top += 5
        canvas.rect(12, start, 104, top - start - 4, "stack s-stackline" if hook == "routing" else "bridge s-bridgeline", radius=5)
        canvas.text(64, (start + top) / 2 + 2, hook, "strong", size=10.5, anchor="middle")
    top = _ends(canvas, found, top + 4)
    rows = [
        (str(index), step.hook, step.table, step.chain, "yes" if step.matched else "no", step.rule, step.why, str(step.probability))
        for index, step in enumerate(found.steps, 1)
    ]
    rows += [
        ("", "end", "", "", end.verdict, f"to {end.address}", "masqueraded" if end.masquerade else "", str(end.probability))
        for end in found.destinations
    ]
    table = Table.of(("step", "hook", "table", "chain", "matched", "rule", "why", "probability"), rows)
    return canvas.finish(WIDTH, top + 8, title, found.summary, table)


def _step(canvas: Canvas, step: Step, number: int, top: float) -> float:
    indent = LEFT + 12 * min(step.depth, 8)
    room = WIDTH - indent - 40
    with canvas.group("" if step.matched else "this rule was looked at and did not match", "" if step.matched else "dim"):
        canvas.badge(indent + 8, top + 8, f"{number}" if step.matched else "✗", "lit1" if step.matched else "linkline", size=9)
        share = "" if step.probability == 1 else f"   {step.probability} of the packets"
        canvas.text(indent + 26, top + 12, f"{step.table} {step.chain}".strip() + share, "strong", size=10.5)
        top += LINE + 1
        lines = [(line, "mono", 9.5) for line in wrap(step.rule, int(room / 5.75))]
        lines += [(line, "soft", 10) for line in wrap(step.why, int(room / 5.7))]
        for words, classes, size in lines:
            canvas.text(indent + 26, top + 11, words, classes, size=size)
            top += LINE
    return top + 4


def _ends(canvas: Canvas, found: Trace, top: float) -> float:
    lines: list[tuple[str, str]] = []
    for end in found.destinations:
        masks = ", its source becomes the node's own address (masquerade)" if end.masquerade else ""
        lines.append((f"{end.verdict}  {end.address}  with probability {end.probability}{masks}", "" if end.verdict == "ACCEPT" else "bad"))
    if not lines:
        masks = "; its source becomes the node's own address (masquerade)" if found.masquerade else ""
        lines.append((f"{found.verdict}, destination unchanged{masks}", "" if found.verdict == "ACCEPT" else "bad"))
    lines += [(f"not decided: {item}", "bad") for item in found.undecided] + [(note, "soft") for note in found.notes]
    for words, colour in lines:
        for line in wrap(words, 140):
            canvas.text(LEFT, top + 12, line, f"strong {colour}".strip(), size=11)
            top += 16
    return top
