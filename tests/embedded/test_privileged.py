"""Two processes talk through a pipe. Whatever ends the one, the other takes back what it began, and says so in one line."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from lab_utils.embedded import privileged
from lab_utils.errors import BadInput, HostLacks, LabError
from lab_utils.progress import Silent
from tests.conftest import Said

# The other side, with an operation of the test's own. Its clean-up is disturbed, says more than a pipe holds, and leaves a file.
ROOT = """
import errno, os, signal, sys, time
from pathlib import Path
from lab_utils.embedded import privileged
from lab_utils.errors import Unhealthy
from lab_utils.run import run

def work(request, progress):
    try:
        with progress.step("working"):
            progress.note("begun")
            run(["sleep", "60"])
    except BaseException:
        for number in 3 * [signal.SIGINT, signal.SIGTERM, signal.SIGHUP]:
            os.kill(os.getpid(), number)
        for _ in range(2000):
            progress.note("removing " + "x" * 60)
        time.sleep(0.2)
        Path(request["clean"]).touch()
        raise

def full(request, progress):
    raise OSError(errno.ENOSPC, "No space left on device", "/var/lib/somewhere")

def ill(request, progress):
    raise Unhealthy("the what", "the mend")

def wrong(request, progress):
    return {}["podIP"]

def killed(request, progress):
    os.kill(os.getpid(), signal.SIGKILL)

def overlapping(request, progress):
    build, install = progress.step("build"), progress.step("install")
    build.__enter__()
    install.__enter__()
    install.__exit__(None, None, None)
    progress.now("still building")
    if request.get("fail"):
        raise Unhealthy("it failed", "")
    build.__exit__(None, None, None)
    return {}

def answer(request, progress):
    progress.note("a note")
    return request

privileged.table = lambda: {each.__name__: each for each in (work, full, ill, killed, wrong, answer, overlapping)}
privileged.main()
"""
WORDS = [sys.executable, "-c", ROOT]


def appears(file: Path) -> None:
    deadline = time.monotonic() + 30
    while not file.exists():
        assert time.monotonic() < deadline, "it went on"
        time.sleep(0.05)


def ask(operation: str, said: Said | Silent | None = None, **request: str) -> dict[str, str]:
    return privileged._converse(WORDS, {"operation": operation, "request": request}, said or Silent())


def test_an_answer_comes_back_as_it_was_given(capsys: pytest.CaptureFixture[str]) -> None:
    assert ask("answer", Said(), word="ä") == {"word": "ä"}
    assert capsys.readouterr().out == "  a note\n"


def test_an_error_is_the_same_on_this_side() -> None:
    with pytest.raises(LabError, match=r"the what\. the mend") as caught:
        ask("ill")
    assert caught.value.exit_code == 1


def test_a_full_disk_is_one_line_that_names_the_file() -> None:
    with pytest.raises(HostLacks) as caught:
        ask("full")
    assert str(caught.value) == "No space left on device: /var/lib/somewhere"


def test_an_end_without_an_answer_is_not_taken_for_sudos_no() -> None:
    with pytest.raises(LabError, match="ended with code -9 and without an answer"):
        ask("killed")


def test_an_error_of_ours_is_not_taken_for_sudos_no_either(capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(LabError, match="ended with code 70 and without an answer"):
        ask("wrong")
    assert "KeyError: 'podIP'" in capfd.readouterr().err


def test_a_no_of_sudo_is_said_however_early_it_comes() -> None:
    with pytest.raises(HostLacks, match="sudo did not let the command run"):
        privileged._converse(["false"], {"operation": "answer", "request": {"long": "x" * 100_000}}, Silent())


class Drawn(Silent):
    def __init__(self) -> None:
        self.lines: list[str] = []

    @contextmanager
    def step(self, what: str) -> Iterator[None]:
        self.lines.append(f"begin {what}")
        try:
            yield
        except BaseException:
            self.lines.append(f"failed {what}")
            raise
        self.lines.append(f"end {what}")

    def now(self, what: str) -> None:
        self.lines.append(what)


def test_steps_side_by_side_end_one_by_one() -> None:
    drawn = Drawn()
    privileged._converse(WORDS, {"operation": "overlapping", "request": {}}, drawn)
    assert drawn.lines == ["begin build", "begin install", "end install", "still building", "end build"]


def test_of_steps_side_by_side_the_one_fails_that_was_at_work() -> None:
    drawn = Drawn()
    with pytest.raises(LabError, match="it failed"):
        privileged._converse(WORDS, {"operation": "overlapping", "request": {"fail": "yes"}}, drawn)
    assert drawn.lines == ["begin build", "begin install", "end install", "still building", "failed build"]


class Interrupted(Silent):
    """A Ctrl-C as soon as the other side has begun, and perhaps more while it cleans up."""

    def __init__(self, times: int) -> None:
        self.times = times
        self.heard: list[str] = []

    def note(self, what: str) -> None:
        self.heard.append(what)
        if self.times and what.startswith(("begun", "removing")):
            self.times -= 1
            raise KeyboardInterrupt


def test_an_interruption_waits_for_the_clean_up_and_passes_on_what_that_says(tmp_path: Path) -> None:
    progress = Interrupted(1)
    with pytest.raises(KeyboardInterrupt):
        ask("work", progress, clean=str(tmp_path / "clean"))
    assert (tmp_path / "clean").exists()
    assert len(progress.heard) == 2001


def test_a_second_one_is_told_what_is_waited_for(tmp_path: Path) -> None:
    progress = Interrupted(2)
    with pytest.raises(KeyboardInterrupt):
        ask("work", progress, clean=str(tmp_path / "clean"))
    assert (tmp_path / "clean").exists()
    assert "what was begun is being taken back; once more, and that goes on by itself" in progress.heard


ASKING = f"""
import signal, sys
signal.signal(signal.SIGHUP, signal.SIG_DFL)  # ignored where the suite was started by nohup
from lab_utils.embedded import privileged
request = {{"operation": "work", "request": {{"clean": sys.argv[1]}}}}
privileged._converse([sys.executable, "-c", {ROOT!r}], request, privileged.Told())
"""


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM, signal.SIGHUP])
def test_whatever_ends_the_users_process_the_other_side_cleans_up(how: signal.Signals, tmp_path: Path) -> None:
    words = [sys.executable, "-c", ASKING, str(tmp_path / "clean")]
    with subprocess.Popen(words, stdout=subprocess.PIPE, start_new_session=True) as process:
        assert process.stdout
        while b"begun" not in process.stdout.readline():
            assert process.poll() is None
        process.send_signal(how)
    appears(tmp_path / "clean")


class Heard(Silent):
    def __init__(self) -> None:
        self.notes: list[str] = []

    def note(self, what: str) -> None:
        self.notes.append(what)


def test_the_way_leads_through_sudo(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A `sudo` that lets everybody through, and says what it was asked for."""
    sudo = tmp_path / "bin/sudo"
    sudo.parent.mkdir()
    sudo.write_text(f'#!/bin/sh\necho "$*" >> {tmp_path}/asked\nuntil [ "$1" = -- ]; do shift; done\nshift; exec "$@"\n')
    sudo.chmod(0o755)
    monkeypatch.setenv("PATH", f"{sudo.parent}:{os.environ['PATH']}")
    monkeypatch.setenv("LAB_STATE", str(tmp_path / "state"))
    monkeypatch.setenv("https_proxy", "http://me:secret@proxy.example")
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    heard = Heard()
    for _ in range(2):
        assert privileged.perform("status", {"name": "nobodys"}, heard) == {"nodes": [], "made": {}}
    assert heard.notes == [f"root is needed for {privileged.WHY}: by sudo"], "once is enough"
    asked = (tmp_path / "asked").read_text()
    assert f"password for %p (root is needed for {privileged.WHY}): " in asked, "a command that shows no progress is asked for one, too"
    assert "-B -P -m lab_utils.embedded.privileged" in asked and "secret" not in asked
    (tmp_path / "state/root/damaged").mkdir(parents=True)
    (tmp_path / "state/root/damaged/state.json").write_text("{")
    with pytest.raises(BadInput, match=str(tmp_path)):  # LAB_STATE holds on the other side, too
        privileged.perform("status", {"name": "damaged"}, heard)
