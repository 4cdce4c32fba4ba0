"""Following a program, and ending what other threads follow."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from lab_utils.run import begin_again, end_all, follow, stop_if_ended


@pytest.fixture(autouse=True)
def not_ended() -> Iterator[None]:
    yield
    begin_again()


def test_a_program_is_followed_line_by_line_on_both_streams_to_its_code() -> None:
    said: list[str] = []
    assert follow(["sh", "-c", "echo one; echo two >&2; exit 3"], said.append) == 3
    assert said == ["one", "two"]


def test_what_another_thread_follows_can_be_ended() -> None:
    begun = threading.Event()
    with ThreadPoolExecutor(1) as pool:
        code = pool.submit(follow, ["sh", "-c", "echo begun; sleep 60"], lambda line: begun.set())
        assert begun.wait(30)
        end_all()
        assert code.result(30) == -9


def test_what_was_ended_follows_nothing_new_until_it_may_begin_again(tmp_path: Path) -> None:
    end_all()
    with pytest.raises(KeyboardInterrupt):
        follow(["touch", tmp_path / "made"], print)
    with pytest.raises(KeyboardInterrupt):
        stop_if_ended()
    assert not (tmp_path / "made").exists()
    begin_again()
    stop_if_ended()
    assert follow(["touch", tmp_path / "made"], print) == 0
    assert (tmp_path / "made").exists()
