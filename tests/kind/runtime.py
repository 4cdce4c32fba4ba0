#!/usr/bin/python3
"""runc for a machine on which nobody has CAP_SYS_RESOURCE: `docker run --privileged` asks for it, and runc then refuses to start anything.

The daemon calls this in place of runc. Before a container is created, what cannot be had here is taken out of its bundle. It imports
nothing of ours, for dockerd runs it with the system's Python.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

LACKING = "CAP_SYS_RESOURCE"
NUMBER = 24  # linux/capability.h


def may() -> bool:
    bounding = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("CapBnd:"))
    return bool(int(bounding.split()[1], 16) >> NUMBER & 1)


def lessened(spec: dict) -> dict:  # type: ignore[type-arg]
    process = spec["process"]
    process["rlimits"] = []
    process.pop("oomScoreAdj", None)
    for kind, names in process.get("capabilities", {}).items():
        process["capabilities"][kind] = [name for name in names if name != LACKING]
    return spec


def main() -> None:
    words = sys.argv[1:]
    if not may():
        if "create" in words and "--bundle" in words:
            file = Path(words[words.index("--bundle") + 1]) / "config.json"
            file.write_text(json.dumps(lessened(json.loads(file.read_text()))))
        elif "exec" in words and "--process" in words:
            file = Path(words[words.index("--process") + 1])
            file.write_text(json.dumps(lessened({"process": json.loads(file.read_text())})["process"]))
    os.execvp("runc", ["runc", *words])


if __name__ == "__main__":
    main()
