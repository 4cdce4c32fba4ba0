"""Everything that can go wrong and that a person can mend, as one small tree.

    LabError                     exit 2: one clear line, then what to do about it
    ├── BadInput                 a name, a file or an option that cannot be right
    │   └── ParseError           a text in which one line cannot be right; names the line
    ├── HostLacks                this machine misses something (root, a kernel module, space)
    ├── Busy                     another `lab` command works on the same thing
    ├── NoSuchCluster            nothing of that name is known here
    ├── NoNodeAccess             the nodes of this cluster are out of reach; a check that needs them is skipped
    ├── ArtifactFailed           a download, build or image that did not come out right
    ├── CommandFailed            a program that we ran ended badly; carries the pasteable command
    └── Unhealthy                exit 1: the cluster is there but does not do what it should

Code below the command line raises these and never prints; `lab_utils.cli` prints them once, at the top.
"""

from __future__ import annotations

import shlex
from collections.abc import Sequence


class LabError(Exception):
    """Something a person can mend. `what` says what is wrong and where; `mend` says what to do."""

    exit_code = 2

    def __init__(self, what: str, mend: str = "") -> None:
        super().__init__(what)
        self.what = what
        self.mend = mend

    def __str__(self) -> str:
        return f"{self.what}. {self.mend}" if self.mend else self.what

    def _render_traceback_(self) -> list[str]:
        """IPython asks for this: in a notebook, too, a person reads one line and not a traceback."""
        return [f"lab: {self}"]


class BadInput(LabError):
    """What was typed, or a file that was given, cannot be right."""


class ParseError(BadInput, ValueError):
    """A text that cannot be read. `line` counts from 1, as editors do; 0 means the text as a whole."""

    def __init__(self, what: str, line: int = 0, mend: str = "") -> None:
        super().__init__(f"line {line}: {what}" if line else what, mend)
        self.line = line


class HostLacks(LabError):
    """This machine misses something that the work needs."""


class Busy(LabError):
    """Another command is at work on the same cluster, cache or lab."""


class NoSuchCluster(LabError):
    """No cluster of that name is recorded on this machine."""


class NoNodeAccess(LabError):
    """The cluster is used through its API alone, and what was asked for is on a node."""


class ArtifactFailed(LabError):
    """A binary, an image or a node root could not be had in any of its ways."""


class CommandFailed(LabError):
    """A program ended with another code than 0. The command is given so that it can be pasted."""

    def __init__(self, argv: Sequence[str], code: int, stdout: str, stderr: str) -> None:
        said = (stderr.strip() or stdout.strip()).splitlines()
        last = said[-1] if said else "it said nothing"
        super().__init__(f"`{shlex.join(argv)}` ended with code {code}: {last}")
        self.argv = list(argv)
        self.code = code
        self.stdout = stdout
        self.stderr = stderr


class Unhealthy(LabError):
    """The cluster exists, but a part of it does not work."""

    exit_code = 1
