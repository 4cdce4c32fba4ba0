"""`lab new`: a small lab that passes its own tests, to be replaced bit by bit."""

from __future__ import annotations

from pathlib import Path

from lab_utils.errors import BadInput
from lab_utils.labs.build import build
from lab_utils.labs.catalog import NAME, LabFiles, all_labs, root

TEMPLATE = Path(__file__).resolve().parent / "template"


def new_lab(name: str) -> list[Path]:
    """Write the scaffold of a lab and build it; returns the files."""
    if not NAME.fullmatch(name):
        raise BadInput(f"{name!r} is not a lab's name", 'Two digits, then words of small letters: "08-services"')
    files = LabFiles(name, root())
    taken = [path for path in (files.folder, files.source.parent) if path.exists()]
    if taken:
        raise BadInput(f"{files.says(taken[0])} exists already")
    number, _, topic = name.partition("-")
    if same := [lab.name for lab in [*all_labs(), *all_labs(sources=True)] if lab.name.startswith(f"{number}-")]:
        raise BadInput(f"the number {number} is taken by {same[0]}", "Labs are called by their numbers: choose another")
    words = {"@NAME@": name, "@NUMBER@": number, "@TITLE@": topic.replace("-", " ").capitalize()}
    written = []
    for template in sorted(TEMPLATE.rglob("*.*")):
        place = files.source.parent if template.suffix == ".md" else files.folder
        target = place / template.relative_to(TEMPLATE)
        text = template.read_text(encoding="utf-8")
        for word, value in words.items():
            text = text.replace(word, value)
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(text, encoding="utf-8")
        written.append(target)
    return [*written, *build(files)]
