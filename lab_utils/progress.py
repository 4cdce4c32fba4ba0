"""How long work tells what it is doing. Code that works takes a `Progress`; only the command line draws it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol


class Progress(Protocol):
    """A visible list of steps. `step` is entered while something is done; `note` refines the current line."""

    def step(self, what: str) -> StepContext: ...

    def note(self, what: str) -> None: ...


class StepContext(Protocol):
    def __enter__(self) -> object: ...

    def __exit__(self, *exc: object) -> bool | None: ...


class Silent:
    """Says nothing: for library use and for tests."""

    @contextmanager
    def step(self, what: str) -> Iterator[None]:
        yield

    def note(self, what: str) -> None:
        pass
