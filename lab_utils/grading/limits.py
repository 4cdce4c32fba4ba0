"""What one submission may use up. Everything a student's code can make grow has a bound here."""

from __future__ import annotations

from dataclasses import dataclass, replace

MIB = 1024 * 1024


@dataclass(frozen=True)
class Limits:
    # The file that was handed in.
    notebook_bytes: int = 25 * MIB  # outputs count too, although nobody reads them
    cell_chars: int = 200_000
    # An archive of many of them.
    archive_files: int = 20_000
    archive_bytes: int = 2_000 * MIB  # unpacked, all together
    archive_ratio: int = 200  # unpacked : packed, of one member above a mebibyte; text compresses about tenfold

    # Time, in seconds of a wall clock.
    cell_seconds: float = 120
    given_seconds: float = 60  # at least, for the course's own cells: they are not the student's to hurry
    total_seconds: float = 900
    check_seconds: float = 180  # the checks of one step; they wait for the cluster
    grace_seconds: float = 10  # between a polite interrupt and SIGKILL; on a busy machine an honest cell needs some of them
    idle_seconds: float = 1  # for the last outputs to arrive after a cell is done
    start_seconds: float = 60  # for the kernel to answer

    # What runs in the sandbox.
    memory_bytes: int = 2_048 * MIB  # address space of each process; of all together where cgroups can be used
    processes: int = 256  # threads count as processes
    open_files: int = 1_024
    file_bytes: int = 64 * MIB  # largest single file
    disk_bytes: int = 128 * MIB  # HOME and /tmp live in memory and are this large, each
    connections: int = 64  # to the cluster, at once

    # Output, counted while it arrives.
    kept_bytes: int = 64 * 1024  # of one cell's text, for the report
    picture_bytes: int = 512 * 1024  # of one cell's pictures
    cell_output_bytes: int = 16 * MIB  # then the cell is interrupted
    message_bytes: int = 8 * MIB  # one message part; a kernel that sends larger ones is cut off


DEFAULT = Limits()


def limits_with(total_seconds: float | None, cell_seconds: float | None) -> Limits:
    """The usual limits, with an instructor's times. A cell never gets more time than its notebook."""
    total = total_seconds or DEFAULT.total_seconds
    return replace(DEFAULT, total_seconds=total, cell_seconds=min(cell_seconds or DEFAULT.cell_seconds, total))
