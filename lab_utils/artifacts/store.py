"""The cache on disk: entries that are either whole or absent.

An entry is a folder. Beside it lies `<entry>.json`, its *provenance*: what it is, where it came from, and how to recognise it.
It is written last, so an entry without it was never finished. Work happens in `<entry>.part`, under a lock, and is renamed.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import IO, Any

from lab_utils.paths import root_cache_dir
from lab_utils.progress import Progress
from lab_utils.run import stop_if_ended

CHUNK = 1 << 20
WAIT_SECONDS = 0.2  # between two looks at a lock that another command holds


@dataclass(frozen=True)
class Provenance:
    """Where one thing in the cache came from. `source` is one of release, registry, build, debian."""

    component: str
    version: str
    source: str
    sha256: str = ""
    path: str = ""
    detail: str = ""  # the address, or what it was built from
    seconds: float = 0.0  # what making it took
    marks: dict[str, Any] = field(default_factory=dict, compare=False, repr=False)


def recipe(*parts: object) -> str:
    """A short name for what goes into an entry: equal parts, equal name, on any machine."""
    text = json.dumps(parts, sort_keys=True, default=_plain, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def _plain(value: object) -> object:
    if hasattr(value, "__dataclass_fields__"):
        return asdict(value)  # type: ignore[call-overload]
    if isinstance(value, Path):
        return {str(path.relative_to(value)): sha256(path) for path in _files(value)} if value.is_dir() else sha256(value)
    raise TypeError(f"a recipe cannot hold {value!r}")


def sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(CHUNK):
            digest.update(chunk)
    return digest.hexdigest()


def find(entry: Path, progress: Progress) -> Provenance | None:
    """The entry's provenance when it is there and sound. A damaged one is removed, and said to be; root's is left to root."""
    known = read(entry)
    if known is None or not entry.exists():
        return None
    if _sound(entry, known):
        return known
    if not os.access(entry.parent, os.W_OK):
        return None
    progress.note(f"{known.component} in the cache is damaged, so it is made again")
    remove(entry)
    return None


def read(entry: Path) -> Provenance | None:
    try:
        return Provenance(**json.loads(_record(entry).read_text()))
    except (OSError, ValueError, TypeError):
        return None


def remove(entry: Path) -> None:
    _record(entry).unlink(missing_ok=True)
    for path in (entry, _part(entry)):
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)


@contextmanager
def locked(entry: Path, progress: Progress) -> Iterator[None]:
    """Only one command makes an entry. Another one waits, and says so."""
    make_dir(entry.parent)
    with open(f"{entry}.lock", "w") as file:  # noqa: PTH123  (a suffix added to any name, not replaced)
        give_back(Path(file.name))
        if not _lock(file):
            progress.note(f"another `lab` command is making {entry.parent.name}/{entry.name}; waiting for it")
            while not _lock(file):  # looking again and again, so that Ctrl-C ends the waiting in any thread
                stop_if_ended()
                time.sleep(WAIT_SECONDS)
        yield


def _lock(file: IO[str]) -> bool:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


@contextmanager
def making(entry: Path) -> Iterator[Path]:
    """A folder to work in; it becomes the entry by `finish`. Whatever happens, it is gone afterwards. Hold the lock."""
    remove(entry)
    part = _part(entry)
    make_dir(part.parent)
    part.mkdir()
    try:
        yield part
    finally:
        if part.exists():
            shutil.rmtree(part)


def finish(entry: Path, provenance: Provenance, *, tree: bool = False) -> Provenance:
    """The folder from `making` becomes the entry, with how to recognise it: each file's checksum, or for a tree a fingerprint."""
    part = _part(entry)
    give_back(part)
    part.rename(entry)
    marks = {"tree": fingerprint(entry)} if tree else {str(path.relative_to(entry)): _mark(path) for path in _files(entry)}
    first = next(iter(marks.values()))
    digest = provenance.sha256 or (first["sha256"] if len(marks) == 1 and isinstance(first, dict) else recipe(marks))
    whole = Provenance(**{**asdict(provenance), "path": str(entry), "sha256": digest, "marks": marks})
    _write(entry, whole)
    return whole


def all_under(folder: Path) -> list[Provenance]:
    """Everything finished in a folder of entries, at any depth."""
    found = [read(record.with_name(record.name.removesuffix(".json"))) for record in sorted(folder.rglob("*.json")) if record.is_file()]
    return [provenance for provenance in found if provenance is not None]


def fingerprint(tree: Path) -> str:
    """Recognises a large tree without reading it: every file's path, size, mode and time of change."""
    digest = hashlib.sha256()
    for folder, _, names in sorted(os.walk(tree)):
        for name in sorted(names):
            path = f"{folder}/{name}"
            status = os.lstat(path)
            digest.update(f"{path} {status.st_size} {status.st_mode} {status.st_mtime_ns}\n".encode())
    return digest.hexdigest()


def make_dir(path: Path) -> None:
    """mkdir -p; under sudo, folders in a user's home are the user's."""
    missing = [folder for folder in (path, *path.parents) if not folder.exists()]
    path.mkdir(parents=True, exist_ok=True)
    for folder in reversed(missing):
        give_back(folder)


def give_back(path: Path) -> None:
    """Nothing under a user's home may end up owned by root: what is made there belongs to the owner of its folder.

    But for what only root can make, which LAB_CACHE may move there: in a Debian root each file has an owner of its own.
    """
    owner = path.parent.stat()
    if os.geteuid() != 0 or owner.st_uid == 0 or path.is_relative_to(root_cache_dir()):
        return
    for folder, names, files in os.walk(path):
        for name in (*names, *files):
            os.lchown(f"{folder}/{name}", owner.st_uid, owner.st_gid)
    os.lchown(path, owner.st_uid, owner.st_gid)


def stopwatch() -> Stopwatch:
    return Stopwatch(time.monotonic())


@dataclass(frozen=True)
class Stopwatch:
    started: float

    @property
    def seconds(self) -> float:
        return round(time.monotonic() - self.started, 1)


def _sound(entry: Path, known: Provenance) -> bool:
    if "tree" in known.marks:
        return bool(known.marks["tree"] == fingerprint(entry))
    fresh = False
    for name, mark in known.marks.items():
        path = entry / name
        try:
            status = path.stat()
        except OSError:
            return False
        # Reading half a gigabyte at each command would be slow: as in git, a file is read when its size or time has changed.
        if (status.st_size, status.st_mtime_ns) != (mark["size"], mark["mtime_ns"]):
            if sha256(path) != mark["sha256"]:
                return False
            mark["mtime_ns"] = status.st_mtime_ns
            fresh = True
    if fresh and os.access(_record(entry), os.W_OK):
        _write(entry, known)
    return True


def _mark(path: Path) -> dict[str, object]:
    status = path.stat()
    return {"sha256": sha256(path), "size": status.st_size, "mtime_ns": status.st_mtime_ns}


def _files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file() and not path.is_symlink())


def _record(entry: Path) -> Path:
    return entry.with_name(entry.name + ".json")


def _part(entry: Path) -> Path:
    return entry.with_name(entry.name + ".part")


def _write(entry: Path, provenance: Provenance) -> None:
    record = _record(entry)
    new = record.with_name(record.name + ".new")
    new.write_text(json.dumps(asdict(provenance), indent=1) + "\n")
    give_back(new)
    new.replace(record)
