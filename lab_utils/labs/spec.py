"""What a lab declares about itself: time, objectives, needs, namespaces, what varies, and its steps.

Authors write it in the front matter of lab.md; `lab build` puts it, with the steps, into labs/NN-topic/lab.json,
which is all that a learner's notebook and the grader read.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import random
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import jsonschema

from lab_utils.errors import BadInput

SCHEMAS = Path(__file__).resolve().parent.parent / "schemas"


@dataclass(frozen=True)
class Needs:
    """What a cluster must have. `access` is what the lab does on nodes: none, look, or change.

    `names` are nodes that the lab calls by name, all through it: cp, w1, w2. Without them there is nothing in it to be done.
    """

    workers: int = 1
    names: tuple[str, ...] = ()
    access: str = "look"
    bare: bool = False
    devices: bool = False
    proxy: str = ""
    network_policy: str = ""  # "none": nobody keeps NetworkPolicies
    metrics: bool = False
    storage: bool = False
    ingress: bool = False
    images: tuple[str, ...] = ()


@dataclass(frozen=True)
class Step:
    name: str
    points: int
    title: str
    hints: tuple[str, ...] = ()
    after: tuple[str, ...] = ()
    names: tuple[str, ...] = ()  # nodes that this step alone calls by name: where there are none of that name, it is skipped


@dataclass(frozen=True)
class LabSpec:
    name: str  # NN-topic
    title: str
    minutes: int
    objectives: tuple[str, ...]
    needs: Needs
    namespaces: tuple[str, ...]
    steps: tuple[Step, ...] = ()
    params: dict[str, dict[str, Any]] = field(default_factory=dict)
    chapter: str = ""

    @property
    def points(self) -> int:
        return sum(step.points for step in self.steps)

    @property
    def namespace(self) -> str:
        return self.namespaces[0]

    def step(self, name: str) -> Step:
        for step in self.steps:
            if step.name == name:
                return step
        raise BadInput(f"lab {self.name} has no step {name!r}", f"Its steps are: {', '.join(step.name for step in self.steps)}")

    @property
    def names(self) -> list[str]:
        """All nodes that it calls by name, anywhere."""
        return sorted({*self.needs.names, *(name for step in self.steps for name in step.names)})

    def draw(self, learner: str) -> dict[str, Any]:
        """The declared parameters for one learner: random, and always the same for the same learner and lab."""
        return {name: _drawn(how, rng_for(learner, self.name, name)) for name, how in sorted(self.params.items())}

    def as_json(self) -> str:
        return json.dumps({"points": self.points, **asdict(self)}, indent=2, ensure_ascii=False) + "\n"


def rng_for(learner: str, *words: str) -> random.Random:
    """A generator that depends on the learner and on what it is for, and on nothing else (not on PYTHONHASHSEED, not on order)."""
    digest = hmac.new(learner.encode(), "\0".join(words).encode(), hashlib.sha256).digest()
    return random.Random(int.from_bytes(digest))


def _drawn(how: Mapping[str, Any], rng: random.Random) -> Any:
    if "range" in how:
        low, high = how["range"]
        return rng.randint(low, high)
    return rng.choice(how["choice"])


def spec_from_front_matter(name: str, lab: Any, steps: Sequence[Step], where: str) -> LabSpec:
    """The declaration in lab.md, or `BadInput` with the file, the key and what is allowed."""
    validate(lab, "lab", f"{where}, front matter `lab`")
    spec = LabSpec(
        name=name,
        title=lab["title"],
        minutes=lab["minutes"],
        objectives=tuple(lab["objectives"]),
        needs=Needs(**_tuples(lab.get("needs", {}))),
        namespaces=tuple(lab.get("namespaces", [f"lab-{name.split('-')[0]}"])),
        steps=tuple(steps),
        params=dict(lab.get("params", {})),
        chapter=lab.get("chapter", ""),
    )
    if beyond := [name for name in spec.names if name[1:].isdigit() and int(name[1:]) > spec.needs.workers]:
        raise BadInput(f"{where}: it names {beyond[0]}, and needs {spec.needs.workers} workers", "Ask for as many in `needs.workers`")
    try:
        json.dumps(sorted(spec.params.items()), allow_nan=False)
    except (TypeError, ValueError):
        raise BadInput(
            f"{where}, front matter `lab.params`: something in it is not plain JSON", "A date, say, is text when it stands in quotes"
        ) from None
    for key, how in spec.params.items():
        if "range" in how and how["range"][0] >= how["range"][1]:
            raise BadInput(f"{where}, front matter `lab.params.{key}.range`: {how['range']} holds no choice", "Write [lowest, highest]")
    if spec.points != lab["points"]:
        raise BadInput(f"{where}, front matter `lab.points`: it says {lab['points']}, but the steps add up to {spec.points}")
    return spec


def spec_from_json(text: str, where: str) -> LabSpec:
    try:
        data = json.loads(text)
        data.pop("points")
        needs = Needs(**_tuples(data.pop("needs")))
        steps = tuple(Step(**_tuples(step)) for step in data.pop("steps"))
        return LabSpec(**_tuples(data), needs=needs, steps=steps)
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise BadInput(f"{where} does not describe a lab ({error})", "Write it anew with `lab build`") from None


def _tuples(data: Mapping[str, Any]) -> dict[str, Any]:
    """With tuples in place of lists: what is declared does not change."""
    return {key: tuple(value) if isinstance(value, list) else value for key, value in data.items()}


@cache
def _schema(name: str) -> dict[str, Any]:
    return dict(json.loads((SCHEMAS / f"{name}.schema.json").read_text()))


def validate(value: Any, schema: str, where: str) -> None:
    """Check a value against one of our schemas; the message names the key and what is allowed there."""
    if value is None:
        raise BadInput(f"{where} is missing", f"Allowed keys: {', '.join(_schema(schema)['properties'])}")
    validator = jsonschema.Draft202012Validator(_schema(schema))
    error = jsonschema.exceptions.best_match(validator.iter_errors(value))
    if error is None:
        return
    key = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in error.absolute_path)
    raise BadInput(f"{where}{key}: {error.message}", _allowed(error))


def _allowed(error: Any) -> str:
    rule = error.schema
    if error.validator in ("required", "additionalProperties") and "properties" in rule:
        return f"Allowed keys: {', '.join(rule['properties'])}"
    if about := rule.get("description"):
        return f"Meant is: {about}"
    return ""
