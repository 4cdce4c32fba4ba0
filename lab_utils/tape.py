"""A tape: commands that were run on machines once, with what they said and how long they took.

Most of the book is executed while it is built. What needs two bare machines, or what breaks them, is not: it is played from a tape, which
says so, and on what it was made.

    book/_tapes/01-kubeadm.yaml     the commands, and on which machine; written by hand
    book/_tapes/01-kubeadm.json     what they said; written by `python -m lab_utils.tape 01-kubeadm --cluster NAME`, and by nobody else

    tape = Tape.of("01-kubeadm")
    tape.play("init")               prints the command and what it said, as a terminal would have shown it

A tape whose commands are no longer those of its .yaml is refused, as is one whose machines were not bare when it began.
"""

from __future__ import annotations

import json
import re
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import yaml

from lab_utils.cli import finish
from lab_utils.errors import BadInput
from lab_utils.paths import repo_dir
from lab_utils.receipt import as_page, as_text, receipt

if TYPE_CHECKING:
    from lab_utils.cluster import Cluster

SECONDS = 240  # that one command may take; one that is meant to wait for nothing brings its own timeout(1)
COLOUR = re.compile(r"\x1b\[[0-9;]*m")  # what a terminal shows as colour, a page shows as letters
NAME = re.compile(r"\{\{(\w+)\}\}")


@dataclass(frozen=True)
class Cue:
    """One command of the script. What it says may be kept under a name, and put into later ones as {{NAME}}."""

    name: str
    machine: str
    run: str
    keep: str = ""


@dataclass(frozen=True)
class Take:
    """One command as it was run."""

    name: str
    machine: str
    run: str
    said: str
    code: int
    seconds: float


@dataclass(frozen=True)
class Tape:
    takes: tuple[Take, ...]
    receipt: tuple[tuple[str, str], ...]

    @classmethod
    def of(cls, name: str, root: Path | None = None) -> Tape:
        script, path = files(name, root)
        if not path.exists():
            raise BadInput(f"there is no tape {path.name}", f"Record it: python -m lab_utils.tape {name} --cluster NAME")
        data = json.loads(path.read_text())
        takes = tuple(Take(**take) for take in data["takes"])
        wanted = [(cue.name, cue.machine, cue.run) for cue in read_script(script)[1]]
        if data["script"] != [list(each) for each in wanted]:
            raise BadInput(
                f"{path.name} holds other commands than {script.name}", f"Record it again: python -m lab_utils.tape {name} --cluster NAME"
            )
        return cls(takes, tuple((key, value) for key, value in data["receipt"].items()))

    def take(self, name: str) -> Take:
        for take in self.takes:
            if take.name == name:
                return take
        raise BadInput(f"there is nothing named {name!r} on this tape", f"There is: {', '.join(take.name for take in self.takes)}")

    def play(self, name: str, *, leave_out: str = "") -> None:
        """Print it. Lines that match `leave_out` are left out, and three dots say so."""
        take = self.take(name)
        lines = take.run.strip().splitlines()
        print(f"root@{take.machine}:~# {lines[0]}")
        for line in lines[1:]:
            print(f"> {line}")
        for line in shorten(COLOUR.sub("", take.said).rstrip("\n").splitlines(), leave_out):
            print(line)
        ended = f", and ended with code {take.code}" if take.code else ""
        print(f"({'took' if take.seconds >= 1 else 'at once:'} {take.seconds:.1f} s{ended})")

    def __str__(self) -> str:
        return as_text(self.receipt)

    def _repr_mimebundle_(self, **_: Any) -> dict[str, str]:
        head = "Tape: what is played from it on this page was not executed while the page was built. It was recorded, in one run, on"
        return as_page(head, self.receipt)


def shorten(lines: Sequence[str], leave_out: str) -> list[str]:
    shown: list[str] = []
    for line in lines:
        if leave_out and re.search(leave_out, line):
            if not shown or shown[-1] != "…":
                shown.append("…")
        else:
            shown.append(line)
    return shown


def files(name: str, root: Path | None = None) -> tuple[Path, Path]:
    folder = (root or repo_dir()) / "book" / "_tapes"
    return folder / f"{name}.yaml", folder / f"{name}.json"


def read_script(path: Path) -> tuple[str, list[Cue]]:
    """The lab whose starting state the machines have, and the commands."""
    if not path.exists():
        raise BadInput(f"there is no script {path}")
    data = yaml.safe_load(path.read_text())
    cues = [Cue(each["name"], each["machine"], str(each["run"]).strip(), each.get("keep", "")) for each in data["takes"]]
    if twice := {cue.name for cue in cues if [other.name for other in cues].count(cue.name) > 1}:
        raise BadInput(f"{path.name}: several takes are named {', '.join(sorted(twice))}")
    return str(data["lab"]), cues


def fill(text: str, words: dict[str, str]) -> str:
    def put(match: re.Match[str]) -> str:
        if match[1] not in words:
            raise BadInput(f"a take asks for {match[0]}, which none before it has kept", f"There is: {', '.join(words)}")
        return words[match[1]]

    return NAME.sub(put, text)


def record(cluster: Cluster, cues: Sequence[Cue]) -> list[Take]:
    words = {node.name.upper(): node.ip for node in cluster.nodes}
    takes = []
    for cue in cues:
        command = fill(cue.run, words)
        begin = time.monotonic()
        # Both streams into one, in the order in which they were written, as on a terminal.
        done = cluster.node(cue.machine).run(
            f"exec 2>&1; export KUBECONFIG=/etc/kubernetes/admin.conf; cd /root\n{command}", timeout=SECONDS
        )
        takes.append(Take(cue.name, cue.machine, command, done.stdout, done.code, round(time.monotonic() - begin, 1)))
        if cue.keep:
            words[cue.keep] = done.stdout.strip()
    return takes


@click.command()
@click.argument("name")
@click.option("--cluster", "cluster_name", required=True, help="A cluster of bare nodes. They are made anew before, and after.")
def main(name: str, cluster_name: str) -> None:
    """Run the script of a tape on bare machines, and write down what they said."""
    from lab_utils.cluster import connect
    from lab_utils.labs.bare import find_api
    from lab_utils.labs.catalog import find_lab
    from lab_utils.labs.lifecycle import clean, prepare
    from lab_utils.labs.store import Store
    from lab_utils.labs.workspace import Workspace

    script, path = files(name)
    lab_name, cues = read_script(script)
    lab = find_lab(lab_name)
    with tempfile.TemporaryDirectory(prefix="lab-tape-") as folder:
        workspace = Workspace(lab.spec, lab.checks, connect(cluster_name), "tape", Store(lab.name, Path(folder)))
        clean(workspace)
        prepare(workspace)
        takes = record(workspace.cluster, cues)
        for take in takes:
            click.echo(f"{take.seconds:6.1f} s  code {take.code}  {take.name}")
        if not find_api(workspace.cluster):
            raise BadInput("there is no cluster at the end of this tape, so it cannot say on what it was made")
        made_on = dict(receipt(workspace.cluster).lines())
        written = [[cue.name, cue.machine, cue.run] for cue in cues]
        data = {"receipt": made_on, "script": written, "takes": [vars(take) for take in takes]}
        path.write_text(json.dumps(data, indent=1, ensure_ascii=False) + "\n")
        clean(workspace)


if __name__ == "__main__":
    finish(main, "python -m lab_utils.tape")
