"""A small SVG writer, and what comes out of it.

Colours. A drawing brings its own ground, so it can be read on any page. Its colours are CSS variables with a light and
a dark set; which one holds is said by the page (`data-theme` of the Jupyter Book, `data-jp-theme-light` of JupyterLab)
or else by the reader's system. Print is always light. The hues are those of Okabe and Ito, which people with any kind
of colour vision tell apart; still, whatever a colour says, a number, a letter or a dash pattern says too.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from lab_utils.draw.table import Table
from lab_utils.draw.text import escape

ID = "\x00"  # stands for the drawing's own id until its content is known; cannot occur in cleaned text

LIGHT = {
    "ground": "#ffffff",
    "ink": "#1b1f24",
    "soft": "#57606a",
    "frame": "#8c959f",
    "node": "#f3f5f8",
    "pod": "#ffffff",
    "podline": "#8c959f",
    "bridge": "#cfe3f7",
    "bridgeline": "#0072b2",
    "stack": "#fff4d6",
    "stackline": "#a06f00",
    "tunnel": "#efe3f5",
    "tunnelline": "#8a4fa0",
    "link": "#e3e7ec",
    "linkline": "#57606a",
    "cable": "#6e7781",
    "lit1": "#c2410c",
    "lit2": "#0072b2",
    "lit3": "#00795a",
    "lit4": "#a8447c",
    "bad": "#b3002d",
    "onlit": "#ffffff",
}
DARK = {
    "ground": "#14181d",
    "ink": "#e8ecf1",
    "soft": "#a5afba",
    "frame": "#5b6673",
    "node": "#1d232a",
    "pod": "#2a323b",
    "podline": "#76828f",
    "bridge": "#17395a",
    "bridgeline": "#56b4e9",
    "stack": "#3d3212",
    "stackline": "#e0b040",
    "tunnel": "#3a2745",
    "tunnelline": "#c79ade",
    "link": "#333c46",
    "linkline": "#a5afba",
    "cable": "#8b96a2",
    "lit1": "#ff9a4d",
    "lit2": "#6cc1f2",
    "lit3": "#2fd0a0",
    "lit4": "#f09ac6",
    "bad": "#ff7a90",
    "onlit": "#14181d",
}
DASHES = ("", "9 4", "2 4", "12 4 2 4")
SANS = "system-ui, 'Segoe UI', 'DejaVu Sans', Helvetica, Arial, sans-serif"
MONO = "ui-monospace, 'DejaVu Sans Mono', Menlo, Consolas, monospace"


def _variables(colours: dict[str, str]) -> str:
    return ";".join(f"--{name}:{value}" for name, value in colours.items())


def _style() -> str:
    me = f"#{ID}"
    fills = "".join(f"{me} .{name}{{fill:{value};fill:var(--{name})}}" for name, value in LIGHT.items())
    strokes = "".join(f"{me} .s-{name}{{stroke:{value};stroke:var(--{name})}}" for name, value in LIGHT.items())
    return (
        f"{me}{{{_variables(LIGHT)}}}"
        f"@media (prefers-color-scheme:dark){{{me}{{{_variables(DARK)}}}}}"
        f'html[data-theme="light"] {me},[data-jp-theme-light="true"] {me}{{{_variables(LIGHT)}}}'
        f'html[data-theme="dark"] {me},[data-jp-theme-light="false"] {me}{{{_variables(DARK)}}}'
        f"@media print{{{me},html[data-theme] {me},[data-jp-theme-light] {me}{{{_variables(LIGHT)}}}"
        f"{me}{{max-height:94vh;min-width:0!important}}}}"  # on one page of paper, whole
        f"{me} text{{font-family:{SANS};fill:{LIGHT['ink']};fill:var(--ink)}}{me} .mono{{font-family:{MONO}}}"
        f"{me} .strong{{font-weight:600}}{me} .halo{{paint-order:stroke;stroke-width:4px;stroke-linejoin:round}}"
        f"{me} .none{{fill:none}}{me} .dim{{opacity:.45}}"
        f"{fills}{strokes}"
        + "".join(
            f"{me} text.{name}{{fill:{value};fill:var(--{name})}}"
            for name, value in LIGHT.items()
            if name in ("soft", "onlit", "bad") or name.startswith("lit")
        )
    )


@dataclass(frozen=True)
class Drawing:
    """A finished picture, with the same facts as a table."""

    svg: str
    table: Table
    title: str
    width: float

    def save(self, path: str | Path) -> Path:
        """Write the SVG. As a file it stands alone."""
        target = Path(path)
        target.write_text('<?xml version="1.0" encoding="UTF-8"?>\n' + self.svg + "\n", encoding="utf-8")
        return target

    @property
    def html(self) -> str:
        """The picture in the page's own colours, and the table behind a click. On a narrow screen the picture scrolls."""
        box = f"width:100%;max-width:{self.width:g}px;min-width:{min(self.width, 640):g}px;height:auto;display:block;margin:auto"
        svg = self.svg.replace("<svg ", f'<svg style="{box}" ', 1)
        return (
            '<figure class="lab-drawing" style="margin:1em 0">'
            f'<div style="overflow-x:auto">{svg}</div>'
            f'<details style="font-size:.85em"><summary>{escape(self.title)}: the same as a table</summary>'
            f'<div style="overflow-x:auto">{self.table.html()}</div></details></figure>'
        )

    def __str__(self) -> str:
        return f"{self.title}\n\n{self.table}"

    def _repr_mimebundle_(self, include: object = None, exclude: object = None) -> dict[str, str]:
        return {"text/html": self.html, "image/svg+xml": self.svg, "text/plain": str(self)}


class Canvas:
    """Collects SVG elements. Coordinates are pixels at the drawing's natural size."""

    def __init__(self) -> None:
        self.parts: list[str] = []

    @contextmanager
    def group(self, title: str = "", classes: str = "") -> Iterator[None]:
        """Things that belong together; `title` shows when the mouse rests on them."""
        self.parts.append(f"<g{_attributes(classes=classes)}>" + (f"<title>{_lines(title)}</title>" if title else ""))
        yield
        self.parts.append("</g>")

    def rect(self, x: float, y: float, w: float, h: float, classes: str, *, radius: float = 4, width: float = 1, dash: str = "") -> None:
        shape = f'x="{n(x)}" y="{n(y)}" width="{n(w)}" height="{n(h)}" rx="{n(radius)}"'
        self.parts.append(f'<rect {shape} stroke-width="{n(width)}"{_attributes(classes=classes, dash=dash)}/>')

    def line(self, points: list[tuple[float, float]], classes: str, *, width: float = 1.5, dash: str = "", arrow: str = "") -> None:
        where = " ".join(f"{n(x)},{n(y)}" for x, y in points)
        marker = f' marker-end="url(#{ID}-{arrow})"' if arrow else ""
        self.parts.append(
            f'<polyline points="{where}" stroke-width="{n(width)}" stroke-linejoin="round" stroke-linecap="round"'
            f"{_attributes(classes='none ' + classes, dash=dash)}{marker}/>"
        )

    def curve(self, x1: float, y1: float, x2: float, y2: float, classes: str, *, width: float = 1.5, dash: str = "") -> None:
        """From left to right, level at both ends."""
        bend = (x2 - x1) / 2
        shape = f"M{n(x1)},{n(y1)}C{n(x1 + bend)},{n(y1)} {n(x2 - bend)},{n(y2)} {n(x2)},{n(y2)}"
        self.parts.append(f'<path d="{shape}" stroke-width="{n(width)}"{_attributes(classes="none " + classes, dash=dash)}/>')

    def dot(self, x: float, y: float, classes: str, radius: float = 3, width: float = 1) -> None:
        self.parts.append(f'<circle cx="{n(x)}" cy="{n(y)}" r="{n(radius)}" stroke-width="{n(width)}"{_attributes(classes=classes)}/>')

    def text(self, x: float, y: float, words: str, classes: str = "", *, size: float = 11, anchor: str = "start") -> None:
        place = "" if anchor == "start" else f' text-anchor="{anchor}"'
        self.parts.append(f'<text x="{n(x)}" y="{n(y)}" font-size="{n(size)}"{place}{_attributes(classes=classes)}>{escape(words)}</text>')

    def upright(self, x: float, y: float, words: str, classes: str, *, size: float) -> None:
        """Text that runs downwards, its middle at (x, y)."""
        turn = f'transform="translate({n(x)} {n(y)}) rotate(90)"'
        self.parts.append(f'<text {turn} font-size="{n(size)}" text-anchor="middle"{_attributes(classes=classes)}>{escape(words)}</text>')

    @staticmethod
    def badge_width(words: str, size: float = 10) -> float:
        return max(17.0, 8 + len(words) * size * 0.66)

    def badge(self, x: float, y: float, words: str, classes: str, *, size: float = 10) -> None:
        """A number on a filled disc (a lozenge, if it is longer)."""
        wide = self.badge_width(words, size)
        self.rect(x - wide / 2, y - 8.5, wide, 17, f"{classes} s-ground", radius=8.5, width=1.5)
        self.text(x, y + size * 0.36, words, "onlit strong", size=size, anchor="middle")

    def finish(self, width: float, height: float, title: str, description: str, table: Table) -> Drawing:
        arrows = "".join(
            f'<marker id="{ID}-{name}" viewBox="0 0 8 8" refX="7" refY="4" orient="auto-start-reverse"'
            ' markerUnits="userSpaceOnUse" markerWidth="11" markerHeight="11">'
            f'<path d="M0,0L8,4L0,8z" class="{name}"/></marker>'
            for name in ("cable", "lit1", "lit2", "lit3", "lit4", "bad")
            if any(f"#{ID}-{name})" in part for part in self.parts)
        )
        body = (
            f'<title id="{ID}-title">{escape(title)}</title><desc id="{ID}-desc">{escape(description)}</desc>'
            f"<style>{_style()}</style>"
            + (f"<defs>{arrows}</defs>" if arrows else "")
            + f'<rect width="{n(width)}" height="{n(height)}" rx="6" class="ground"/>'
        ) + "".join(self.parts)
        mark = "lab-" + hashlib.sha256(body.encode()).hexdigest()[:10]
        svg = (
            f'<svg xmlns="http://www.w3.org/2000/svg" id="{ID}" viewBox="0 0 {n(width)} {n(height)}"'
            f' width="{n(width)}" height="{n(height)}" role="img" aria-labelledby="{ID}-title {ID}-desc">{body}</svg>'
        )
        return Drawing(svg.replace(ID, mark), table, title, width)


def n(value: float) -> str:
    """A number, always written the same way."""
    return f"{value:.2f}".rstrip("0").rstrip(".") if value != int(value) else str(int(value))


def _attributes(classes: str = "", dash: str = "") -> str:
    return (f' class="{classes}"' if classes else "") + (f' stroke-dasharray="{dash}"' if dash else "")


def _lines(text: str) -> str:
    """Hover text keeps its line breaks, without empty lines."""
    return "\n".join(escape(line) for line in text.split("\n") if line.strip())
