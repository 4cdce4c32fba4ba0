"""The one door to root: namespaces, mounts and control groups need it, and nothing else of `lab` does.

As root, an operation is simply called. As a user, it runs in a second process behind sudo, which is told on its
standard input what to do and answers line by line in JSON: {"step": …}, {"note": …}, {"now": …}, {"done": …}, at last
{"result": …} or {"error": …}. It writes below /var/lib and /var/cache only, never in a home.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

from lab_utils import errors
from lab_utils.errors import HostLacks, LabError
from lab_utils.paths import cache_dir
from lab_utils.progress import Progress

WHY = "making Linux namespaces, mounts and control groups for the nodes"


def perform(operation: str, request: dict[str, Any], progress: Progress) -> dict[str, Any]:
    """Run one of `operations.OPERATIONS` (or "prepare") as root."""
    if os.geteuid() == 0:
        answer: dict[str, Any] = table()[operation](request, progress)
        return answer
    if not shutil.which("sudo"):
        raise HostLacks(f"this needs root ({WHY}) and there is no sudo", "Run `lab` as root, or use another provider: lab doctor")
    passed = {key: value for key, value in os.environ.items() if key.startswith(("LAB_", "GO")) or key.lower().endswith("_proxy")}
    passed["XDG_CACHE_HOME"] = str(cache_dir().parent)  # the user's own cache; what root adds to it is given back to the user
    passed["PATH"] = os.environ["PATH"]
    if subprocess.run(["sudo", "-n", "true"], capture_output=True).returncode != 0:
        progress.note(f"sudo may ask for your password: root is needed for {WHY}")
    words = [
        "sudo",
        "--",
        "env",
        *(f"{key}={value}" for key, value in passed.items()),
        sys.executable,
        "-B",  # no byte code: __pycache__ beside the sources, in the user's checkout, would belong to root
        "-m",
        "lab_utils.embedded.privileged",
    ]
    return _converse(words, {"operation": operation, "request": request}, progress)


def table() -> dict[str, Any]:
    from lab_utils.embedded.operations import OPERATIONS

    return dict(OPERATIONS)


def _converse(words: list[str], message: dict[str, Any], progress: Progress) -> dict[str, Any]:
    process = subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdin and process.stdout
    try:
        process.stdin.write(json.dumps(message))
        process.stdin.close()
        with ExitStack() as steps:
            for line in process.stdout:
                said = json.loads(line)
                if "step" in said:
                    steps.enter_context(progress.step(said["step"]))
                elif "done" in said:
                    steps.pop_all().close()
                elif "note" in said:
                    progress.note(said["note"])
                elif "now" in said:
                    progress.now(said["now"])
                elif "error" in said:
                    kind = getattr(errors, said["error"], LabError)
                    raise rebuilt(kind, said)
                elif "result" in said:
                    return dict(said["result"])
    except KeyboardInterrupt:
        process.wait()  # it got the Ctrl-C as well, and cleans up
        raise
    finally:
        process.wait()
    raise HostLacks("sudo did not let the command run", "Ask whoever administers this machine, or use another provider: lab doctor")


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


def _say(**words: Any) -> None:
    print(json.dumps(words), flush=True)


def main() -> None:
    message = json.load(sys.stdin)
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        _say(result=table()[message["operation"]](message["request"], Told()))
    except LabError as error:
        _say(error=type(error).__name__, what=error.what, mend=error.mend)
    except KeyboardInterrupt:
        sys.exit(130)


if __name__ == "__main__":
    main()
