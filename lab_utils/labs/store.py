"""A learner's progress, outside of the notebook: it survives kernels, restarts and broken files.

    labs/NN-topic/progress.json             attempts, results, best score
    labs/NN-topic/answers.json              what lab.answer recorded
    labs/NN-topic/on-CLUSTER/*.json         sightings and faults, which belong to one cluster
    learner.json                            the learner's id, made once

Every file is written whole or not at all. One that cannot be read is put aside, said, and begun anew.
"""

from __future__ import annotations

import json
import os
import time
import uuid
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

from lab_utils.labs.answers import as_json, read_answers, write_answers, write_whole
from lab_utils.labs.outcome import CheckResult
from lab_utils.paths import state_dir


class Store:
    """All that is written down about one lab. The grader gives a folder of its own for each submission."""

    def __init__(self, lab: str, folder: Path, *, answers: Path | None = None, cluster_folder: Path | None = None) -> None:
        self.lab = lab
        self.folder = folder
        self.answers_file = answers or folder / "answers.json"
        self.cluster_folder = cluster_folder or folder
        self.notes: list[str] = []  # what a person should be told, such as a file put aside

    @classmethod
    def of_learner(cls, lab: str, cluster: str | None = None) -> Store:
        """The store of whoever sits at this machine. In the grader's sandbox LAB_ANSWERS says where answers go."""
        if said := os.environ.get("LAB_ANSWERS"):
            return cls(lab, Path(said).parent / "state", answers=Path(said))
        folder = state_dir() / "labs" / lab
        return cls(lab, folder, cluster_folder=folder / f"on-{cluster}" if cluster else None)

    # answers

    @property
    def answers(self) -> dict[str, Any]:
        return read_answers(self.answers_file)

    def answer(self, step: str, value: Any) -> None:
        answers = self._answers_or_none()
        answers[step] = as_json(value, f"the answer to {step!r}")
        write_answers(self.answers_file, self.lab, answers)

    def _answers_or_none(self) -> dict[str, Any]:
        try:
            return self.answers
        except Exception as error:
            self._put_aside(self.answers_file, error)
            return {}

    # progress

    def progress(self) -> dict[str, dict[str, Any]]:
        """For each step tried: attempts (failed ones), hints (seen), best (points), and the last result."""
        return dict(self._read("progress.json", {}))

    def record(self, result: CheckResult) -> None:
        steps = self.progress()
        entry = steps.setdefault(result.step, {"attempts": 0, "hints": 0, "best": 0})
        entry["attempts"] += result.status == "failed"
        entry["best"] = max(entry["best"], result.earned)
        entry["result"] = result.as_dict()
        entry["when"] = round(time.time())
        self._write("progress.json", steps)

    def results(self) -> dict[str, CheckResult]:
        return {step: CheckResult.from_dict(entry["result"]) for step, entry in self.progress().items() if entry.get("result")}

    def attempts(self, step: str) -> int:
        return int(self.progress().get(step, {}).get("attempts", 0))

    def saw_hints(self, step: str, count: int) -> None:
        steps = self.progress()
        entry = steps.setdefault(step, {"attempts": 0, "hints": 0, "best": 0})
        entry["hints"] = max(entry["hints"], count)
        self._write("progress.json", steps)

    def begin_anew(self) -> None:
        """Forget answers, results and sightings. Attempts, hints seen and the best score stay: they are the learner's history."""
        steps = self.progress()
        for entry in steps.values():
            entry.pop("result", None)
        if steps:
            self._write("progress.json", steps)
        self.answers_file.unlink(missing_ok=True)
        self.forget_sightings()

    # sightings: written by checks only, so that "it is gone" can mean "it was there"

    def sight(self, name: str, value: Any = True) -> None:
        sightings = self.sightings()
        sightings[name] = as_json(value, f"the sighting {name!r}")
        self._write("sightings.json", sightings, self.cluster_folder)

    def sightings(self) -> dict[str, Any]:
        return dict(self._read("sightings.json", {}, self.cluster_folder))

    def forget_sightings(self) -> None:
        (self.cluster_folder / "sightings.json").unlink(missing_ok=True)

    # faults: written down before anything is broken

    def faults(self) -> list[dict[str, Any]]:
        return list(self._read("faults.json", [], self.cluster_folder))

    def add_fault(self, record: dict[str, Any]) -> None:
        self._write("faults.json", [*self.faults(), record], self.cluster_folder)

    def remove_fault(self, number: str) -> None:
        self._write("faults.json", [fault for fault in self.faults() if fault["id"] != number], self.cluster_folder)

    # files

    def _read(self, name: str, empty: Any, folder: Path | None = None) -> Any:
        path = (folder or self.folder) / name
        try:
            data = json.loads(path.read_text(encoding="utf-8"))
            if type(data) is not type(empty):
                raise ValueError(f"a {type(empty).__name__} was expected")
        except FileNotFoundError:
            return empty
        except (ValueError, OSError) as error:
            self._put_aside(path, error)
            return empty
        return data

    def _write(self, name: str, data: Any, folder: Path | None = None) -> None:
        write_whole((folder or self.folder) / name, json.dumps(data, indent=2, ensure_ascii=False) + "\n")

    def _put_aside(self, path: Path, why: Exception) -> None:
        aside = path.with_name(f"{path.name}.broken-{time.strftime('%Y%m%d-%H%M%S')}")
        path.replace(aside)
        note = f"{path.name} of {self.lab} could not be read ({why}); it is kept as {aside.name}, and a new one is begun"
        self.notes.append(note)
        warnings.warn(note, stacklevel=4)


def learner_id() -> str:
    """Who sits here: an id made once on this machine. LAB_LEARNER says another, as the grader does for each student."""
    if said := os.environ.get("LAB_LEARNER"):
        return said
    path = state_dir() / "learner.json"
    for make in (False, True):
        if make:
            _create(path, lambda: json.dumps({"id": uuid.uuid4().hex}) + "\n")
        try:
            return str(json.loads(path.read_text())["id"])
        except FileNotFoundError:
            continue
        except (ValueError, KeyError, TypeError):
            path.replace(path.with_name(f"learner.json.broken-{time.strftime('%Y%m%d-%H%M%S')}"))
    return learner_id()


def _create(path: Path, text: Callable[[], str]) -> None:
    """Of several who create it at once, one wins, and nobody sees half of it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(f".{path.name}.{os.getpid()}.new")
    draft.write_text(text())
    try:
        os.link(draft, path)
    except FileExistsError:
        pass
    finally:
        draft.unlink()
