"""How results look: small HTML without widgets in a notebook, plain text at a terminal (pure).

Everything shown may come from a cluster or from a stranger's answer, so every value is escaped.
Colours are borders and words, never backgrounds: they stay readable in dark mode and on paper.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from html import escape
from typing import Any

from lab_utils.labs.outcome import CheckResult
from lab_utils.labs.spec import LabSpec

_SIGNS = {
    "passed": ("✔", "#2e9e4f"),
    "failed": ("✘", "#d1493f"),
    "skipped": ("–", "#8a8a8a"),
    "error": ("!", "#c77d0a"),
    "": ("·", "#8a8a8a"),
}
_BOX = "border-left:4px solid {colour};padding:.15em .8em;margin:.3em 0;line-height:1.45;max-width:60em"
_CELL = "text-align:left;padding:.1em 1em .1em 0;vertical-align:top"


class Shown:
    """Something with two faces. Jupyter takes the HTML, a terminal the text."""

    def text(self) -> str:
        raise NotImplementedError

    def html(self) -> str:
        raise NotImplementedError

    def _repr_mimebundle_(self, include: Any = None, exclude: Any = None) -> dict[str, str]:
        return {"text/plain": self.text(), "text/html": self.html()}

    def _repr_html_(self) -> str:
        return self.html()

    def __str__(self) -> str:
        return self.text()

    __repr__ = __str__


@dataclass(repr=False)
class Note(Shown):
    """A sentence or two."""

    message: str
    status: str = "passed"

    def text(self) -> str:
        return f"{_SIGNS[self.status][0]} {self.message}"

    def html(self) -> str:
        sign, colour = _SIGNS[self.status]
        return f'<div style="{_BOX.format(colour=colour)}"><b style="color:{colour}">{sign}</b> {_prose(self.message)}</div>'


@dataclass(repr=False)
class Report(Shown):
    """What checks came to. `points` are what counts on this cluster."""

    results: list[CheckResult]
    titles: dict[str, str] = field(default_factory=dict)
    note: str = ""

    @property
    def passed(self) -> bool:
        return all(result.passed for result in self.results)

    @property
    def earned(self) -> float:
        return sum(result.earned for result in self.results if result.counts)

    @property
    def points(self) -> float:
        return sum(result.points for result in self.results if result.counts)

    def _sum(self) -> str:
        return f"{number(self.earned)} of {number(self.points)} points"

    def text(self) -> str:
        lines = []
        for result in self.results:
            lines.append(f"{_SIGNS[result.status][0]} {result.step:<28} {number(result.earned)}/{number(result.points)}")
            lines += [f"    {word:<9} {_indented(said)}" for word, said in told(result)]
        if len(self.results) > 1:
            lines.append(self._sum())
        if self.note:
            lines.append(self.note)
        return "\n".join(lines)

    def html(self) -> str:
        parts = []
        for result in self.results:
            sign, colour = _SIGNS[result.status]
            title = self.titles.get(result.step, "")
            name = f"<b>{escape(result.step)}</b>" + (f" · {escape(title)}" if title and title != result.step.replace("-", " ") else "")
            head = f'<b style="color:{colour}">{sign}</b> {name} · {number(result.earned)}/{number(result.points)} {escape(result.status)}'
            rows = "".join(
                f'<tr><th style="{_CELL};font-weight:normal;opacity:.7">{word}</th>'
                f'<td style="{_CELL};white-space:pre-wrap;overflow-wrap:anywhere">{_prose(said)}</td></tr>'
                for word, said in told(result)
            )
            table = f'<table style="margin:.2em 0 0 1.2em">{rows}</table>' if rows else ""
            parts.append(f'<div style="{_BOX.format(colour=colour)}">{head}{table}</div>')
        if len(self.results) > 1:
            parts.append(f'<div style="margin:.4em 0"><b>{self._sum()}</b></div>')
        if self.note:
            parts.append(f'<div style="margin:.4em 0">{_prose(self.note)}</div>')
        return "".join(parts)


def told(result: CheckResult) -> list[tuple[str, str]]:
    """What there is to say about a result, in the order in which one reads it."""
    words = [("", result.message), ("expected", result.expected), ("seen", result.seen), ("look", result.look)]
    return [(word, said) for word, said in words if said]


@dataclass(repr=False)
class Table(Shown):
    columns: Sequence[str]
    rows: Sequence[Sequence[object]]
    title: str = ""
    note: str = ""

    def text(self) -> str:
        cells = [[str(column).upper() for column in self.columns], *([str(value) for value in row] for row in self.rows)]
        widths = [max(len(row[n]) for row in cells) for n in range(len(self.columns))]
        lines = ["   ".join(value.ljust(width) for value, width in zip(row, widths, strict=True)).rstrip() for row in cells]
        return "\n".join([*([self.title] if self.title else []), *lines, *([self.note] if self.note else [])])

    def html(self) -> str:
        head = "".join(f'<th style="{_CELL}">{escape(column)}</th>' for column in self.columns)
        rows = "".join("<tr>" + "".join(f'<td style="{_CELL}">{_prose(str(value))}</td>' for value in row) + "</tr>" for row in self.rows)
        title = f"<div><b>{escape(self.title)}</b></div>" if self.title else ""
        note = f"<div>{_prose(self.note)}</div>" if self.note else ""
        return f'{title}<table style="margin:.3em 0"><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table>{note}'


@dataclass(repr=False)
class Card(Shown):
    """A lab at a glance: what it is about, where it happens, what varies, what this cluster lacks and what that costs."""

    spec: LabSpec
    facts: list[tuple[str, str]]
    warnings: list[tuple[str, str]]
    notes: list[str]

    def text(self) -> str:
        lines = [f"{self.spec.name} · {self.spec.title} · {self.spec.minutes} minutes · {self.spec.points} points"]
        lines += [f"  {word:<10} {said}" for word, said in [*self.facts, *self.warnings]]
        return "\n".join([*lines, *(f"  note       {note}" for note in self.notes)])

    def html(self) -> str:
        colour = "#c77d0a" if self.warnings else "#3b7dd8"
        rows = "".join(
            f'<tr><th style="{_CELL};font-weight:normal;opacity:.7">{escape(word)}</th><td style="{_CELL}">{_prose(said)}</td></tr>'
            for word, said in [*self.facts, *self.warnings, *(("note", note) for note in self.notes)]
        )
        head = f"<b>{escape(self.spec.title)}</b> · {self.spec.minutes} minutes · {self.spec.points} points"
        return f'<div style="{_BOX.format(colour=colour)}">{head}<table style="margin:.2em 0">{rows}</table></div>'


def progress_table(spec: LabSpec, entries: dict[str, dict[str, Any]]) -> Table:
    """A lab's steps, and how far its learner is."""
    rows: list[list[object]] = []
    earned = points = 0.0
    for step in spec.steps:
        entry = entries.get(step.name, {})
        result = CheckResult.from_dict(entry["result"]) if entry.get("result") else None
        if result is None or result.counts:
            points += step.points
            earned += result.earned if result else 0
        status = result.status if result else ""
        best = f" (best {number(entry['best'])})" if entry.get("best", 0) > (result.earned if result else 0) else ""
        tries = entry.get("attempts", 0) + (status == "passed")
        rows.append(
            [
                _SIGNS[status][0],
                step.name,
                f"{number(result.earned) if result else '–'}/{step.points}{best}",
                tries or "",
                status or "not checked yet",
            ]
        )
    return Table(["", "step", "points", "tries", ""], rows, note=f"{number(earned)} of {number(points)} points")


def number(value: float) -> str:
    """2.0 is written 2."""
    return f"{value:.2f}".rstrip("0").rstrip(".")


def _prose(text: str) -> str:
    """Escaped text in which `words like this` are code."""
    parts = escape(text, quote=False).split("`")
    if len(parts) % 2 == 0:  # a lone backtick is only a backtick
        return "`".join(parts)
    return "".join(f"<code>{part}</code>" if n % 2 else part for n, part in enumerate(parts))


def _indented(text: str) -> str:
    return ("\n" + " " * 14).join(text.splitlines())
