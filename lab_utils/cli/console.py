"""Progress and tables as a terminal shows them: one line per step, with its seconds; plain lines where there is no terminal."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from rich.status import Status
    from rich.text import Text

GLANCE = 0.3  # seconds that a word about long work stays in the moving line at least, so that it can be read
HEARTBEAT = 30  # seconds of silence after which one is said where no line can move


class Console:
    """Draws `lab_utils.progress.Progress` on stderr, so that stdout stays what a script asked for.

    Steps may overlap and come from several threads; a terminal has one moving line, which then names them all.
    """

    def __init__(self) -> None:
        self.live = sys.stderr.isatty()
        self._lock = threading.Lock()
        self._active: list[str] = []
        self._status: Status | None = None
        self._now = ""
        self._changed = self._spoke = 0.0

    @contextmanager
    def step(self, what: str) -> Iterator[None]:
        start = time.monotonic()
        self._begin(what)
        try:
            yield
        except BaseException:
            self._end(what, "✗", "red", "")
            raise
        self._end(what, "✓", "green", f"({time.monotonic() - start:.1f} s)")

    def note(self, what: str) -> None:
        with self._lock:
            self._say(f"   {what}")

    def now(self, what: str) -> None:
        with self._lock:
            clock = time.monotonic()
            if self._status and clock - self._changed > GLANCE:
                self._now, self._changed = what, clock
                self._status.update(self._title())
            elif not self.live and clock - self._spoke > HEARTBEAT:
                self._say(f"   {what}")

    def _begin(self, what: str) -> None:
        with self._lock:
            self._active.append(what)
            if not self.live:
                self._say(f" • {what} …")
            elif self._status:
                self._status.update(self._title())
            else:
                from rich.console import Console as Terminal

                self._status = Terminal(stderr=True, highlight=False).status(self._title())
                self._status.start()

    def _end(self, what: str, mark: str, colour: str, took: str) -> None:
        with self._lock:
            self._active.remove(what)
            self._now = ""
            if self._status and self._active:
                self._status.update(self._title())
            elif self._status:
                self._status.stop()
                self._status = None
            line = click.style(f" {mark}", fg=colour) + f" {what} " + click.style(took, dim=True)
            self._say(line if self.live else click.unstyle(line).rstrip())

    def _title(self) -> Text:
        """One line: what does not fit is cut off, for a moving line that is wrapped leaves its other half behind."""
        import shutil

        from rich.text import Text

        title = Text(" · ".join(self._active) + " …").append(f"  {self._now}" if self._now else "", style="dim")
        title.truncate(shutil.get_terminal_size().columns - 4, overflow="ellipsis")
        return title

    def _say(self, line: str) -> None:
        """Above the moving line, where there is one."""
        self._spoke = time.monotonic()
        if self._status:
            from rich.text import Text

            self._status.console.print(Text.from_ansi(line))
        else:
            click.echo(line, err=True)


def table(headers: list[str], rows: list[list[str]]) -> str:
    """Columns as wide as their widest cell, as kubectl prints them."""
    widths = [max(len(line[i]) for line in [headers, *rows]) for i in range(len(headers))]
    return "\n".join("   ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in [headers, *rows])
