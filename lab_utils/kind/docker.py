"""What the commands `docker` and `kind` say."""

from __future__ import annotations

import json
import platform
import re
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from lab_utils.errors import HostLacks
from lab_utils.kind.settings import RELEASE
from lab_utils.run import Result, last_line, run

NETWORK = "kind"  # kind connects all nodes of all its clusters to one network of this name
# kind also knows podman and nerdctl, and would choose by itself; nodes are reached by `docker exec`.
ENVIRONMENT = {"KIND_EXPERIMENTAL_PROVIDER": "docker"}
HOW_TO_KIND = f"go install sigs.k8s.io/kind@{RELEASE}, or see https://kind.sigs.k8s.io/docs/user/quick-start/#installation"


@dataclass(frozen=True)
class Container:
    name: str
    running: bool
    ip: str
    started: str  # when it was started last, by the daemon's clock (RFC 3339)


def docker(*words: str, check: bool = True, timeout: float = 60) -> Result:
    return run(["docker", *words], check=check, timeout=timeout)


def kind(*words: str, check: bool = True, timeout: float = 600) -> Result:
    return run(["kind", *words], check=check, timeout=timeout, env=ENVIRONMENT)


def daemon(patience: float = 15) -> dict[str, Any]:
    """`docker info` of a daemon that answers; raises what is missing, and how to mend it."""
    if not shutil.which("docker"):
        raise HostLacks("there is no `docker` command", "Install Docker Engine or Docker Desktop: https://docs.docker.com/get-docker/")
    said = docker("info", "--format", "{{json .}}", check=False, timeout=patience)
    try:
        info: dict[str, Any] = json.loads(said.stdout or "{}")
    except ValueError:
        info = {}
    if said.ok and not info.get("ServerErrors") and info.get("ServerVersion"):
        return info
    why = " ".join([*(info.get("ServerErrors") or []), said.stderr]).strip()
    if "permission denied" in why:
        raise HostLacks("this user may not use Docker", 'sudo usermod -aG docker "$USER", then log out and in again')
    if said.code == 124:
        raise HostLacks(
            f"Docker does not answer within {patience:g} s", "Restart it: sudo systemctl restart docker, or Docker Desktop itself"
        )
    first = (why or "the daemon did not answer").splitlines()[0].removeprefix("ERROR: ")
    raise HostLacks(f"Docker does not run ({first})", _how_to_start())


def need_kind() -> None:
    if not shutil.which("kind"):
        raise HostLacks("there is no `kind` command", HOW_TO_KIND)


def clusters() -> list[str]:
    """Names of all kind clusters of this daemon, ours or not."""
    said = docker("ps", "--all", "--filter", "label=io.x-k8s.kind.cluster", "--format", '{{.Label "io.x-k8s.kind.cluster"}}')
    return sorted(set(said.stdout.split()))


def containers(names: Sequence[str]) -> dict[str, Container]:
    """Those of the containers that exist. A daemon that does not answer is an error, and no sign that none exists."""
    said = docker("container", "inspect", *names, check=False)
    if not said.ok and not re.search("no such (container|object)", said.stderr, re.IGNORECASE):
        why = last_line(said.stderr)
        raise HostLacks(f"Docker does not say which containers there are ({why})", _how_to_start())
    found = {}
    for item in json.loads(said.stdout or "[]"):
        name = item["Name"].removeprefix("/")
        network = item["NetworkSettings"]["Networks"].get(NETWORK) or {}
        state = item["State"]
        found[name] = Container(name, bool(state["Running"]), network.get("IPAddress", ""), state["StartedAt"])
    return found


def network_exists() -> bool:
    return docker("network", "inspect", NETWORK, check=False).ok


def has_image(name: str) -> bool:
    return docker("image", "inspect", name, check=False).ok


def _how_to_start() -> str:
    return "sudo systemctl start docker" if platform.system() == "Linux" else "Start Docker Desktop"
