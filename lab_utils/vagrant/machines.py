"""The machines of one cluster, by the command `vagrant`. It is told where its files are; nothing of the user's own folders is used."""

from __future__ import annotations

import os
import platform
import shlex
import shutil
import signal
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from lab_utils.errors import HostLacks, LabError
from lab_utils.paths import repo_dir
from lab_utils.progress import Progress, Silent
from lab_utils.run import end_group, follow
from lab_utils.vagrant import says
from lab_utils.vagrant.says import Line

SNAPSHOT = "pristine"
LOCK_SECONDS = 180  # for another `vagrant` to tidy up
TIDY_SECONDS = 60  # for ours, after a Ctrl-C


class VagrantFailed(LabError):
    """A machine could not be made, started or reached. The log holds all that Vagrant said."""


@dataclass
class Machines:
    """`folder` holds settings.yaml, Vagrant's own notes (dot/) and the log."""

    folder: Path
    provider: str

    @property
    def log(self) -> Path:
        return self.folder / "vagrant.log"

    @property
    def environment(self) -> dict[str, str]:
        """With these in a shell, Vagrant's own commands work on this cluster's machines."""
        return {
            "VAGRANT_CWD": str(repo_dir() / "vagrant"),
            "VAGRANT_DOTFILE_PATH": str(self.folder / "dot"),
            "KIO_SETTINGS": str(self.folder / "settings.yaml"),
            "VAGRANT_DEFAULT_PROVIDER": self.provider,
            "VAGRANT_CHECKPOINT_DISABLE": "1",  # no call home for newer versions
        }

    def remember(self) -> None:
        """The variables in a file, for a shell: `. vagrant.env; vagrant status`."""
        lines = [f"export {name}={shlex.quote(value)}\n" for name, value in self.environment.items()]
        (self.folder / "vagrant.env").write_text("".join(lines))

    def up(self, name: str, progress: Progress, *, provision: bool = True) -> str:
        """Boot a machine; its host key, where it is provisioned."""
        words = ["up", name, f"--provider={self.provider}", "--provision" if provision else "--no-provision"]
        return says.host_key(self._do(words, progress, f"machine {name} could not be started"))

    @property
    def begun(self) -> bool:
        """Whether there can be machines. Before settings.yaml is written none is made, and the Vagrantfile cannot be read; where that file
        was lost, Vagrant's own notes still have their ids. (dot/ alone tells nothing: `vagrant status` makes it, too.)"""
        return (self.folder / "settings.yaml").exists() or any((self.folder / "dot" / "machines").glob("*/*/id"))

    def destroy(self, progress: Progress) -> None:
        if self.begun and (self.folder / "dot").is_dir():
            need_vagrant()
            self._do(["destroy", "--force"], progress, "the machines could not be removed", patient=True)

    def save(self, name: str, progress: Progress) -> None:
        self._do(["snapshot", "save", name, SNAPSHOT, "--force"], progress, f"no snapshot of {name} could be made")

    def restore(self, name: str, progress: Progress) -> None:
        words = ["snapshot", "restore", name, SNAPSHOT, "--no-provision"]
        self._do(words, progress, f"machine {name} could not be brought back to its snapshot")

    def states(self) -> dict[str, str]:
        return says.states(self._ask(["status"])) if self.begun else {}

    def boxes(self) -> list[says.Box]:
        return says.boxes(self._ask(["box", "list"]))

    def _ask(self, words: Sequence[str]) -> list[Line]:
        code, said, raw = self._vagrant(words, Silent())
        if code != 0:
            raise self._failure(f"`vagrant {words[0]}` failed", said, raw)
        return said

    def _do(self, words: Sequence[str], progress: Progress, problem: str, *, patient: bool = False) -> list[Line]:
        deadline = time.monotonic() + (LOCK_SECONDS if patient else 0)
        code, said, raw = self._vagrant(words, progress)
        while code != 0 and says.is_locked(said) and time.monotonic() < deadline:
            time.sleep(2)
            code, said, raw = self._vagrant(words, progress)
        if code != 0:
            for line in says.tail(said):
                progress.note(line)
            raise self._failure(problem, said, raw)
        return said

    def _vagrant(self, words: Sequence[str], progress: Progress) -> tuple[int, list[Line], list[str]]:
        said: list[Line] = []
        raw: list[str] = []
        self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        with self.log.open("a") as log:
            log.write(f"$ vagrant {' '.join(words)}\n")

            def on_line(text: str) -> None:
                found = says.line(text)
                if found is None:
                    raw.append(text)
                    log.write(text + "\n")
                    return
                said.append(found)
                if found.text:
                    log.write(f"{found.machine}: {found.text}\n" if found.machine else f"{found.text}\n")
                    log.flush()
                if note := says.worth_showing(found):
                    progress.note(note)

            code = follow([*_with_us(), "vagrant", *words, "--machine-readable"], on_line, env=self.environment, end=_interrupt)
        return code, said, raw

    def _failure(self, problem: str, said: list[Line], raw: list[str]) -> LabError:
        known = says.trouble(said, "\n".join(raw))
        if known:
            return VagrantFailed(f"{problem}: {known.what}", known.mend)
        return VagrantFailed(f"{problem}: {says.last_words(said, raw)}", f"All that was said is in the file {self.log.name}")


def _interrupt(group: int) -> None:
    """Vagrant takes back a machine that it is making when it is interrupted, and knows best how: it has a minute for that."""
    deadline = time.monotonic() + TIDY_SECONDS
    with suppress(ProcessLookupError, ChildProcessError):
        os.killpg(group, signal.SIGINT)
        while os.waitpid(group, os.WNOHANG) == (0, 0) and time.monotonic() < deadline:
            time.sleep(0.2)
    end_group(group)


def _with_us() -> list[str]:
    """Vagrant tidies up when it is interrupted. Where we die without a word, the kernel interrupts it for us."""
    return ["setpriv", "--pdeathsig=INT", "--"] if platform.system() == "Linux" and shutil.which("setpriv") else []


def need_vagrant() -> None:
    if not shutil.which("vagrant"):
        raise HostLacks("Vagrant is not installed", how_to_install())


def how_to_install() -> str:
    return "brew install --cask vagrant" if platform.system() == "Darwin" else "sudo apt-get install vagrant, or see vagrantup.com"
