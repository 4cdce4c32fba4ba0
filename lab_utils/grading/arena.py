"""What one submission runs against: a cluster in its pristine state, or no cluster at all.

The unit (`unit.py`) knows this protocol only, so that it does not matter to it where clusters come from.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Protocol

from lab_utils.cluster import Cluster, ClusterRecord
from lab_utils.errors import Unhealthy
from lab_utils.grading.gateway import Gateway
from lab_utils.grading.sandbox import HOME, Door
from lab_utils.labs.workspace import Workspace
from lab_utils.run import Result

RECORD = f"{HOME}/.lab/cluster.json"
NO_CLUSTER = "none"


@dataclass
class Access:
    """What the sandbox is given: files in it, programs of the host shown in it, doors to the cluster."""

    files: dict[str, str] = field(default_factory=dict)
    shown: dict[str, Path] = field(default_factory=dict)
    doors: Sequence[Door] = ()
    gateways: list[Gateway] = field(default_factory=list)

    def close(self) -> None:
        for gateway in self.gateways:
            gateway.close()


class Arena(Protocol):
    """Entered before a submission and left after it, whatever happened in between."""

    cluster: Cluster

    def enter(self, lab: Workspace) -> Access:
        """Bring the cluster to the lab's starting state, verify that, and give limited access to it."""

    def leave(self, lab: Workspace) -> list[str]:
        """Take the access back, clean up, and say what of the cluster outside of the lab is not as it was."""


class NoArena:
    """For labs that ask for answers only. There is a record, so that the notebook's first lines work, but nothing behind it."""

    def __init__(self) -> None:
        record = ClusterRecord(NO_CLUSTER, NO_CLUSTER, "up", "/dev/null", [], kubectl=f"{HOME}/bin/kubectl")
        self.cluster: Cluster = _Nothing(record, [])

    def enter(self, lab: Workspace) -> Access:
        script = "#!/bin/sh\necho '{}'\n"  # `kubectl config view` is asked for when a lab is opened
        return Access({RECORD: json.dumps(asdict(self.cluster.record)), f"{HOME}/bin/kubectl": script})

    def leave(self, lab: Workspace) -> list[str]:
        return []


class _Nothing(Cluster):
    def kubectl(self, *words: str, input: str | None = None, check: bool = True, timeout: float = 120) -> Result:
        raise Unhealthy("this lab is graded without a cluster, so there is nothing to look at")
