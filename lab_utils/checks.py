"""Checks: one decorated function per step, which looks at the cluster and at answers.

    from lab_utils.checks import CheckContext, check

    @check("veth-peer", points=5, after=["pod-running"])
    def _(lab: CheckContext) -> None:
        right = peer_of(lab.node("w1"))                     # computed from the cluster itself
        lab.expect(right, lab.answered(int), look="ip -d link, on w1")

`labs/NN-topic/checks.py` holds them, and beside them at most one each of
    @setup    makes the starting state, once, after setup.yaml was applied
    @cleanup  removes what lies outside of the lab's namespaces, on reset
    @params   takes a random.Random and returns parameters that a range or a choice cannot say

A check that returns has passed. It speaks by lab.fail and its relatives; see lab_utils.labs.context.
Any other exception is a fault of the check, and is told as one.
"""

from __future__ import annotations

import hashlib
import importlib.util
import random
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import Any, TypeVar

from lab_utils.errors import BadInput, CommandFailed, LabError, NoNodeAccess
from lab_utils.labs.context import CheckContext
from lab_utils.labs.outcome import CheckFailed, CheckResult, CheckSkipped, Status
from lab_utils.labs.reach import lacks
from lab_utils.labs.workspace import Workspace

__all__ = [
    "Check",
    "CheckContext",
    "CheckFailed",
    "CheckResult",
    "CheckSet",
    "check",
    "cleanup",
    "load_checks",
    "params",
    "run_checks",
    "setup",
]

CheckFunction = Callable[[CheckContext], object]
WorkFunction = Callable[[Workspace], object]
ParamsFunction = Callable[[random.Random], Mapping[str, Any]]
F = TypeVar("F", bound=Callable[..., object])


@dataclass(frozen=True)
class Check:
    step: str
    points: int
    after: tuple[str, ...]
    function: CheckFunction
    timeout: float = 120  # seconds; a check that waits longer than that waits for nothing

    @property
    def where(self) -> str:
        code = self.function.__code__
        return f"{Path(code.co_filename).name}, line {code.co_firstlineno}"


@dataclass
class CheckSet:
    """Everything that one checks.py says."""

    path: Path
    checks: dict[str, Check] = field(default_factory=dict)
    setup: WorkFunction | None = None
    cleanup: WorkFunction | None = None
    params: ParamsFunction | None = None

    @property
    def points(self) -> int:
        return sum(one.points for one in self.checks.values())


_collecting: ContextVar[CheckSet | None] = ContextVar("_collecting", default=None)


def check(step: str, *, points: int, after: Sequence[str] = (), timeout: float = 120) -> Callable[[CheckFunction], CheckFunction]:
    """Make a function the check of a step. It runs only when the steps in `after` have passed."""

    def register(function: CheckFunction) -> CheckFunction:
        if (here := _collecting.get()) is not None:
            if step in here.checks:
                raise BadInput(f"{here.path}: two checks are named {step!r}")
            if isinstance(after, str):
                raise BadInput(f'{here.path}: check {step!r} says after="{after}"', f'Write a list: after=["{after}"]')
            here.checks[step] = Check(step, points, tuple(after), function, timeout)
        return function

    return register


def setup(function: WorkFunction) -> WorkFunction:
    return _only_one("setup", function)


def cleanup(function: WorkFunction) -> WorkFunction:
    return _only_one("cleanup", function)


def params(function: ParamsFunction) -> ParamsFunction:
    return _only_one("params", function)


def _only_one(what: str, function: F) -> F:
    if (here := _collecting.get()) is not None:
        if getattr(here, what) is not None:
            raise BadInput(f"{here.path}: two functions are marked @{what}")
        setattr(here, what, function)
    return function


def load_checks(path: Path) -> CheckSet:
    """Run a checks.py, which must be ours and trusted, and return what it declares. Labs share nothing by it."""
    if not path.is_file():
        raise BadInput(f"there is no {path}", "`lab new` writes one to start from")
    found = CheckSet(path)
    name = f"_lab_checks_{hashlib.sha256(str(path.resolve()).encode()).hexdigest()[:16]}"
    module_spec = importlib.util.spec_from_file_location(name, path)
    assert module_spec and module_spec.loader
    module = importlib.util.module_from_spec(module_spec)
    sys.modules[name] = module  # dataclasses look their own module up while they are made
    token = _collecting.set(found)
    writes_bytecode, sys.dont_write_bytecode = sys.dont_write_bytecode, True
    try:
        module_spec.loader.exec_module(module)
    except LabError:
        raise
    except (Exception, SystemExit) as error:
        last = traceback.extract_tb(error.__traceback__)[-1]
        line = getattr(error, "lineno", None) or last.lineno
        raise BadInput(f"{path} does not load: {type(error).__name__}: {error} (line {line})") from error
    finally:
        sys.dont_write_bytecode = writes_bytecode
        _collecting.reset(token)
        del sys.modules[name]
    _parents_exist(found)
    return found


def _parents_exist(found: CheckSet) -> None:
    earlier: set[str] = set()
    for one in found.checks.values():
        for parent in one.after:
            if parent not in earlier:
                why = "comes later" if parent in found.checks else "does not exist"
                raise BadInput(f"{found.path}: check {one.step!r} is after {parent!r}, which {why}")
        earlier.add(one.step)


def run_checks(checkset: CheckSet, context: CheckContext, only: str | None = None) -> list[CheckResult]:
    """Run all checks in order, or one; the results are also kept in `context.results`, where children find their parents.

    A check whose parent has not passed is skipped and says so; the parent is not run on its behalf.
    """
    if only is not None and only not in checkset.checks:
        raise BadInput(f"there is no check {only!r}", f"There are: {', '.join(checkset.checks)}")
    results = []
    for one in checkset.checks.values():
        if only in (None, one.step):
            result = _run(one, context)
            context.results[one.step] = result
            results.append(result)
    return results


def _run(one: Check, context: CheckContext) -> CheckResult:
    def said(status: Status, earned: float = 0, **words: Any) -> CheckResult:
        return CheckResult(one.step, one.points, earned, status, seconds=round(time.monotonic() - begin, 3), **words)

    begin = time.monotonic()
    if without := [parent for parent in one.after if not _passed(context, parent)]:
        lacking = next((context.results[p].missing for p in without if p in context.results and context.results[p].missing), "")
        if lacking:
            return said("skipped", message=f"builds on {without[0]}, which was skipped", missing=lacking)
        return said("skipped", message=f"first pass {', '.join(without)}: this step builds on it")

    def lost(missing: str) -> CheckResult:
        return said("skipped", message=f"this cluster lacks {missing}; the points do not count", missing=missing)

    if missing := lacks(context.spec, one, context.cluster):
        return lost(missing)  # also when nothing was answered yet
    context.step, context.points = one.step, one.points
    limit = one.timeout * getattr(context.cluster, "patience", 1)
    try:
        with _time_limit(limit):
            one.function(context)
    except CheckFailed as failed:
        earned = min(max(failed.earned, 0), one.points)
        return said("failed", earned, expected=failed.expected, seen=failed.seen, look=failed.look, message=failed.message)
    except CheckSkipped as skipped:
        return lost(skipped.missing)
    except NoNodeAccess:
        return lost("access to its nodes")
    except _TooLong:
        return said("error", message=f"check {one.step!r} ({one.where}) did not end within {limit:g} s")
    except CommandFailed as error:
        # A command that says no tells of the cluster's state: most often an object that is not there.
        return said(
            "failed", expected="what this step asks for", seen=(error.stderr or error.stdout).strip() or str(error), look=str(error)
        )
    except LabError as error:
        return said("failed", expected="what this step asks for", seen=error.what, look=error.mend)
    except Exception as error:
        return said("error", message=_bug(one, error))
    finally:
        context.step, context.points = "", 0
    return said("passed", one.points)


def _passed(context: CheckContext, step: str) -> bool:
    return step in context.results and context.results[step].passed


def _bug(one: Check, error: Exception) -> str:
    said = " ".join(str(error).split())[:300]
    if type(error).__module__.startswith("urllib3"):
        return f"the cluster's API did not answer while {one.step!r} was checked: {said}"
    file = one.function.__code__.co_filename
    lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == file]
    where = f"{Path(file).name}, line {lines[-1]}" if lines else one.where
    return f"the check {one.step!r} itself is broken ({type(error).__name__}: {said}; {where}). This is not your fault"


class _TooLong(BaseException):
    """Not an Exception, so that a check's own `except Exception` does not swallow it."""


@contextmanager
def _time_limit(seconds: float) -> Iterator[None]:
    """End the block after a time. Only the main thread of a process can be interrupted so; elsewhere there is no limit."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def ring(number: int, frame: FrameType | None) -> None:
        raise _TooLong

    before = signal.signal(signal.SIGALRM, ring)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
