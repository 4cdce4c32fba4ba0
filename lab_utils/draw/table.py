"""A table of texts: the other form of a drawing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from lab_utils.draw.text import clean, escape


@dataclass(frozen=True)
class Table:
    headers: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]

    @classmethod
    def of(cls, headers: Sequence[str], rows: Sequence[Sequence[str]]) -> Table:
        return cls(tuple(headers), tuple(tuple(clean(cell) for cell in row) for row in rows))

    def __str__(self) -> str:
        lines = [self.headers, *self.rows]
        widths = [max(len(line[column]) for line in lines) for column in range(len(self.headers))]
        written = ["  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in lines]
        return "\n".join([written[0], "  ".join("-" * width for width in widths), *written[1:]])

    def html(self) -> str:
        head = "".join(f'<th scope="col">{escape(cell)}</th>' for cell in self.headers)
        body = "".join("<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in row) + "</tr>" for row in self.rows)
        return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"
