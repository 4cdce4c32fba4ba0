"""Progress and tables as a terminal shows them: one line per step, with its seconds; plain lines where there is no terminal."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

import click


class Console:
    """Draws `lab_utils.progress.Progress` on stderr, so that stdout stays what a script asked for."""

    def __init__(self) -> None:
        self.live = sys.stderr.isatty()

    @contextmanager
    def step(self, what: str) -> Iterator[None]:
        start = time.monotonic()
        if not self.live:
            click.echo(f" • {what} …", err=True)
            yield
            click.echo(f" ✓ {what} ({time.monotonic() - start:.1f} s)", err=True)
            return
        from rich.console import Console as Rich

        rich = Rich(stderr=True)
        with rich.status(f"{what} …") as self._status:
            try:
                yield
            except BaseException:
                rich.print(f" [red]✗[/red] {what}", highlight=False)
                raise
        rich.print(f" [green]✓[/green] {what} [dim]({time.monotonic() - start:.1f} s)[/dim]", highlight=False)

    def note(self, what: str) -> None:
        click.echo(f"   {what}", err=True)


def table(headers: list[str], rows: list[list[str]]) -> str:
    """Columns as wide as their widest cell, as kubectl prints them."""
    widths = [max(len(line[i]) for line in [headers, *rows]) for i in range(len(headers))]
    return "\n".join("   ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in [headers, *rows])
