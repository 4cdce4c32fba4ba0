"""What a program said before it failed: one line of it for whoever waits, and all of it in a file."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

from lab_utils.errors import ArtifactFailed
from lab_utils.run import last_line


def failed(what: str, said: str, mend: str = "", reason: str = "") -> ArtifactFailed:
    """`reason` is the line that says why; the last one, unless the caller knows better."""
    handle, path = tempfile.mkstemp(prefix="lab-build-", suffix=".log")
    with os.fdopen(handle, "w") as file:
        file.write(said)
    Path(path).chmod(0o644)  # behind sudo it is root who writes, and a user who reads
    ways = [*([mend] if mend else []), f"All that was said is in {path}"]
    return ArtifactFailed(f"{what}: {reason or last_line(said)}", ". ".join(ways))
