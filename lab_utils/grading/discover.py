"""Which submissions lie in what was given: a notebook, a folder, nbgrader's folders, or an LMS's zip.

    alice.ipynb                                         one file per student
    alice/lab.ipynb                                     one folder per student
    submitted/alice/08-services/lab.ipynb               nbgrader: submitted/STUDENT/ASSIGNMENT/
    lovelaceada_LATE_1234_56789_lab.ipynb               Canvas: who, late, the user's id, the submission's id, the file
    Ada Lovelace_1234_assignsubmission_file_/lab.ipynb  Moodle: who, the participant's id

Whatever looks as if a student had handed it in is listed, and when it cannot be graded, then with a reason:
nothing is dropped in silence.
"""

from __future__ import annotations

import hashlib
import os
import re
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path

from lab_utils.errors import BadInput
from lab_utils.grading.archive import ARCHIVES, SKIPPED, unpack
from lab_utils.grading.limits import Limits
from lab_utils.grading.scratch import Scratch
from lab_utils.grading.submission import Rejected, clean, read_file

CANVAS = re.compile(r"(?P<student>[^_]+)_(?P<late>late_)?(?P<id>\d+)_(?P<other>\d+)_(?P<file>.+)", re.IGNORECASE | re.DOTALL)
MOODLE = re.compile(r"(?P<student>.+?)_(?P<id>\d+)_assignsubmission_(?:file|onlinetext)_(?P<file>.*)", re.DOTALL)
COMMON = re.compile(r"(lab|notebook|untitled|solution|submission|\d\d-.*)\d*", re.IGNORECASE)  # names that say nothing of who
DEPTH = 4  # of folders below a student's own


@dataclass(frozen=True)
class Entry:
    """One submission, before it is read."""

    submission: str  # where it was found, below what was given; unique in a run
    student: str
    path: Path | None = None  # what to read
    refused: str = ""  # or why not
    student_id: str = ""  # of the LMS
    system: str = ""  # canvas, moodle, nbgrader or ""
    late: bool = False
    timestamp: str = ""


@dataclass
class Found:
    entries: list[Entry] = field(default_factory=list)
    ignored: list[str] = field(default_factory=list)  # files that nobody handed in as a notebook
    out: Path | None = None  # the folder of results, which may lie among the submissions and is none
    folders: list[Scratch] = field(default_factory=list)

    def cleanup(self) -> None:
        for folder in self.folders:
            folder.cleanup()


def discover(paths: list[Path], lab: str, limits: Limits, out: Path | None = None) -> Found:
    found = Found(out=real(out) if out else None)
    try:
        _discover(paths, lab, limits, found)
    except BaseException:
        found.cleanup()
        raise
    return found


def _discover(paths: list[Path], lab: str, limits: Limits, found: Found) -> None:
    for path in {path.absolute(): path for path in paths}.values():  # each once, also when it was given twice
        if not path.exists() and not path.is_symlink():
            raise BadInput(f"there is no {path}", "Give a notebook, a folder of notebooks, or the LMS's zip")
        if path.is_dir():
            _folder(path, real(path), lab, found, limits)
        elif path.suffix.lower() == ".zip":
            _zip(path, lab, found, limits)
        else:
            found.entries.append(_of_file(path, path.name, _student_above(path)))
    if not found.entries:
        where = ", ".join(str(path) for path in paths)
        raise BadInput(f"no submissions were found in {where}", "A submission is a file whose name ends with .ipynb")
    found.entries = _unique(sorted(found.entries, key=lambda entry: (entry.student, entry.submission)))


def real(path: Path) -> Path:
    """Without links. `Path.resolve` stumbles over a link that leads to itself, which a stranger may have handed in."""
    return Path(os.path.realpath(path))


def who(name: str) -> Entry:
    """Who handed in, by the name that an LMS gave to the file or folder."""
    if match := MOODLE.fullmatch(name):
        return Entry("", _person(match["student"]), student_id=match["id"], system="moodle")
    if match := CANVAS.fullmatch(name):
        return Entry("", _person(match["student"]), student_id=match["id"], system="canvas", late=bool(match["late"]))
    stem = re.sub(r"(\.ipynb)?(\.(ipynb|json|txt))?$", "", name, flags=re.IGNORECASE)
    return Entry("", _person(stem or name))


def _person(name: str) -> str:
    """A name as it may be shown. When that is not the whole name, a few digits of it stay: two people must not become one row."""
    shown = clean(name)
    return shown if shown == name else f"{shown} #{hashlib.sha256(os.fsencode(name)).hexdigest()[:6]}"


def _of_file(path: Path, shown: str, owner: Entry | None = None) -> Entry:
    found = owner or who(path.name)
    refused = "" if path.is_symlink() or not path.is_dir() else "it is a folder, not a notebook"
    return replace(found, submission=clean(shown, 300), path=None if refused else path, refused=refused)


def _student_above(path: Path) -> Entry | None:
    """For one file given by name: in `submitted/alice/08-services/lab.ipynb`, alice; for `alice/lab.ipynb`, alice too."""
    parts = path.absolute().parts
    if "submitted" in parts[:-2]:
        return replace(who(parts[parts.index("submitted") + 1]), system="nbgrader")
    if COMMON.fullmatch(path.stem) and len(parts) > 2 and not COMMON.fullmatch(parts[-2]):
        return who(parts[-2])
    return None


def _zip(path: Path, lab: str, found: Found, limits: Limits) -> None:
    temporary = Scratch()
    found.folders.append(temporary)
    unpacked = unpack(path, Path(temporary.name), limits)
    _folder(Path(temporary.name), path.with_suffix(""), lab, found, limits)
    for member, why in unpacked.refused.items():
        owner = who(member.strip("/").split("/")[0] if "/" in member and ".." not in member else member.split("/")[-1])
        found.entries.append(replace(owner, submission=member, refused=why))


def _folder(top: Path, named: Path, lab: str, found: Found, limits: Limits) -> None:
    """`named` is what the folder is called: its whole path, or that of the archive that was unpacked into it."""
    root = _students_root(top)
    system = "nbgrader" if root.name == "submitted" else ""
    files = [entry for entry in root.iterdir() if _is_notebook(entry)]
    if root == top and len(files) == 1 and COMMON.fullmatch(files[0].stem):  # the folder of one student was given
        nbgrader = named.parent.parent.name == "submitted"  # submitted/STUDENT/ASSIGNMENT
        owner = replace(who(named.parent.name), system="nbgrader") if nbgrader else who(named.name)
        found.entries.append(_of_file(files[0], files[0].name, owner))
        return
    if root == top and named.parent.name == "submitted" and not files and any(_names_lab(entry.name, lab) for entry in root.iterdir()):
        _student_folder(top, named.name, lab, "nbgrader", found, limits)  # submitted/STUDENT
        return
    for entry in sorted(root.iterdir()):
        shown = str(entry.relative_to(root))
        if entry.name in SKIPPED or entry.name.startswith(".") or real(entry) == found.out:
            continue
        if entry.is_dir() and not entry.is_symlink():
            _student_folder(entry, shown, lab, system, found, limits)
        elif _is_notebook(entry):
            found.entries.append(_of_file(entry, shown))
        elif entry.suffix.lower() == ".zip" and not entry.is_symlink():
            with suppress(BadInput):
                _zip_of_student(entry, shown, lab, found, limits)
                continue
            found.entries.append(replace(who(entry.stem), submission=clean(shown, 300), refused="it cannot be read as a zip archive"))
        elif entry.is_symlink() or who(entry.name).system or entry.name.lower().endswith(ARCHIVES):
            found.entries.append(replace(who(entry.name), submission=clean(shown, 300), refused="it is not a notebook (.ipynb)"))
        else:
            found.ignored.append(clean(shown, 300))


def _student_folder(folder: Path, shown: str, lab: str, system: str, found: Found, limits: Limits) -> None:
    owner = who(Path(shown).name)
    owner = replace(owner, system=owner.system or system, submission=clean(shown, 300))
    notebooks = [
        path
        for depth in range(DEPTH + 1)
        for path in sorted(folder.glob("*/" * depth + "*"))
        if _is_notebook(path) and not _skipped(path, folder) and not _led_away(path, folder, found.out)
    ]
    # Below ASSIGNMENT folders of several labs, only this lab's counts.
    ours = [path for path in notebooks if any(_names_lab(part, lab) for part in path.relative_to(folder).parts)]
    chosen = _best(ours or notebooks, lab, limits)
    if chosen is None:
        archives = [path for path in sorted(folder.iterdir()) if path.suffix.lower() == ".zip" and not path.is_symlink()]
        if len(archives) == 1:
            with suppress(BadInput):
                _zip_of_student(archives[0], f"{shown}/{archives[0].name}", lab, found, limits, owner)
                return
        is_notebook = folder.suffix.lower() == ".ipynb"
        why = "it is a folder, not a notebook" if is_notebook else "the folder holds no notebook (.ipynb)"
        found.entries.append(replace(owner, refused=why))
        return
    found.ignored += [clean(f"{shown}/{path.relative_to(folder)}", 300) for path in ours or notebooks if path != chosen]
    timestamp = ""
    with suppress(Rejected, UnicodeDecodeError):
        timestamp = clean(read_file(chosen.parent / "timestamp.txt", 100).decode().strip())
    found.entries.append(replace(_of_file(chosen, f"{shown}/{chosen.relative_to(folder)}", owner), timestamp=timestamp))


def _zip_of_student(path: Path, shown: str, lab: str, found: Found, limits: Limits, owner: Entry | None = None) -> None:
    """A student's own archive, in a folder: one notebook is looked for in it."""
    temporary = Scratch()
    found.folders.append(temporary)
    unpacked = unpack(path, Path(temporary.name), limits)
    notebooks = [one for one in sorted(Path(temporary.name).rglob("*")) if _is_notebook(one)]
    person = replace(owner or who(path.stem), submission=clean(shown, 300))
    if chosen := _best(notebooks, lab, limits):
        found.entries.append(replace(person, path=chosen))
        return
    why = "; ".join(f"{name}: {reason}" for name, reason in list(unpacked.refused.items())[:3])
    found.entries.append(replace(person, refused=f"the archive holds no notebook (.ipynb){': ' + why if why else ''}"))


def _students_root(top: Path) -> Path:
    """Below the wrappers that tools put around: nbgrader's course folder, a zip's single folder."""
    root = top
    for _ in range(3):
        if (root / "submitted").is_dir():
            return root / "submitted"
        inside = [entry for entry in root.iterdir() if entry.name not in SKIPPED and not entry.name.startswith(".")]
        if len(inside) != 1 or not inside[0].is_dir() or inside[0].is_symlink() or who(inside[0].name).system:
            break
        below = [entry for entry in inside[0].iterdir() if not entry.name.startswith(".")]
        many = sum(
            1 for entry in below if _is_notebook(entry) or who(entry.name).system or (entry.is_dir() and any(entry.rglob("*.ipynb")))
        )
        if many < 2:
            break
        root = inside[0]
    return root


def _best(notebooks: list[Path], lab: str, limits: Limits) -> Path | None:
    """The notebook that says it is of this lab; else the one in the shallowest place."""
    if len(notebooks) > 1:
        for path in notebooks:
            with suppress(Rejected):
                if f'"{lab}"'.encode() in read_file(path, limits.notebook_bytes):
                    return path
    return notebooks[0] if notebooks else None


def _is_notebook(path: Path) -> bool:
    name = path.name.lower()
    return (name.endswith((".ipynb", ".ipynb.json", ".ipynb.txt")) or (name.endswith(".json") and not name.startswith("."))) and (
        path.is_symlink() or not path.is_dir()
    )


def _skipped(path: Path, folder: Path) -> bool:
    return any(part in SKIPPED or part.startswith(".") for part in path.relative_to(folder).parts)


def _led_away(path: Path, folder: Path, out: Path | None) -> bool:
    """Whether a folder on the way is a link (to somebody else's work, perhaps), or is where results are written."""
    above = [parent for parent in path.parents if parent.is_relative_to(folder) and parent != folder]
    return any(parent.is_symlink() or real(parent) == out for parent in above)


def _names_lab(part: str, lab: str) -> bool:
    number, _, topic = lab.partition("-")
    return part == lab or part.removesuffix(".ipynb") in (lab, topic, f"lab{number}", f"lab{int(number)}", number)


def _unique(entries: list[Entry]) -> list[Entry]:
    seen: dict[str, int] = {}
    result = []
    for entry in entries:
        seen[entry.submission] = seen.get(entry.submission, 0) + 1
        again = seen[entry.submission]
        result.append(entry if again == 1 else replace(entry, submission=f"{entry.submission} ({again})"))
    return result
