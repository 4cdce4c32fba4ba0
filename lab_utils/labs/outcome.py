"""What a check says in the end, and the three ways in which a check speaks."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Literal

Status = Literal["passed", "failed", "skipped", "error"]


@dataclass(frozen=True)
class CheckResult:
    """One step's outcome.

    passed   all points
    failed   `expected`, `seen` and `look` say why; `earned` may hold partial credit
    skipped  a step that this one builds on has not passed; or, when `missing` says what, this cluster
             cannot show it, and then the points do not count at all
    error    the check itself broke, or the cluster did not answer: never the learner's fault
    """

    step: str
    points: float
    earned: float
    status: Status
    expected: str = ""
    seen: str = ""
    look: str = ""
    message: str = ""
    seconds: float = 0.0
    missing: str = ""

    @property
    def passed(self) -> bool:
        return self.status == "passed"

    @property
    def counts(self) -> bool:
        """Whether the points belong to the sum: what the cluster lacks is skipped aloud, not failed."""
        return not self.missing

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> CheckResult:
        return cls(**data)


class CheckFailed(Exception):
    """Raised in a check: what should be there, what is there, and where to look. `earned` is partial credit."""

    def __init__(self, *, expected: object = "", seen: object = "", look: str = "", message: str = "", earned: float = 0) -> None:
        self.expected = say(expected)
        self.seen = say(seen)
        self.look = look
        self.message = message
        self.earned = earned
        super().__init__(message or f"expected {self.expected}, saw {self.seen}")


class CheckSkipped(Exception):
    """Raised in a check: this cluster lacks what the step needs."""

    def __init__(self, missing: str) -> None:
        self.missing = missing
        super().__init__(missing)


def say(value: object, limit: int = 600) -> str:
    """A value as a learner reads it: text as it is, anything else as Python shows it, and never a wall of it."""
    text = value if isinstance(value, str) else repr(value)
    return text if len(text) <= limit else f"{text[:limit]}… ({len(text)} characters)"
