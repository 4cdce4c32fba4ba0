"""How long work tells what it is doing. Code that works takes a `Progress`; only the command line draws it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Protocol


class Progress(Protocol):
    """A visible list of steps. `step` is entered while something is done; `note` says something beside it, which stays.

    `now` says how far long work has come; the next such word takes its place.
    """

    def step(self, what: str) -> AbstractContextManager[None]: ...

    def note(self, what: str) -> None: ...

    def now(self, what: str) -> None: ...


class Silent:
    """Says nothing: for library use and for tests."""

    @contextmanager
    def step(self, what: str) -> Iterator[None]:
        yield

    def note(self, what: str) -> None:
        pass

    def now(self, what: str) -> None:
        pass
