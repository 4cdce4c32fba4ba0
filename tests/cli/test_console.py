"""Progress as people see it: every step is named when it begins and when it ends, also when several run at once."""

from __future__ import annotations

import os
import pty
import subprocess
import sys
import threading

import pytest

from lab_utils.cli.console import Console, table

TWO_AT_ONCE = """
import threading, time
from lab_utils.cli.console import Console
console, both = Console(), threading.Barrier(2)
def work(name):
    with console.step(name):
        both.wait()
        console.note(f"inside [{name}]")
        console.now(f"far [{name}] " + "x" * 500)
        time.sleep(0.5)
threads = [threading.Thread(target=work, args=(name,)) for name in ("compile", "unpack [x]")]
[thread.start() for thread in threads]; [thread.join() for thread in threads]
"""


def test_without_a_terminal_there_are_plain_lines(capsys: pytest.CaptureFixture[str]) -> None:
    console = Console()
    with console.step("Booting the nodes"):
        console.note("cp first")
    said = capsys.readouterr()
    assert said.out == ""
    first, second, third = said.err.splitlines()
    assert (first, second) == (" • Booting the nodes …", "   cp first")
    assert third.startswith(" ✓ Booting the nodes (")


def test_long_work_without_a_terminal_gives_a_sign_of_life_now_and_then(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    console = Console()
    with console.step("build"):
        for number in range(1000):
            console.now(f"{number} packages")
        assert capsys.readouterr().err == " • build …\n"
        monkeypatch.setattr("lab_utils.cli.console.HEARTBEAT", 0)
        console.now("1000 packages")
    assert "   1000 packages\n" in capsys.readouterr().err


def test_a_failed_step_is_marked(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(ValueError, match="no"), Console().step("kubeadm init"):
        raise ValueError("no")
    assert capsys.readouterr().err.splitlines()[-1] == " ✗ kubeadm init"


def test_steps_of_several_threads_share_one_terminal() -> None:
    leader, follower = pty.openpty()
    process = subprocess.Popen([sys.executable, "-c", TWO_AT_ONCE], stdin=follower, stdout=follower, stderr=follower)
    os.close(follower)
    pieces: list[bytes] = []

    def read() -> None:
        while True:
            try:
                pieces.append(os.read(leader, 65536))
            except OSError:  # the last holder of the other end is gone
                return

    reader = threading.Thread(target=read)
    reader.start()
    assert process.wait(60) == 0
    reader.join(10)
    os.close(leader)
    text = b"".join(pieces).decode()
    for expected in ("✓", "compile", "unpack [x]", "inside [compile]", "inside [unpack [x]]", "far ["):
        assert expected in text
    assert "x" * 100 not in text, "what does not fit on the moving line is cut off"
    assert "Traceback" not in text


def test_columns_are_as_wide_as_their_widest_cell() -> None:
    assert table(["NODE", "IP"], [["cp", "172.31.64.11"], ["w1", "-"]]) == "NODE   IP\ncp     172.31.64.11\nw1     -"
