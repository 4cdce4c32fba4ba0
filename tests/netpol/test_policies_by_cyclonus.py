"""What policies mean, asked of two: `lab_utils.policies`, and cyclonus, which others wrote in Go. They agree on random clusters.

cyclonus is built when LAB_CYCLONUS=build says so (a minute), or LAB_CYCLONUS names its program; else this is skipped.
"""

from __future__ import annotations

import os
import random
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lab_utils.policies import Request, World, allowed, directions
from lab_utils.progress import Silent
from tests.kernel.pod_wires import NODES
from tests.kernel.policies import PAIRS, PORTS, worlds
from tests.kernel.test_trace_kernel import CALM
from tests.netpol import cyclonus

pytestmark = pytest.mark.skipif(not os.environ.get("LAB_CYCLONUS"), reason="set LAB_CYCLONUS=build, or to cyclonus' program")


@pytest.fixture(scope="module")
def program() -> Path:
    said = os.environ["LAB_CYCLONUS"]
    return cyclonus.build(Silent()) if said == "build" else Path(said)


def one_name_each(world: World) -> bool:
    """cyclonus knows one name for a port."""
    listed = [[(p["containerPort"], p["protocol"]) for p in pod["spec"]["containers"][0].get("ports", ())] for pod in world.pods]
    return all(len(each) == len(set(each)) for each in listed)


def of_one_family(world: World) -> bool:
    return ":" not in str([policy["spec"] for policy in world.policies]).replace("': ", "")


def test_two_readers_of_the_api_agree(program: Path, tmp_path: Path) -> None:
    asked = 0

    @settings(CALM, max_examples=60)
    @given(worlds(), st.integers(0, 1 << 30))
    def every_world(world: World, seed: int) -> None:
        nonlocal asked
        if not one_name_each(world):
            return
        # It reads policies as the API server gives them back: with policyTypes. And it knows no nodes.
        policies: list[dict[str, Any]] = [{**each, "spec": {**each["spec"], "policyTypes": directions(each)}} for each in world.policies]
        plain = World(policies, world.pods, world.namespaces)
        dice = random.Random(seed)
        pairs = [pair for pair in PAIRS if "." in pair[0]]
        requests = [Request(*dice.choice(pairs), dice.choice(("TCP", "UDP", "SCTP")), dice.choice((*PORTS, 82))) for _ in range(60)]
        answers = cyclonus.says(program, plain, requests, tmp_path)
        wrong = [(r, answer) for r, answer in zip(requests, answers, strict=True) if answer != allowed(plain, r)]
        assert not wrong, f"{wrong[:3]}\n{plain.policies}"
        asked += len(requests)

    every_world()
    assert asked > 1000 and NODES
