"""Work on several nodes at once, and what becomes of it when one fails."""

from __future__ import annotations

import threading
import time

import pytest

from lab_utils.together import each


def test_all_are_at_work_at_once() -> None:
    meeting = threading.Barrier(3, timeout=10)
    each("abc", lambda _: meeting.wait())


def test_an_error_comes_out_when_the_others_have_ended() -> None:
    ended: list[str] = []
    begun = threading.Barrier(3, timeout=10)

    def work(item: str) -> None:
        begun.wait()
        if item == "a":
            raise ValueError("a broke")
        time.sleep(0.2)
        ended.append(item)

    with pytest.raises(ValueError, match="a broke"):
        each("abc", work)
    assert sorted(ended) == ["b", "c"]


def test_what_takes_long_is_ended() -> None:
    over = {item: threading.Event() for item in "ab"}

    def work(item: str) -> None:
        if item == "a":
            raise ValueError("a broke")
        assert over[item].wait(30)

    with pytest.raises(ValueError, match="a broke"):
        each("ab", work, give_up=lambda item: over[item].set())


def test_nobody_waits_for_what_ends_by_itself() -> None:
    over = threading.Event()

    def work(item: str) -> None:
        if item == "a":
            raise ValueError("a broke")
        over.wait(30)

    with pytest.raises(ValueError, match="a broke"):
        each("ab", work, leave=True)
    assert not over.is_set()
    over.set()
