"""Which steps a cluster cannot give: those that look at nodes where these are out of reach, and those that call a node by a name that
none of its nodes has.

The first is read from the checks. The second is declared, and `lab build` compares what is declared with what a lab's code says (`named`).
So a name that nobody declared, a typo say, is never a reason to skip.
"""

from __future__ import annotations

import inspect
import re
import types
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any

from lab_utils.cluster import Cluster
from lab_utils.labs.spec import LabSpec

if TYPE_CHECKING:
    from lab_utils.checks import Check, CheckSet

# What a check's `lab` has that leads onto a node: see labs/workspace.py.
ONTO_NODES = frozenset({"node", "nodes", "http"})

# A worker's name wherever it stands (not in www.w3.org); cp is a program, too, so only where it can be nothing but the node.
_NAMED = re.compile(r"(?<![\w.])(w[1-9])\b|(?:\b(?:node|on)\(|origin=|node=|nodeName: )\"?(cp)\b|%on (cp)\b")


def lost_steps(spec: LabSpec, checkset: CheckSet, cluster: Cluster) -> list[str]:
    """In the lab's order. A check that builds on such a step is skipped with it."""
    lost: list[str] = []
    for name, check in checkset.checks.items():
        if lacks(spec, check, cluster) or any(parent in lost for parent in check.after):
            lost.append(name)
    return lost


def lacks(spec: LabSpec, check: Check, cluster: Cluster | None) -> str:
    """What a step wants of nodes and this cluster does not give, in words; "" when it gives all.

    The record of the cluster is asked, not its API: nothing that a learner does there makes a step be skipped.
    """
    if gone := absent([*spec.needs.names, *spec.step(check.step).names], cluster):
        return named_so(gone)
    nodes = cluster.nodes if cluster else []  # labs that ask for answers only are graded without a cluster
    return "access to its nodes" if not all(node.reachable for node in nodes) and reaches(check.function) else ""


def absent(names: Iterable[str], cluster: Cluster | None) -> list[str]:
    """Those that no node has. A cluster without any nodes is none: nothing is missed there."""
    there = {node.name for node in cluster.nodes} if cluster else set()
    return sorted({*names} - there) if there else []


def named_so(names: list[str]) -> str:
    return f"a node named {names[0]}" if len(names) == 1 else f"nodes named {', '.join(names)}"


def named(text: str) -> set[str]:
    """The nodes that a program or a manifest calls by name."""
    return {name for found in _NAMED.findall(text) for name in found if name}


def reaches(function: Any) -> bool:
    """Does it, or a function of the same file that it names, ask for one of ONTO_NODES?"""
    return any(ONTO_NODES & set(code.co_names) for one in _reached(function) for code in _codes(one.__code__))


def names_in(function: Any) -> set[str]:
    """The nodes that it, or a function or a constant of the same file that it names, calls by name."""
    found = set()
    for one in _reached(function):
        used = [one.__globals__.get(name) for code in _codes(one.__code__) for name in code.co_names]
        constants = [value for value in used if isinstance(value, str | tuple | list | set | dict)]
        found |= named(inspect.getsource(one)) | named(repr(constants))
    return found


def _reached(function: Any) -> Iterator[types.FunctionType]:
    """A function, and every function of the same file that it names, directly or not."""
    seen: set[int] = set()
    todo: list[Any] = [function]
    while todo:
        one = todo.pop()
        if id(one) in seen:
            continue
        seen.add(id(one))
        yield one
        called = (one.__globals__.get(name) for code in _codes(one.__code__) for name in code.co_names)
        todo += [found for found in called if isinstance(found, types.FunctionType) and found.__globals__ is one.__globals__]


def _codes(code: types.CodeType) -> list[types.CodeType]:
    """A function's code and that of everything written inside of it: lambdas, comprehensions, functions."""
    inner = [each for constant in code.co_consts if isinstance(constant, types.CodeType) for each in _codes(constant)]
    return [code, *inner]
