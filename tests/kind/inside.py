"""Runs in the namespaces that __main__ made: Docker, a node image, and then everything that is to be proven."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import click

from lab_utils.cli.console import Console
from lab_utils.cluster import connect
from lab_utils.labs.build import load_source
from lab_utils.labs.catalog import find_lab
from lab_utils.labs.release import notebook_text, solution
from lab_utils.run import run
from tests.kind import daemon, image

INOTIFY = Path("/proc/sys/fs/inotify/max_user_instances")  # kind's own documentation asks for more than the kernel's 128
SUITE = ("tests/providers/test_conformance.py", "tests/kind", "tests/cluster/test_up.py")

DOOR = """
apiVersion: v1
kind: Pod
metadata: {name: door, labels: {app: door}}
spec:
  terminationGracePeriodSeconds: 0
  containers: [{name: door, image: "registry.k8s.io/e2e-test-images/agnhost:2.63.0", args: [netexec, --http-port=8080]}]
---
apiVersion: v1
kind: Service
metadata: {name: door}
spec: {type: NodePort, selector: {app: door}, ports: [{port: 80, targetPort: 8080, nodePort: 30080}]}
"""


@click.command()
@click.argument("folder", type=click.Path(path_type=Path))
@click.option("-k", "expression", default="")
@click.option("--bench", type=click.Path(path_type=Path), default=None)
def main(folder: Path, expression: str, bench: Path | None) -> None:
    settle()
    progress = Console()
    with daemon.running(folder, progress) as env:
        os.environ |= env
        os.environ |= {"LAB_KIND_IMAGE": image.make(daemon.kind_source(progress), folder, progress), "LAB_TEST_PROVIDER": "kind"}
        os.environ |= {"LAB_STATE": str(folder / "state")}
        if bench:
            from tests.bench.bench_kind import race
            from tests.bench.report import table

            rows = race(os.environ["LAB_KIND_IMAGE"])
            bench.write_text(json.dumps(rows))
            click.echo(table(rows))
            sys.exit(0)
        ended = {"the suite": suite(expression)}
        if not expression:
            ended["lab 08"] = graded("08", folder)
    for what, code in ended.items():
        click.echo(f"{'FAIL' if code else 'ok'}  {what}")
    sys.exit(1 if any(ended.values()) else 0)


def settle() -> None:
    """A network and a mount namespace are born closed to the outside, with nothing up in the one and everything shared in the other."""
    run(["mount", "--make-rprivate", "/"])
    run(["ip", "link", "set", "lo", "up"])
    Path("/proc/sys/net/ipv4/ip_forward").write_text("1")  # dockerd would set FORWARD to DROP if it had to do this itself
    INOTIFY.write_text(str(max(8192, int(INOTIFY.read_text()))))


def suite(expression: str) -> int:
    chosen = ["-k", expression] if expression else []
    return subprocess.run([sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-v", "--durations=8", *chosen, *SUITE]).returncode


def graded(number: str, folder: Path) -> int:
    """The lab's solution, handed in and graded on a kind cluster as it would be anywhere: sandboxed, on a pristine cluster."""
    files = find_lab(number)
    inbox, out = folder / "in", folder / "out"
    inbox.mkdir()
    (inbox / "ada.ipynb").write_text(notebook_text(solution(load_source(files))))
    code = lab("up", "--name", "grading", "--provider", "kind", "--workers", "2", "--port", "18080:30080")
    try:
        code = code or door_answers("grading")
        code = code or lab("grade", number, str(inbox), "--out", str(out), "--cluster", "grading")
    finally:
        lab("down", "--name", "grading")
    grades = [json.loads(path.read_text()) for path in sorted((out / "state").glob("*.json"))]
    for grade in grades:
        click.echo(f"lab {files.name} on kind: {grade['student']} {grade['score']:g} of {grade['max_score']:g}")
        for step in grade["steps"]:
            if step["earned"] != step["points"]:
                click.echo(f"   {step['step']}: {step['earned']:g} of {step['points']:g}, {step['message']}")
    full = len(grades) == 1 and all(grade["score"] == grade["max_score"] for grade in grades)
    return code or (0 if full else 1)


def door_answers(name: str) -> int:
    """A NodePort of the cluster, asked on this host's own loopback."""
    cluster = connect(name)
    cluster.apply(DOOR, "default")
    cluster.wait("pod/door condition=Ready -n default", timeout=180)
    said = run(
        ["curl", "-s", "-m", "10", "--retry", "20", "--retry-all-errors", "--retry-delay", "1", "http://127.0.0.1:18080/hostname"],
        check=False,
    )
    cluster.delete(DOOR, "default")
    click.echo(f"{'ok' if said.stdout == 'door' else 'FAIL'}  --port: a NodePort answers on the host: {said.stdout!r} {said.stderr}")
    return 0 if said.stdout == "door" else 1


def lab(*words: str) -> int:
    return subprocess.run([sys.executable, "-m", "lab_utils", *words]).returncode


if __name__ == "__main__":
    main()
