"""Kubernetes Inside Out: a real cluster, looked at from within.

    from lab_utils import Lab, connect

Importing this package costs next to nothing: each name is loaded when it is first used.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lab_utils.checks import check
    from lab_utils.cluster import Cluster, Node, connect
    from lab_utils.errors import LabError
    from lab_utils.lab import Lab
    from lab_utils.run import Result

_HOME = {
    "Cluster": "lab_utils.cluster",
    "Lab": "lab_utils.lab",
    "LabError": "lab_utils.errors",
    "Node": "lab_utils.cluster",
    "Result": "lab_utils.run",
    "check": "lab_utils.checks",
    "connect": "lab_utils.cluster",
}
__all__ = ["Cluster", "Lab", "LabError", "Node", "Result", "check", "connect"]


def __getattr__(name: str) -> Any:
    if name in _HOME:
        return getattr(import_module(_HOME[name]), name)
    raise AttributeError(f"module 'lab_utils' has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__
