"""The files of the image that lab 10's controller runs in, and programs run in them: a container without a runtime."""

from __future__ import annotations

import json
import os
import subprocess
import tarfile
from collections.abc import Collection, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from lab_utils import artifacts
from lab_utils.progress import Silent
from lab_utils.run import Result, run


def unpacked(folder: Path) -> Path:
    """The image's layers, one over the other. On a new machine the image is made first, which takes some ten seconds."""
    if os.geteuid() != 0:
        pytest.skip("a root folder of its own needs root")
    with tarfile.open(artifacts.image("ingress", Silent())) as archive:
        archive.extractall(folder, filter="tar")
    for layer in json.loads((folder / "manifest.json").read_text())[0]["Layers"]:
        with tarfile.open(folder / layer) as files:
            files.extractall(folder, filter="tar")
    folder.chmod(0o755)  # "/" for users other than root, too
    for name in ("dev", "proc", "tmp", "run"):
        (folder / name).mkdir(exist_ok=True)
    return folder


LAB = "10-load-balancing-and-ingress"
asked_for = pytest.mark.skipif(
    not {LAB, "all"} & set(os.environ.get("LAB_TEST_LABS", "").split(",")),
    reason=f"set LAB_TEST_LABS={LAB}: all of tests/ingress takes minutes",
)


class Container:
    """Programs in these files and in a network namespace. Whatever they leave running ends with `close`."""

    def __init__(self, root: Path, name: str) -> None:
        self.root, self.name = root, name
        self.started: list[subprocess.Popen[bytes]] = []
        run(["ip", "netns", "add", name])
        run(["ip", "-n", name, "link", "set", "lo", "up"])

    def words(self, command: Sequence[str]) -> list[str]:
        """A mount namespace of its own, so that /dev and /proc are there and go with the program; `exec`, so that it gets our signals."""
        enter = 'mount -t proc proc "$0/proc" && mount --bind /dev "$0/dev" && exec chroot "$0" "$@"'
        return ["ip", "netns", "exec", self.name, "unshare", "--mount", "sh", "-c", enter, str(self.root), *command]

    def run(self, command: Sequence[str], **more: Any) -> Result:
        return run(self.words(command), **{"check": False, "timeout": 180, **more})

    def start(self, command: Sequence[str], log: Path, **env: str) -> subprocess.Popen[bytes]:
        with log.open("wb") as out:
            words = self.words(["env", *(f"{key}={value}" for key, value in env.items()), *command])
            self.started.append(subprocess.Popen(words, stdout=out, stderr=out))
            return self.started[-1]

    def until_it_answers(self, url: str) -> None:
        """A server that was just started may not listen yet."""
        assert self.run(["timeout", "60", "sh", "-c", 'until curl -s "$0" > /dev/null; do sleep 0.1; done', url]).ok

    def kill(self, *, but: Collection[int] = ()) -> None:
        """Whatever runs in the namespace. A number in a file that some program left behind may be another program's by now."""
        for pid in map(int, run(["ip", "netns", "pids", self.name], check=False).stdout.split()):
            if pid not in but:
                with suppress(ProcessLookupError):
                    os.kill(pid, 9)

    def close(self) -> None:
        self.kill()
        for process in self.started:
            process.kill()
            process.wait()
        run(["ip", "netns", "del", self.name], check=False)
