"""What a match can answer: yes, no, or not to be known from here, with what is then assumed."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import NamedTuple

from lab_utils.iptables.parts import Match, Option
from lab_utils.trace.flow import Flow, Surroundings


class Answer(NamedTuple):
    """`holds` is None where it cannot be known; `assume` is then what the trace goes on with."""

    holds: bool | None
    why: str = ""
    assume: bool = False


YES = Answer(True)
NO = Answer(False)
Judge = Callable[[Match, Flow, str, Surroundings], Answer]


def answer(holds: bool | None, option: Option, why: str, assume: bool = False) -> Answer:
    """Apply the option's `!`. `assume` speaks of the plain match; for interfaces and the like "another one" is assumed."""
    if holds is None:
        return Answer(None, why, assume != option.negated)
    return Answer(holds != option.negated, why)


def every(answers: Iterable[Answer]) -> Answer:
    """All must hold. One that fails decides, whatever is unknown about the others."""
    open_question: Answer | None = None
    assume = True
    for each in answers:
        if each.holds is False:
            return each
        if each.holds is None:
            open_question = open_question or each
            assume = assume and each.assume
    return YES if open_question is None else Answer(None, open_question.why, assume)


def judged(match: Match, one: Callable[[Option], Answer]) -> Answer:
    """All options of a match; nearly always it has one."""
    return one(match.options[0]) if len(match.options) == 1 else every(map(one, match.options))
