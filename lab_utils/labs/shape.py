"""The shape of an answer: does a JSON value fit, and if not, where and why (pure)."""

from __future__ import annotations

from typing import Any

from lab_utils.labs.outcome import say

_WORDS = {
    int: "a whole number",
    float: "a number",
    str: "text",
    bool: "True or False",
    list: "a list",
    dict: "a mapping",
    object: "any value",
}


def shape_text(shape: Any) -> str:
    """The shape in words."""
    if isinstance(shape, type):
        return _WORDS.get(shape, shape.__name__)
    if isinstance(shape, set | frozenset):
        return "one of " + ", ".join(sorted(map(repr, shape)))
    if isinstance(shape, list):
        return f"a list, each item {shape_text(shape[0])}"
    if isinstance(shape, dict):
        if set(shape) == {str}:
            return f"a mapping, each value {shape_text(shape[str])}"
        return "a mapping {" + ", ".join(f'"{key}": {shape_text(item)}' for key, item in shape.items()) + "}"
    return repr(shape)


def misfit(value: Any, shape: Any, where: str = "") -> str:
    """Why a value does not have a shape; empty when it does. True is not the number 1, whatever Python says."""
    place = f" at {where}" if where else ""
    if isinstance(shape, type):
        return "" if _is(value, shape) else f"{say(repr(value), 80)}{place}, which is not {shape_text(shape)}"
    if isinstance(shape, set | frozenset):
        fits = any(type(value) is type(item) and value == item for item in shape)
        return "" if fits else f"{say(repr(value), 80)}{place}, which is not {shape_text(shape)}"
    if isinstance(shape, list):
        if not isinstance(value, list):
            return f"{say(repr(value), 80)}{place}, which is not a list"
        return next((wrong for n, item in enumerate(value) if (wrong := misfit(item, shape[0], f"{where}[{n}]"))), "")
    if not isinstance(value, dict):
        return f"{say(repr(value), 80)}{place}, which is not a mapping"
    if set(shape) == {str}:
        return next((wrong for key, item in value.items() if (wrong := misfit(item, shape[str], f"{where}[{key!r}]"))), "")
    if lacking := [key for key in shape if key not in value]:
        return f"a mapping{place} without {', '.join(map(repr, lacking))}"
    if extra := [key for key in value if key not in shape]:
        return f"a mapping{place} with {', '.join(map(repr, extra))}, which nobody asked for"
    return next((wrong for key in shape if (wrong := misfit(value[key], shape[key], f"{where}[{key!r}]"))), "")


def _is(value: Any, kind: type) -> bool:
    if kind is object:
        return True
    if kind is float:
        return isinstance(value, int | float) and not isinstance(value, bool)
    if kind is int:
        return isinstance(value, int) and not isinstance(value, bool)
    return isinstance(value, kind)
