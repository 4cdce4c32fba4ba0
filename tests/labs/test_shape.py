from __future__ import annotations

from typing import Any

import pytest

from lab_utils.labs.shape import misfit, shape_text


@pytest.mark.parametrize(
    ("value", "shape"),
    [
        (1, int),
        (1, float),
        (0.5, float),
        ("a", str),
        (True, bool),
        ({"a": 1}, dict),
        (None, object),
        ("yes", {"yes", "no"}),
        ([1, 2], [int]),
        ([], [int]),
        ({"a": 1, "b": [0.5]}, {"a": int, "b": [float]}),
        ({"w1": "x", "w2": "y"}, {str: str}),
    ],
)
def test_a_value_that_fits(value: Any, shape: Any) -> None:
    assert misfit(value, shape) == ""


@pytest.mark.parametrize(
    ("value", "shape", "why"),
    [
        (True, int, "True, which is not a whole number"),
        (True, float, "not a number"),
        (1, bool, "not True or False"),
        (1, {True, False}, "not one of"),
        ("1", int, "'1'"),
        ("maybe", {"yes", "no"}, "not one of 'no', 'yes'"),
        ([1, "2"], [int], "at [1]"),
        ({"a": 1}, {"a": int, "b": int}, "without 'b'"),
        ({"a": 1, "c": 1}, {"a": int}, "'c', which nobody asked for"),
        ({"a": {"b": "x"}}, {"a": {"b": int}}, "at ['a']['b']"),
        ({"a": None}, {str: int}, "at ['a']"),
        (None, {"a": int}, "not a mapping"),
        ("abc", [str], "not a list"),
    ],
)
def test_a_value_that_does_not_fit_says_where_and_why(value: Any, shape: Any, why: str) -> None:
    assert why in misfit(value, shape)


def test_a_shape_in_words() -> None:
    assert shape_text({"a": float, "b": {"x", "y"}}) == "a mapping {\"a\": a number, \"b\": one of 'x', 'y'}"
    assert shape_text([str]) == "a list, each item text"
