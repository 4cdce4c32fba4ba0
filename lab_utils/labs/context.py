"""What a check is given as `lab`: the workspace, the answers, and words to say what is wrong.

lab.expect(2, len(pods), look="kubectl get pods")           equal, or failed
lab.fail(expected="…", seen="…", look="…", earned=2)        failed, with partial credit if you like
lab.answered({"a": float, "b": float})                       this step's answer in that shape, or failed
lab.compare(right, answer, look="…")                         part by part, with partial credit
lab.steady(lambda: ready(pod), expected="…", look="…")       true, and still true two seconds later
lab.sight("pod/web")  …  lab.gone("pod/web", exists=False)   gone means: it was there once
lab.need(has_ipvs, "IP_VS in the kernel")                    skipped aloud when the cluster lacks it
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Mapping
from typing import Any, NoReturn

from lab_utils.cluster import Cluster
from lab_utils.labs.outcome import CheckFailed, CheckResult, CheckSkipped, say
from lab_utils.labs.shape import misfit, shape_text
from lab_utils.labs.spec import rng_for
from lab_utils.labs.workspace import Workspace


class CheckContext(Workspace):
    """One per lab and learner; `results` collects what the steps came to, so that children know their parents."""

    def __init__(self, *args: Any, results: Mapping[str, CheckResult] | None = None, **names: Any) -> None:
        super().__init__(*args, **names)
        self.results: dict[str, CheckResult] = dict(results or {})
        self.step = ""  # set by run_checks
        self.points: float = 0

    @classmethod
    def of(cls, workspace: Workspace, results: Mapping[str, CheckResult] | None = None) -> CheckContext:
        w = workspace
        return cls(w.spec, w.checkset, w.cluster, w.learner, w.store, results=results)

    def with_cluster(self, cluster: Cluster) -> CheckContext:
        return type(self)(self.spec, self.checkset, cluster, self.learner, self.store, results=self.results)

    # what was answered

    @property
    def answers(self) -> dict[str, Any]:
        """All recorded answers, by step: plain JSON values, as a stranger may have written them."""
        return self.store.answers

    def answered(self, shape: Any = object, step: str = "") -> Any:
        """The answer to this step (or to another), in the shape it must have; otherwise the step fails and says which.

        A shape is a type (`int`, `float`, `str`, `bool`, `list`, `dict`, `object` for anything), a set of allowed
        values, `[shape]` for a list, `{"key": shape}` for exactly these keys, `{str: shape}` for any keys.
        """
        step = step or self.step
        answers = self.answers
        call = f'lab.answer("{step}", …)'
        if step not in answers:
            self.fail(expected=f"an answer: {shape_text(shape)}", seen="no answer has been recorded", look=f"Give it with {call}")
        if wrong := misfit(answers[step], shape):
            self.fail(expected=shape_text(shape), seen=wrong, look=f"Change what you give to {call}")
        return answers[step]

    # what to say

    def fail(self, *, expected: object = "", seen: object = "", look: str = "", message: str = "", earned: float = 0) -> NoReturn:
        raise CheckFailed(expected=expected, seen=seen, look=look, message=message, earned=earned)

    def expect(self, expected: Any, seen: Any, look: str = "", *, message: str = "", earned: float = 0) -> None:
        """Fail unless both are equal."""
        if expected != seen:
            self.fail(expected=expected, seen=seen, look=look, message=message, earned=earned)

    def require(self, holds: Any, *, expected: object, seen: object, look: str = "", earned: float = 0) -> None:
        """Fail unless it holds."""
        if not holds:
            self.fail(expected=expected, seen=seen, look=look, earned=earned)

    def compare(self, right: Mapping[str, Any], seen: Mapping[str, Any], look: str = "", *, reveal: bool = False) -> None:
        """Part by part; the points are shared out evenly. Names the parts that are wrong; tells what is right only with `reveal`."""
        wrong = [key for key in right if seen.get(key) != right[key]]
        if not wrong:
            return
        earned = round(self.points * (len(right) - len(wrong)) / len(right), 2)
        said = "; ".join(f"{key}: {say(seen[key]) if key in seen else 'nothing'}" for key in wrong)
        expected = {key: right[key] for key in wrong} if reveal else f"all {len(right)} parts right; {len(right) - len(wrong)} of yours are"
        self.fail(expected=expected, seen=f"not right: {said}", look=look, earned=earned)

    def need(self, there: Any, what: str) -> None:
        """Skip this step, aloud and without cost, when the cluster lacks something. (`lab grade` counts it on nodes that `lab` makes: only
        the student's code can have taken it away there.)"""
        if not there:
            raise CheckSkipped(what)

    # time

    def eventually(self, look_at: Callable[[], Any], *, timeout: float = 30, every: float = 0.5) -> Any:
        """What `look_at` returns once it is true; or what it returned last, when the time is over."""
        deadline = time.monotonic() + timeout * getattr(self.cluster, "patience", 1)
        while True:
            value = look_at()
            if value or time.monotonic() > deadline:
                return value
            time.sleep(every)

    def steady(
        self,
        look_at: Callable[[], Any],
        *,
        expected: object,
        look: str,
        seen: Callable[[], object] | object = "",
        timeout: float = 30,
        gap: float = 2,
    ) -> Any:
        """True, and still true after `gap` seconds: a Pod that is Ready for an instant is not ready. Fails otherwise."""

        def what_is_seen() -> object:
            return (seen() if callable(seen) else seen) or "not so"

        if not self.eventually(look_at, timeout=timeout):
            self.fail(expected=expected, seen=what_is_seen(), look=look)
        time.sleep(gap)
        value = look_at()
        if not value:
            self.fail(expected=f"{expected}, and lasting", seen=f"so for a moment, then: {say(what_is_seen())}", look=look)
        return value

    # what was there before

    def sight(self, name: str, value: Any = True) -> None:
        """Write down that something was seen (and a small JSON value, such as its uid)."""
        self.store.sight(name, value)

    def sighted(self, name: str) -> Any:
        """What was written down under this name, or None."""
        return self.store.sightings().get(name)

    def gone(self, name: str, *, exists: bool, look: str, expected: str = "") -> None:
        """Fail unless it was seen once and is not there now."""
        what = expected or f"{name} is gone"
        if self.sighted(name) is None:
            self.fail(expected=f"{what}, after it was there", seen="it was never seen", look=f"Check the step that makes it first. {look}")
        if exists:
            self.fail(expected=what, seen="it is still there", look=look)

    def injected(self, fault: str) -> dict[str, Any]:
        """The plan of a fault that this lab injected; fails when it never did, so that nothing is "mended" that was never broken."""
        plans = [record["plan"] for record in self.store.faults() if record["name"] == fault]
        self.require(
            plans,
            expected="the fault was injected, and then mended",
            seen="it was not injected yet",
            look="Run the cell that calls lab.inject",
        )
        return dict(plans[-1])

    def rng(self, *words: str) -> random.Random:
        """A random generator, the same every time for this learner, lab, step and words."""
        return rng_for(self.learner, self.name, self.step, *words)
