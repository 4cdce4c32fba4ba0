from __future__ import annotations

import json
import math
import os
from pathlib import Path
from typing import Any

import numpy
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lab_utils.errors import BadInput
from lab_utils.labs.answers import MAX_ANSWER, MAX_FILE, as_json, parse_answers, read_answers, write_answers

JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63) + 1, 2**63 - 1) | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=15,
)


@given(JSON)
def test_plain_json_is_kept_as_it_is(value: Any) -> None:
    assert as_json(value) == value
    assert parse_answers(json.dumps({"answers": {"step": as_json(value)}}).encode(), "file") == {"step": value}


def test_tuples_and_numpy_numbers_become_what_json_has() -> None:
    assert as_json((1, (2.5, "x"))) == [1, [2.5, "x"]]
    assert as_json(numpy.float64(0.5)) == 0.5
    assert as_json(numpy.int64(3)) == 3


class Sly(dict[str, Any]):
    def __reduce__(self) -> Any:
        raise AssertionError("an answer must never be pickled")


@pytest.mark.parametrize(
    ("value", "why"),
    [
        (math.nan, "nan"),
        (math.inf, "inf"),
        ({1, 2}, "set"),
        (b"bytes", "bytes"),
        (object(), "object"),
        ({1: 2}, "has the key 1"),
        (..., "still `...`"),
        ({"a": [..., 1]}, r"\['a'\]\[0\] is still"),
        (2**70, "64 bits"),
        ("\ud800", "half a character"),
        ("x" * (MAX_ANSWER + 1), "bytes long"),
    ],
)
def test_what_is_not_plain_json_is_refused(value: Any, why: str) -> None:
    with pytest.raises(BadInput, match=why):
        as_json(value)


def test_deep_nesting_is_refused() -> None:
    value: list[Any] = []
    for _ in range(100):
        value = [value]
    with pytest.raises(BadInput, match="levels deep"):
        as_json(value)
    looped: list[Any] = []
    looped.append(looped)
    with pytest.raises(BadInput, match="levels deep"):
        as_json(looped)


def test_a_mapping_of_a_strange_class_becomes_a_plain_one() -> None:
    assert type(as_json(Sly(a=1))) is dict


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"\xff\xfe",
        b"null",
        b"[]",
        b'{"answers": []}',
        b'{"answers": {"a": NaN}}',
        b'{"answers": {"a": Infinity}}',
        b'{"answers": {"a": 1e999}}',
        b"[" * 100_000,
        b'{"answers": ' + b'{"a":' * 5000 + b"1" + b"}" * 5001,
    ],
)
def test_a_file_that_is_not_answers_is_refused(raw: bytes) -> None:
    with pytest.raises(BadInput):
        parse_answers(raw, "file")


def test_links_devices_folders_and_large_files_are_not_read(tmp_path: Path) -> None:
    good = tmp_path / "good.json"
    write_answers(good, "99-example", {"a": 1})
    assert read_answers(good) == {"a": 1}
    link = tmp_path / "link.json"
    link.symlink_to(good)
    pipe = tmp_path / "pipe.json"
    os.mkfifo(pipe)
    large = tmp_path / "large.json"
    large.write_bytes(b" " * (MAX_FILE + 1))
    for path in (link, pipe, large, tmp_path):
        with pytest.raises(BadInput):
            read_answers(path)
    assert read_answers(tmp_path / "none.json") == {}
