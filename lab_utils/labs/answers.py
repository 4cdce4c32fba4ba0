"""Answers: plain JSON values, kept in a file that a notebook writes and others only read.

A grader reads a file that a stranger's code wrote. So everything is refused that is not exactly a small JSON
document: no NaN, no deep nesting, no link, no device, no size beyond the limit. Nothing is ever unpickled.
"""

from __future__ import annotations

import json
import math
import os
import stat
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lab_utils.errors import BadInput

MAX_DEPTH = 20
MAX_ANSWER = 64 * 1024  # bytes of one answer as JSON; the longest honest one (a conflist, a table) is under 8 KiB
MAX_FILE = 1024 * 1024


def as_json(value: Any, where: str = "the answer") -> Any:
    """The value as JSON reads it back (tuples become lists), or `BadInput` saying which part cannot be JSON."""
    clean = _plain(value, where, 0)
    if (size := len(json.dumps(clean).encode())) > MAX_ANSWER:
        raise BadInput(f"{where} is {size} bytes long as JSON", f"An answer has at most {MAX_ANSWER} bytes")
    return clean


def _plain(value: Any, where: str, depth: int) -> Any:
    if depth > MAX_DEPTH:
        raise BadInput(f"{where} is nested more than {MAX_DEPTH} levels deep")
    if value is None or isinstance(value, str | bool):
        _encodable(value, where)
        return value
    if isinstance(value, int):
        if abs(value) >= 2**63:  # larger ones are read differently by different JSON readers
            raise BadInput(f"{where} is a number beyond 64 bits")
        return int(value)
    if isinstance(value, float):
        if not math.isfinite(value):
            raise BadInput(f"{where} is {value}, which JSON has no word for")
        return float(value)
    if isinstance(value, Mapping):
        for key in value:
            if not isinstance(key, str):
                raise BadInput(f"{where} has the key {key!r}", "Keys are text: write it in quotes")
            _encodable(key, where)
        return {str(key): _plain(item, f"{where}[{key!r}]", depth + 1) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item, f"{where}[{place}]", depth + 1) for place, item in enumerate(value)]
    if hasattr(value, "item") and getattr(value, "shape", None) == ():  # a numpy number is a number
        return _plain(value.item(), where, depth + 1)
    kind = type(value).__name__
    mend = (
        "Write sorted(…) or list(…) around it"
        if isinstance(value, set | frozenset)
        else "Answers are text, numbers, True/False, None, lists and mappings"
    )
    if value is ...:
        raise BadInput(f"{where} is still `...`", "Put your own value in its place")
    raise BadInput(f"{where} is a {kind}, which is not plain JSON", mend)


def _encodable(value: object, where: str) -> None:
    if isinstance(value, str):
        try:
            value.encode()
        except UnicodeEncodeError:
            raise BadInput(f"{where} holds half a character (a lone surrogate)") from None


def read_answers(path: Path) -> dict[str, Any]:
    """The answers of a file, by step. No file is no answers; anything but a small, plain JSON file is `BadInput`."""
    try:
        handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except FileNotFoundError:
        return {}
    except OSError as error:
        raise BadInput(f"{path} cannot be read as answers ({error.strerror})") from None
    try:
        if not stat.S_ISREG(os.fstat(handle).st_mode):
            raise BadInput(f"{path} is not a plain file")
        with open(handle, "rb", closefd=False) as file:
            raw = file.read(MAX_FILE + 1)
    finally:
        os.close(handle)
    if len(raw) > MAX_FILE:
        raise BadInput(f"{path} is larger than {MAX_FILE} bytes")
    return parse_answers(raw, str(path))


def parse_answers(raw: bytes, where: str) -> dict[str, Any]:
    def refuse(word: str) -> Any:
        raise BadInput(f"{where} holds {word}, which is not JSON")

    try:
        data = json.loads(raw.decode(), parse_constant=refuse)
    except (ValueError, RecursionError) as error:
        raise BadInput(f"{where} is not JSON ({type(error).__name__})") from None
    if not isinstance(data, dict) or not isinstance(data.get("answers"), dict):
        raise BadInput(f"{where} is not a file of answers", 'It should be {"answers": {"step": value, …}}')
    return {step: as_json(value, f"the answer to {step!r}") for step, value in data["answers"].items()}


def write_answers(path: Path, lab: str, answers: Mapping[str, Any]) -> None:
    """Write the file whole or not at all."""
    text = json.dumps({"lab": lab, "answers": dict(answers)}, indent=2, ensure_ascii=False, allow_nan=False) + "\n"
    if len(text.encode()) > MAX_FILE:
        raise BadInput(f"the answers to {lab} take more than {MAX_FILE} bytes together")
    write_whole(path, text)


def write_whole(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(f".{path.name}.{os.getpid()}.new")
    try:
        draft.write_text(text, encoding="utf-8")
        draft.replace(path)
    except OSError as error:
        error.filename = error.filename or str(path)  # a full disk does not say which file it has no room for
        raise
    finally:
        draft.unlink(missing_ok=True)
