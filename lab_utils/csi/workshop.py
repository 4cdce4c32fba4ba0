"""Lab 13's workshop: files with methods of the driver, written in a notebook, put to work on the cluster."""

from __future__ import annotations

from typing import Any

from lab_utils.csi import deploy
from lab_utils.errors import BadInput
from lab_utils.labs.workspace import Workspace


def write(lab: Workspace, name: str, source: str) -> None:
    """Put a file into the ConfigMap `student`, and start the driver anew with it. Says which methods it has now, and which it lacks."""
    if not name.endswith(".py"):
        raise BadInput(f"{name!r} is not the name of a Python file", 'Name it like "create.py"')
    try:
        compile(source, name, "exec")
    except SyntaxError as error:
        raise BadInput(f"{name}, line {error.lineno}: {error.msg}") from None
    lab.apply(student({**sources(lab), name: source}))
    deploy.restart(lab.cluster, lab.namespace)
    pod = next(iter(deploy.pods(lab.cluster, lab.namespace).values()))
    said = lab.kubectl("logs", pod, "-c", "driver").stdout
    print("".join(line + "\n" for line in said.splitlines() if not line.startswith("{")), end="")


def sources(lab: Workspace) -> dict[str, str]:
    found = lab.find("configmap", "student")
    return dict((found or {}).get("data") or {})


def student(files: dict[str, str]) -> dict[str, Any]:
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "student"}, "data": files}
