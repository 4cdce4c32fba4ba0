"""A node that is there, and that nobody here may enter."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from lab_utils.cluster import Node, NodeRecord
from lab_utils.errors import NoNodeAccess
from lab_utils.run import Result


class ClosedNode(Node):
    """A node that is seen through the API alone. Whatever is asked of it says why, and what would open it."""

    reachable = False

    def __init__(self, record: NodeRecord, why: str, mend: str = "") -> None:
        super().__init__(record)
        self.refused = NoNodeAccess(why, mend)

    def run(self, cmd: str | Sequence[str], *, timeout: float = 60, input: str | bytes | None = None, check: bool = False) -> Result:
        raise self.refused

    def put(self, source: Any, target: str, mode: int = 0o644) -> None:
        raise self.refused

    def get(self, source: str) -> bytes:
        raise self.refused
