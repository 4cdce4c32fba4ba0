"""Where labs lie, and finding one by name or number."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from lab_utils.checks import CheckSet, load_checks
from lab_utils.errors import BadInput
from lab_utils.labs.spec import LabSpec, spec_from_json
from lab_utils.paths import repo_dir

NAME = re.compile(r"\d{2}-[a-z0-9]+(-[a-z0-9]+)*")


@dataclass(frozen=True)
class LabFiles:
    """The files of one lab. Learners and the grader read `folder`; only authors have `source`."""

    name: str
    root: Path

    @property
    def folder(self) -> Path:
        return self.root / "labs" / self.name

    @property
    def notebook(self) -> Path:
        return self.folder / "lab.ipynb"

    @property
    def declared(self) -> Path:
        return self.folder / "lab.json"

    @property
    def source(self) -> Path:
        return self.root / "solutions" / self.name / "lab.md"

    @property
    def wrong(self) -> list[Path]:
        return sorted((self.source.parent / "wrong").glob("*.md"))

    @cached_property
    def spec(self) -> LabSpec:
        if not self.declared.is_file():
            raise BadInput(f"lab {self.name} has not been built", f"Run `lab build {self.name}`")
        return spec_from_json(self.declared.read_text(encoding="utf-8"), str(self.declared))

    @cached_property
    def checks(self) -> CheckSet:
        return load_checks(self.folder / "checks.py")

    def says(self, path: Path) -> str:
        """A path as it is read in a message: from the checkout's top."""
        return str(path.relative_to(self.root)) if path.is_relative_to(self.root) else str(path)


def root() -> Path:
    """The folder that holds labs/ and solutions/: this checkout, or what LAB_ROOT says."""
    return Path(said).absolute() if (said := os.environ.get("LAB_ROOT")) else repo_dir()


def all_labs(*, sources: bool = False) -> list[LabFiles]:
    """Every lab, by number. With `sources`, those that have a lab.md, built or not."""
    here = root()
    pattern = "solutions/*/lab.md" if sources else "labs/*/lab.json"
    return [LabFiles(path.parent.name, here) for path in sorted(here.glob(pattern)) if NAME.fullmatch(path.parent.name)]


def find_lab(word: str, *, sources: bool = False) -> LabFiles:
    """A lab by its name, its number, or the beginning of its name: "08-services", "08", "8", "08-ser"."""
    known = all_labs(sources=sources)
    number = f"{int(word):02d}-" if re.fullmatch(r"\d{1,2}", word) else word
    exact = [lab for lab in known if lab.name == word]
    found = exact or [lab for lab in known if number and lab.name.startswith(number)]
    if len(found) == 1:
        return found[0]
    names = ", ".join(lab.name for lab in found or known) or "none yet"
    raise BadInput(
        f"{word!r} could be several labs: {names}" if found else f"there is no lab {word!r}", "" if found else f"There are: {names}"
    )
