"""Hints escalate by attempt: the first is there at once and never the solution; each failed check unlocks one more."""

from __future__ import annotations

from lab_utils.labs.render import Note
from lab_utils.labs.spec import LabSpec
from lab_utils.labs.store import Store


def unlocked(spec: LabSpec, store: Store, step: str) -> int:
    return min(max(store.attempts(step), 1), len(spec.step(step).hints))


def hints_for(spec: LabSpec, store: Store, step: str | None) -> Note:
    """Of one step; without a name, of the first that has not passed."""
    if step is None:
        passed = {name for name, result in store.results().items() if result.passed}
        step = next((each.name for each in spec.steps if each.name not in passed), None)
        if step is None:
            return Note(f"every step of {spec.name} has passed")
    hints = spec.step(step).hints
    level = unlocked(spec, store, step)
    store.saw_hints(step, level)
    told = "\n".join(f"{place}. {hint}" for place, hint in enumerate(hints[:level], 1))
    left = len(hints) - level
    more = f"{count(left, 'more hint')}, one after each failed check." if left else "That was the last one."
    return Note(f"{step}\n{told}\n{more}", status="")


def count(number: int, word: str) -> str:
    return f"{number} {word}" if number == 1 else f"{number} {word}s"
