"""Unpacking an LMS archive into a folder of ours, without believing a word of it.

Every member is written under its own name below the folder, or refused with a reason and remembered. What
cannot hurt when refused alone (a link, a path that leads out, a bomb) costs that member only.
"""

from __future__ import annotations

import errno
import stat
import zipfile
import zlib
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from lab_utils.errors import BadInput, HostLacks
from lab_utils.grading.limits import MIB, Limits
from lab_utils.grading.submission import clean

ARCHIVES = (".zip", ".tar", ".gz", ".tgz", ".bz2", ".xz", ".7z", ".rar")
FULL = (errno.ENOSPC, errno.EDQUOT)  # not the student's doing, so nothing is refused for it
SKIPPED = ("__MACOSX", ".DS_Store", "Thumbs.db", ".ipynb_checkpoints", "__pycache__")


@dataclass
class Unpacked:
    folder: Path
    refused: dict[str, str] = field(default_factory=dict)  # member → why


def unpack(archive: Path, into: Path, limits: Limits) -> Unpacked:
    done = Unpacked(into)
    try:
        with zipfile.ZipFile(archive) as file:
            members = file.infolist()
            if len(members) > limits.archive_files:
                raise BadInput(f"{archive} holds {len(members)} files", f"At most {limits.archive_files} are read at once: split it")
            left = limits.archive_bytes
            for member in members:
                left -= _unpack_one(file, member, done, left, limits)
    except (zipfile.BadZipFile, OSError, EOFError, NotImplementedError, UnicodeError) as error:
        raise BadInput(f"{archive} cannot be read as a zip archive ({error})", "Download it again from the LMS") from None
    return done


def _unpack_one(file: zipfile.ZipFile, member: zipfile.ZipInfo, done: Unpacked, left: int, limits: Limits) -> int:
    """Write one member, or say why not. Returns the bytes written."""
    name = member.filename.replace("\\", "/")
    parts = [part for part in PurePosixPath(name).parts if part != "."]
    if member.is_dir() or not parts or any(part in SKIPPED or part.startswith("._") for part in parts):
        return 0
    mode = member.external_attr >> 16

    def refuse(why: str) -> int:
        done.refused[clean(name, 200)] = why
        return 0

    if name.startswith("/") or (len(parts[0]) == 2 and parts[0][1] == ":"):  # POSIX reads "//x" as a root of its own
        return refuse("its path in the archive is absolute")
    if ".." in parts:
        return refuse("its path in the archive leads out of it (..)")
    if stat.S_IFMT(mode) not in (0, stat.S_IFREG):
        return refuse("it is a link in the archive, and links are not followed" if stat.S_ISLNK(mode) else "it is not a plain file")
    if parts[-1].lower().endswith(ARCHIVES):
        return refuse("it is an archive within the archive, which is not opened. Hand in the notebook itself")
    if any(len(part.encode("utf-8", "replace")) > 240 for part in parts) or len(parts) > 20 or any("\0" in part for part in parts):
        return refuse("its name cannot be used for a file")
    if member.flag_bits & 0x1:
        return refuse("it is encrypted")
    if member.file_size > limits.notebook_bytes:
        return refuse(f"it is larger than {limits.notebook_bytes // MIB} MiB")
    if member.file_size > MIB and member.file_size > limits.archive_ratio * max(1, member.compress_size):
        return refuse("it unpacks to far more than it weighs (a zip bomb)")
    if member.file_size > left:
        return refuse(f"the archive unpacks to more than {limits.archive_bytes // MIB} MiB")
    target = done.folder.joinpath(*parts)
    written = 0
    made = False
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with file.open(member) as source, target.open("xb") as copy:
            made = True
            # The directory of the archive may lie about the size, so what arrives is counted.
            while piece := source.read(1 << 16):
                written += len(piece)
                if written > min(left, limits.notebook_bytes):
                    raise ValueError("it unpacks to more than the archive says (a zip bomb)")
                copy.write(piece)
    except FileExistsError:
        return refuse("the archive holds two files of this name")
    except (OSError, ValueError, zipfile.BadZipFile, zlib.error, EOFError, RuntimeError, NotImplementedError) as error:
        if made:
            target.unlink(missing_ok=True)
        if isinstance(error, OSError) and error.errno in FULL:
            raise HostLacks(f"there is no room to unpack an archive in {done.folder.parent}", "Make room, or set TMPDIR") from None
        why = error.strerror if isinstance(error, OSError) and error.strerror else clean(str(error))  # not with our own path in it
        refuse(str(error) if isinstance(error, ValueError) else f"it cannot be unpacked ({why})")
    return written
