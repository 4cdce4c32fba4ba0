"""A node that is a container: commands run by `docker exec`, with streams and exit code of their own.

By the command, which is there anyway because kind itself runs it, and not by the `docker` package: up to 7.2 that loses what a command says
as soon as it starts (docker-py issues 3332 and 2042), with exit code 0. A check that reads nothing where there is something would be worse
than one that fails.
"""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from time import monotonic

from lab_utils.cluster import NodeRecord
from lab_utils.errors import CommandFailed, Unhealthy
from lab_utils.providers.files import FilesByCommands
from lab_utils.run import Result, run

# What docker itself says when there is no process to speak for: then it is no answer of the command.
GONE = ("No such container", "is not running", "Cannot connect to the Docker daemon")
SPARE = 15  # seconds for docker itself beside the command's own time


class KindNode(FilesByCommands):
    """`access` of the record holds: container."""

    def __init__(self, record: NodeRecord) -> None:
        super().__init__(record)
        self.container = str(record.access["container"])

    def run(self, cmd: str | Sequence[str], *, timeout: float = 60, input: str | bytes | None = None, check: bool = False) -> Result:
        words = ["bash", "-c", cmd] if isinstance(cmd, str) else list(cmd)
        # The limit holds inside: a killed `docker exec` leaves its process running in the container.
        limit = ["timeout", "--kill-after=2", f"{timeout:g}"]
        begun = monotonic()
        said = run(
            ["docker", "exec", *(["--interactive"] if input is not None else []), self.container, *limit, *words],
            input=input,
            timeout=timeout + SPARE,
            check=False,
        )
        if said.code != 0 and monotonic() - begun >= timeout and said.code in (124, 137):
            said = Result(said.stdout, f"{said.stderr}\nended after {timeout:g} s", 124)
        elif said.code == 1 and said.stderr.startswith("Error") and any(sign in said.stderr for sign in GONE):
            raise Unhealthy(f"node {self.name} (container {self.container}) does not run", "Look at `lab status`; `lab up` starts it again")
        if check and not said.ok:
            line = cmd if isinstance(cmd, str) else shlex.join(cmd)
            raise CommandFailed(["lab", "ssh", self.name, "--", line], said.code, said.stdout, said.stderr)
        return said
