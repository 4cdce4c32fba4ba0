"""The one door to root: namespaces, mounts and control groups need it, and nothing else of `lab` does.

As root, an operation is simply called. As a user, it runs in a second process behind sudo, which is told on its
standard input what to do and answers line by line in JSON: {"step": …}, {"note": …}, {"now": …}, {"done": …}, at last
{"result": …} or {"error": …}. It writes below /var/lib and /var/cache only, never in a home.

Its standard input stays open until it has answered. A user cannot signal what runs behind sudo; but whatever ends the
user's process (Ctrl-C, `timeout`, CI, kill -9) closes that pipe, and then the other side takes back what it began.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import traceback
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

from lab_utils import errors
from lab_utils.errors import HostLacks, LabError
from lab_utils.paths import cache_dir
from lab_utils.progress import Progress

# The nodes' files get their modes from it: a `/` that only root may pass is none that a Pod's user could live with.
UMASK = 0o022

WHY = "making Linux namespaces, mounts and control groups for the nodes"


def perform(operation: str, request: dict[str, Any], progress: Progress) -> dict[str, Any]:
    """Run one of `operations.OPERATIONS` (or "prepare") as root."""
    request = {"asked_by": asking(), **request}
    if os.geteuid() == 0:
        before = os.umask(UMASK)
        try:
            answer: dict[str, Any] = table()[operation](request, progress)
        finally:
            os.umask(before)
        return answer
    if not shutil.which("sudo"):
        raise HostLacks(f"this needs root ({WHY}) and there is no sudo", "Run `lab` as root, or use another provider: lab doctor")
    passed = {key: value for key, value in os.environ.items() if key.startswith(("LAB_", "GO", "PIP_")) or key.lower().endswith("_proxy")}
    if not passed.get("LAB_CACHE"):
        passed["XDG_CACHE_HOME"] = str(cache_dir().parent)  # the user's own cache; what root adds to it is given back to the user
    passed.update({key: str(Path(passed[key]).expanduser().absolute()) for key in ("LAB_CACHE", "LAB_STATE") if passed.get(key)})
    passed["PATH"] = os.environ["PATH"]
    _say_why(progress)
    words = [
        "sudo",
        f"--prompt=[sudo] password for %p (root is needed for {WHY}): ",
        "--",
        sys.executable,
        "-B",  # no byte code: __pycache__ beside the sources, in the user's checkout, would belong to root
        "-P",  # no modules from the current folder: what lies there may be anybody's, and would run as root
        "-m",
        "lab_utils.embedded.privileged",
    ]
    # Not on the command line, which sudo logs and everybody can read: a proxy's address may have a password in it.
    return _converse(words, {"operation": operation, "request": request, "environment": passed}, progress)


_told: list[Progress] = []


def _say_why(progress: Progress) -> None:
    """Once, where this can be heard at all; who is asked for a password reads it again there."""
    if not any(progress is one for one in _told):
        _told.append(progress)
        progress.note(f"root is needed for {WHY}: by sudo")


def asking() -> list[int]:
    """Whose clusters may be touched: one's own, and behind `sudo lab` also those of whoever typed it."""
    behind_sudo = os.environ.get("SUDO_UID", "") if os.geteuid() == 0 else ""
    return [os.getuid(), *([int(behind_sudo)] if behind_sudo.isdigit() else [])]


def table() -> dict[str, Any]:
    from lab_utils.embedded.operations import OPERATIONS

    return dict(OPERATIONS)


def _converse(words: list[str], message: dict[str, Any], progress: Progress) -> dict[str, Any]:
    with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdin and process.stdout
        try:
            with suppress(BrokenPipeError):  # it has ended already, and said why
                process.stdin.write(json.dumps(message) + "\n")
                process.stdin.flush()
            with ExitStack() as steps:  # they may overlap
                opened: dict[str, list[ExitStack]] = {}
                for line in process.stdout:
                    said = json.loads(line)
                    if "step" in said:
                        one = steps.enter_context(ExitStack())
                        one.enter_context(progress.step(said["step"]))
                        opened.setdefault(said["step"], []).append(one)
                    elif "done" in said:
                        opened[said["done"]].pop().close()
                    elif "note" in said:
                        progress.note(said["note"])
                    elif "now" in said:
                        progress.now(said["now"])
                    elif "error" in said:
                        kind = getattr(errors, said["error"], LabError)
                        raise rebuilt(kind, said)
                    elif "result" in said:
                        return dict(said["result"])
        finally:
            try:
                _hang_up(process, progress)
            except KeyboardInterrupt:  # `timeout` sends its signal twice, and whoever is impatient another Ctrl-C
                progress.note("what was begun is being taken back; once more, and that goes on by itself")
                _hang_up(process, progress)
    if process.returncode != 1:  # which is sudo's own no
        what = f"the part of this command that is root ended with code {process.returncode} and without an answer"
        raise LabError(what, "Try again; the lines above may say why")
    raise HostLacks("sudo did not let the command run", "Ask whoever administers this machine, or use another provider: lab doctor")


def _hang_up(process: subprocess.Popen[str], progress: Progress) -> None:
    """Say that nothing more is wanted, and wait until the other side has ended. One that was at work cleans up, and tells of it: not
    read, that would fill the pipe and never end."""
    assert process.stdin and process.stdout
    with suppress(BrokenPipeError):
        process.stdin.close()
    for line in process.stdout:
        with suppress(ValueError):  # the interruption may have torn a line
            if note := json.loads(line).get("note"):
                progress.note(note)
    process.wait()


def rebuilt(kind: type[LabError], said: dict[str, Any]) -> LabError:
    """The same error on this side. Those with a constructor of their own become their plain parent, with their exit code."""
    error = LabError(said["what"], said["mend"])
    if kind.__init__ is LabError.__init__:
        return kind(said["what"], said["mend"])
    error.exit_code = kind.exit_code
    return error


class Told:
    """Progress as lines of JSON."""

    @contextmanager
    def step(self, what: str) -> Iterator[None]:
        _say(step=what)
        yield
        _say(done=what)

    def note(self, what: str) -> None:
        _say(note=what)

    def now(self, what: str) -> None:
        _say(now=what)


_one_line = threading.Lock()


def _say(**words: Any) -> None:
    try:
        with _one_line:  # steps of several threads
            print(json.dumps(words), flush=True)
    except BrokenPipeError:  # nobody listens any more
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def main() -> None:
    for number in STOPPING:
        if signal.getsignal(number) != signal.SIG_IGN:  # as for `nohup lab up &`
            signal.signal(number, _stop)
    os.umask(UMASK)
    try:
        message = json.loads(sys.stdin.readline())
        os.environ.update(message.get("environment", {}))
        threading.Thread(target=_listen, daemon=True).start()
        _say(**_answer(message))
    except KeyboardInterrupt:
        sys.exit(130)
    except Exception:
        traceback.print_exc()
        sys.exit(os.EX_SOFTWARE)  # Python's own 1 is also sudo's, when it does not let anything run


def _answer(message: dict[str, Any]) -> dict[str, Any]:
    try:
        return {"result": table()[message["operation"]](message["request"], Told())}
    except LabError as error:
        return {"error": type(error).__name__, "what": error.what, "mend": error.mend}
    except OSError as error:  # a full disk, a file that may not be written: the system's own words, and which file
        return {"error": "HostLacks", "what": f"{error.strerror or error}{f': {error.filename}' if error.filename else ''}", "mend": ""}
    finally:
        _go_on()  # whoever has the answer hangs up


STOPPING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def _stop(*_: object) -> None:
    """Once. A Ctrl-C, or a terminal that is closed, reaches us by itself, through sudo, and as the end of our input: the others must
    not stop the clean-up."""
    _go_on()
    raise KeyboardInterrupt


def _go_on() -> None:
    for number in STOPPING:
        signal.signal(number, lambda *_: None)


def _listen() -> None:
    """Until whoever asked is gone. By read(2): a thread that holds sys.stdin would be in the way when Python ends."""
    while os.read(sys.stdin.fileno(), 4096):
        pass
    os.kill(os.getpid(), signal.SIGTERM)


if __name__ == "__main__":
    main()
