"""The one place where this package runs a program.

Everything else asks for `run(argv)`; nothing uses a shell on the host, so no name or path can be
mistaken for one. Errors carry the command in a form that can be pasted into a terminal.
"""

from __future__ import annotations

import os
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lab_utils.errors import CommandFailed, HostLacks


@dataclass(frozen=True)
class Result:
    """What a program left behind: its two streams and its exit code."""

    stdout: str
    stderr: str
    code: int

    @property
    def ok(self) -> bool:
        return self.code == 0

    def __str__(self) -> str:
        return self.stdout

    def _repr_pretty_(self, printer: Any, cycle: bool) -> None:
        """In a notebook, a command's result reads as in a terminal."""
        ended = "" if self.ok else f"(ended with code {self.code})"
        printer.text("\n".join(part for part in (self.stdout.rstrip("\n"), self.stderr.rstrip("\n"), ended) if part))


def last_line(said: str) -> str:
    """The reason, as most programs give it."""
    lines = [line.strip() for line in said.splitlines() if line.strip()]
    return lines[-1].removeprefix("error: ") if lines else "it said nothing"


def run(
    argv: Sequence[str | Path],
    *,
    input: str | bytes | None = None,
    timeout: float | None = None,
    env: Mapping[str, str] | None = None,
    cwd: str | Path | None = None,
    check: bool = True,
) -> Result:
    """Run a program to its end and return what it said.

    `env` is added to our own environment. With `check`, a code other than 0 raises `CommandFailed`.
    A program that outlives `timeout` is ended together with its children and counts as code 124,
    the code that timeout(1) uses.
    """
    words = [str(word) for word in argv]
    data = input.encode() if isinstance(input, str) else input
    try:
        process = subprocess.Popen(
            words,
            stdin=subprocess.PIPE if data is not None else subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env={**os.environ, **env} if env else None,
            cwd=cwd,
            start_new_session=True,
        )
    except FileNotFoundError:
        raise HostLacks(f"the program {words[0]!r} is not on this machine", "Run `lab doctor` to see what to install") from None
    except PermissionError:
        raise HostLacks(f"the program {words[0]!r} may not be run by this user") from None
    try:
        out, err = process.communicate(data, timeout)
        code = process.returncode
    except subprocess.TimeoutExpired:
        end_group(process.pid)
        out, err = process.communicate()
        code = 124
        err += f"\nended after {timeout:g} s".encode()
    except BaseException:  # Ctrl-C: our child must not outlive us
        end_group(process.pid)
        process.wait()
        raise
    result = Result(out.decode(errors="replace"), err.decode(errors="replace"), code)
    if check and code != 0:
        raise CommandFailed(words, code, result.stdout, result.stderr)
    return result


# Go gives a handshake ten seconds (net/http, DefaultTransport), and kubectl has no option for more. Nothing was asked yet.
UNSENT = "TLS handshake timeout"


def run_kubectl(
    argv: Sequence[str | Path], *, patience: float, timeout: float, input: str | None, env: Mapping[str, str], check: bool
) -> Result:
    """`run`, for a kubectl whose API server may be on an emulated machine, where ten seconds are not always enough."""
    deadline = time.monotonic() + timeout
    said = run(argv, input=input, timeout=timeout, env=env, check=False)
    while not said.ok and UNSENT in said.stderr and patience > 1 and time.monotonic() < deadline:
        said = run(argv, input=input, timeout=timeout, env=env, check=False)
    if check and not said.ok:
        raise CommandFailed([str(word) for word in argv], said.code, said.stdout, said.stderr)
    return said


def follow(
    argv: Sequence[str | Path],
    on_line: Callable[[str], object],
    *,
    env: Mapping[str, str] | None = None,
    cwd: str | Path | None = None,
    end: Callable[[int], object] | None = None,
) -> int:
    """Run a program to its end and hand each line that it says, on either stream, to `on_line` at once. Returns its code.

    After a Ctrl-C its group of processes is killed; `end` does that with more care, and is told the group's number.
    """
    stop_if_ended()
    try:
        process = subprocess.Popen(
            [str(word) for word in argv],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env={**os.environ, **env} if env else None,
            cwd=cwd,
            start_new_session=True,
        )
    except FileNotFoundError:
        raise HostLacks(f"the program {str(argv[0])!r} is not on this machine", "Run `lab doctor` to see what to install") from None
    assert process.stdout is not None
    _followed.add(process)
    try:
        stop_if_ended()  # `end_all` may have come since, and seen no process of ours yet
        for line in process.stdout:
            on_line(line.decode(errors="replace").rstrip("\n"))
        return process.wait()
    except BaseException:  # Ctrl-C: our child must not outlive us
        (end or end_group)(process.pid)
        process.wait()
        raise
    finally:
        _followed.discard(process)
        process.stdout.close()


_followed: set[subprocess.Popen[bytes]] = set()
_ended = threading.Event()


def end_all() -> None:
    """End what other threads are at. Ctrl-C reaches only the main thread, which must not wait for a long build of another.

    What they follow is killed, and until `begin_again` they follow nothing new and get no further than their next `stop_if_ended`.
    """
    _ended.set()
    for process in list(_followed):
        end_group(process.pid)


def stop_if_ended() -> None:
    """For long work in a thread, at each of its steps: stops it as Ctrl-C would, had that reached this thread."""
    if _ended.is_set():
        raise KeyboardInterrupt


def begin_again() -> None:
    """After `end_all`, once its threads are gone."""
    _ended.clear()


def start(argv: Sequence[str | Path], *, log: Path, env: Mapping[str, str]) -> int:
    """Start a program that outlives us, in a session of its own, with both streams in a file. Returns its pid."""
    with log.open("ab") as out:
        process = subprocess.Popen(
            [str(word) for word in argv],
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=out,
            env=dict(env),
            start_new_session=True,
        )
    process.returncode = 0  # ours no more: without this, Popen would warn that it still runs
    return process.pid


def end_group(group: int) -> None:
    """Kill a process that was started in its own session, whose number this is, and all of its group."""
    try:
        os.killpg(group, signal.SIGKILL)
    except ProcessLookupError:
        pass
