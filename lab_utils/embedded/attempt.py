"""kubeadm on a node, by whoever reaches it: asked again where the runtime was late, its words kept, a failure told in one line."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from lab_utils.embedded import kubeadm, slow
from lab_utils.errors import Unhealthy
from lab_utils.run import Result


def kubeadm_on(node: str, verb: str, log: Path, ask: Callable[[], Result]) -> None:
    """`log` is shown to people as NODE-kubeadm-VERB.log."""
    for _ in range(slow.TRIES):
        said = ask()
        if said.ok or not slow.too_late(said.stderr):
            break
    log.write_text(said.stdout + said.stderr)
    if not said.ok:
        why = kubeadm.reason(said.stderr)
        raise Unhealthy(f"kubeadm {verb} failed on node {node}: {why}", f"Its whole output is in the file {node}-kubeadm-{verb}.log")
