"""The same work on several nodes side by side."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

Item = TypeVar("Item")


def each(
    items: Iterable[Item], work: Callable[[Item], object], *, give_up: Callable[[Item], object] | None = None, leave: bool = False
) -> None:
    """An error of one is raised, and so is a Ctrl-C, but not before the others have ended: whoever cleans up must find nobody at work.

    `give_up` ends what takes long. With `leave` nobody waits: what they are at ends with the nodes that it is done on.
    """
    items = list(items)
    pool = ThreadPoolExecutor(max_workers=8)
    try:
        for done in [pool.submit(work, item) for item in items]:
            done.result()
    except BaseException:
        pool.shutdown(wait=False, cancel_futures=True)
        if give_up:
            for item in items:
                give_up(item)
        if not leave:
            pool.shutdown()
        raise
    pool.shutdown()
