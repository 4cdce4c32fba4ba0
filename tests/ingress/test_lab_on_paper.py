"""Lab 10's steps that need no cluster: pieces are run as in the notebook, and what they hand in is judged by the lab's own checks.

A Pod of a check is a folder with the image's files and a network namespace. What needs a cluster (wish, cafe, routes, gateway, controller,
code) is left to tests/labs/test_every_lab.py. The solution is always tried, the other answers when LAB_TEST_LABS names the lab.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from lab_utils.checks import run_checks
from lab_utils.labs.build import load_source, load_wrong
from lab_utils.labs.catalog import find_lab
from lab_utils.labs.context import CheckContext
from lab_utils.labs.parts import Parts, pieces_of
from lab_utils.labs.release import Notebook, handed_in, released, solution
from lab_utils.labs.store import Store
from lab_utils.run import Result
from tests.ingress.image import Container, asked_for

pytestmark = pytest.mark.kernel
LAB = find_lab("10-load-balancing-and-ingress", sources=True)
SOURCE = load_source(LAB)
ON_PAPER = ("servers", "locations", "sites", "nginx")
WRONG = {Path(wrong.where).stem: wrong for wrong in load_wrong(LAB)}
SERVER = """
import http.server, socket, sys
socket.getfqdn = str  # http.server asks for its own name, and here nobody answers
class Answer(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200); self.end_headers(); self.wfile.write((sys.argv[2] + "-pod " + self.path).encode())
    def log_message(self, *words): pass
http.server.ThreadingHTTPServer((sys.argv[1], 8080), Answer).serve_forever()
"""
PODS = {"tea": "127.0.1.1", "coffee": "127.0.1.2", "cake": "127.0.1.3", "newtea": "127.0.1.4"}


@pytest.fixture
def pod(image_files: Path, tmp_path: Path) -> Iterator[Container]:
    made = Container(image_files, f"paper-{os.getpid()}")
    try:
        for name, address in PODS.items():
            made.start(["python3", "-c", SERVER, address, name], tmp_path / name)
        for address in PODS.values():
            made.until_it_answers(f"http://{address}:8080/")
        yield made
    finally:
        made.close()


class PaperCluster:
    """kubectl for the few commands that these checks use: there is one Pod, and it has the image's files."""

    name = provider = "paper"
    nodes: Sequence[Any] = ()

    def __init__(self, pod: Container) -> None:
        self.pod = pod
        self.record = SimpleNamespace(options={})

    def apply(self, *_: Any) -> Result:
        return Result("", "", 0)

    def kubectl(self, *words: str, input: str | None = None, timeout: float = 120, **_: Any) -> Result:
        if "exec" in words:
            return self.pod.run(words[words.index("--") + 1 :], input=input, timeout=timeout)
        if "delete" in words:  # what the last one left behind
            self.pod.kill(but=[process.pid for process in self.pod.started])
            self.pod.run(["sh", "-c", "rm -rf /tmp/* /run/*"])
        return Result("", "", 0)


def listed(kind: str) -> Any:
    """The lab's Services and their slices, as the API would give them."""
    made = []
    for name, address in PODS.items():
        meta = {"name": name, "namespace": "lab-10", "labels": {"kubernetes.io/service-name": name}}
        if kind == "services":
            made.append({"metadata": meta, "spec": {"ports": [{"name": "http", "port": 80, "targetPort": 8080}]}})
        else:
            ends = [{"addresses": [address], "conditions": {"ready": True}}]
            made.append({"metadata": meta, "addressType": "IPv4", "ports": [{"name": "http", "port": 8080}], "endpoints": ends})
    return {"items": made}


def scored(notebook: Notebook, pod: Container, folder: Path) -> dict[str, float]:
    """Run the cells from the task `servers` on, and the two that they build on; points by step."""
    (folder / "store").mkdir()
    store = Store(LAB.name, folder / "store")
    lab: Any = CheckContext(LAB.spec, LAB.checks, PaperCluster(pod), "paper", store)
    parts, names = Parts(pieces_of(notebook)), {"lab": lab}
    lab.parts, lab.answer, lab.get = parts, store.answer, lambda kind, *_: listed(kind)
    earned: dict[str, float] = {}
    begun = False
    for cell in notebook["cells"]:
        text, step = "".join(cell["source"]), cell["metadata"].get("step")
        begun = begun or text.startswith("lab.parts.runs_here")
        wanted = begun or "def certificate(host)" in text or text.startswith("import json\n")
        if cell["cell_type"] != "code" or "check" in cell["metadata"].get("tags", []) or not wanted or (step and step not in ON_PAPER):
            continue
        if text.startswith("%%part controller.py tell"):
            break
        if not text.startswith("%%part"):
            text = "\n".join(line for line in text.splitlines() if not line.startswith(("print(", "ENVOY =")))
        try:
            if text.startswith("%%part "):
                first, _, rest = text.partition("\n")
                file, piece = first.split()[1:]
                parts.keep(file, piece, rest, names)
                if step:
                    store.answer(step, parts.answer(file, piece))
            else:
                exec(compile(text, step or "given", "exec"), names)
        except Exception as error:
            print(f"{step}: {type(error).__name__}: {error}")
        if step:
            (result,) = run_checks(LAB.checks, lab, only=step)
            assert result.status != "error", result.message
            print(step, result.status, result.earned, result.expected, result.seen)
            earned[step] = result.earned
    return earned


def points(steps: dict[str, float] | None = None) -> dict[str, float]:
    return {step: (steps or {}).get(step, LAB.spec.step(step).points) for step in ON_PAPER}


def test_the_solution_has_all_points(pod: Container, tmp_path: Path) -> None:
    assert scored(solution(SOURCE), pod, tmp_path) == points()


@asked_for
def test_an_untouched_notebook_has_none(pod: Container, tmp_path: Path) -> None:
    assert scored(released(SOURCE), pod, tmp_path) == dict.fromkeys(ON_PAPER, 0)


@asked_for
@pytest.mark.parametrize("name", [name for name, wrong in WRONG.items() if set(wrong.cells) & set(ON_PAPER)])
def test_an_answer_has_the_points_that_it_declares(name: str, pod: Container, tmp_path: Path) -> None:
    wrong = WRONG[name]
    assert scored(handed_in(SOURCE, wrong), pod, tmp_path) == points(dict(wrong.steps))
