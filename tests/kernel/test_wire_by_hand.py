"""What lab 06 says of ARP, bridges and NAT, and its program, against the kernel: in namespaces that end with each command."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

import pytest

from lab_utils.checks import load_checks
from lab_utils.labs.build import load_source, load_wrong
from lab_utils.labs.catalog import find_lab
from lab_utils.run import Result, run
from tests.kernel.wiring import needs_root

pytestmark = [pytest.mark.kernel, needs_root]


class Here:
    """This machine in a node's place."""

    def run(self, argv: list[str], timeout: float) -> Result:
        return run(argv, timeout=timeout)


@pytest.fixture(scope="module")
def checks() -> dict[str, Any]:
    """The names in the lab's checks.py."""
    return load_checks(find_lab("06", sources=True).folder / "checks.py").checks["tables"].function.__globals__


def programs() -> dict[str, tuple[str, float]]:
    """Every program that the lab's files hold, and the points that it must earn."""
    files = find_lab("06", sources=True)
    source = load_source(files)
    task = next(cell for cell in source.tasks if cell.step and cell.step.name == "program")
    assert task.step
    found: dict[str, tuple[str, float]] = {"solution": (task.solved, task.step.points), "untouched": (task.stub, 0)}
    for wrong in load_wrong(files):
        if "program" in wrong.cells:
            found[Path(wrong.where).stem] = (wrong.cells["program"], wrong.steps.get("program", task.step.points))
    return found


def test_what_the_lab_says_of_tables_is_so(checks: dict[str, Any]) -> None:
    lines = checks["tried"](Here(), checks["TABLES"])
    assert [line for line in lines if line] == [
        "answered",
        "red_knows_blue yes",
        "node_knows_red no",
        "bridge_knows_both yes",
        "bridge_knows_addresses no",
    ]


def test_without_nat_the_request_arrives_and_no_answer_comes(checks: dict[str, Any]) -> None:
    lines = checks["tried"](Here(), checks["WITHOUT_NAT"])
    assert "source 10.99.0.2" in lines and "answered" not in lines


@pytest.mark.parametrize("name", programs())
def test_the_program_earns(name: str, checks: dict[str, Any], tmp_path: Path) -> None:
    text, points = programs()[name]
    path = tmp_path / "wire.py"
    path.write_text(text.split("\n", 1)[1])
    # Nodes have pyroute2 as a package of their python3; here it is the one that these tests run with.
    env = {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    done = run(["unshare", "--net", "--mount", "bash", "-c", checks["TRIAL"], "trial", str(path)], env=env, timeout=120)
    lines = [line for line in done.stdout.splitlines() if line.startswith(("ok ", "wrong "))]
    wrong = [line for line in lines if line.startswith("wrong ")]
    earned = 0 if any(line.startswith(("wrong add:", "wrong red reaches blue")) for line in wrong) else 14 * (1 - len(wrong) / len(lines))
    assert len(lines) == 12 and earned == pytest.approx(points), wrong
