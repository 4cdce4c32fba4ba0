"""Which steps of a lab look at nodes, read from its checks: a cluster that gives no access to its nodes loses exactly these."""

from __future__ import annotations

import types
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lab_utils.checks import CheckSet

# What a check's `lab` has that leads onto a node: see labs/workspace.py.
ONTO_NODES = frozenset({"node", "nodes", "http"})


def steps_on_nodes(checkset: CheckSet) -> list[str]:
    """In the lab's order. A check that builds on such a step is skipped with it."""
    lost: list[str] = []
    for name, check in checkset.checks.items():
        if reaches(check.function) or any(parent in lost for parent in check.after):
            lost.append(name)
    return lost


def reaches(function: Any) -> bool:
    """Does it, or a function of the same file that it names, ask for one of ONTO_NODES?"""
    seen: set[int] = set()
    todo: list[Any] = [function]
    while todo:
        one = todo.pop()
        if id(one) in seen:
            continue
        seen.add(id(one))
        for code in _codes(one.__code__):
            if ONTO_NODES & set(code.co_names):
                return True
            named = (one.__globals__.get(name) for name in code.co_names)
            todo += [found for found in named if isinstance(found, types.FunctionType) and found.__globals__ is one.__globals__]
    return False


def _codes(code: types.CodeType) -> list[types.CodeType]:
    """A function's code and that of everything written inside of it: lambdas, comprehensions, functions."""
    inner = [each for constant in code.co_consts if isinstance(constant, types.CodeType) for each in _codes(constant)]
    return [code, *inner]
