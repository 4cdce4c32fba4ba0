from __future__ import annotations

import subprocess
import sys
from collections import Counter
from typing import Any

import pytest

from lab_utils.errors import BadInput
from lab_utils.labs.spec import LabSpec, Needs, Step, spec_from_json


def spec(**params: Any) -> LabSpec:
    return LabSpec(
        "08-services", "Services", 30, ("See one",), Needs(), ("lab-08",), (Step("split", 5, "Split", ("a", "b")),), dict(params)
    )


PORT = {"range": [8081, 8999]}
COLOUR = {"choice": ["red", "green", "blue"]}


def test_parameters_are_the_same_every_time_for_one_learner() -> None:
    assert spec(port=PORT, colour=COLOUR).draw("ada") == spec(colour=COLOUR, port=PORT).draw("ada")


def test_parameters_do_not_depend_on_the_process() -> None:
    code = "from tests.labs.test_spec import *; print(spec(port=PORT, colour=COLOUR).draw('ada'))"
    seen = {
        subprocess.run([sys.executable, "-c", code], env={"PYTHONHASHSEED": seed}, text=True, capture_output=True, check=True).stdout
        for seed in "123"
    }
    assert len(seen) == 1


def test_one_more_parameter_does_not_change_the_others() -> None:
    assert spec(port=PORT, colour=COLOUR).draw("ada")["port"] == spec(port=PORT).draw("ada")["port"]


def test_learners_get_different_parameters_all_within_range() -> None:
    ports = [spec(port=PORT).draw(f"learner-{n}")["port"] for n in range(300)]
    assert all(8081 <= port <= 8999 for port in ports)
    assert len(set(ports)) > 200
    colours = Counter(spec(colour=COLOUR).draw(f"learner-{n}")["colour"] for n in range(300))
    assert min(colours.values()) > 60


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"points": 1}', "null"])
def test_a_declaration_that_is_not_one_is_refused(text: str) -> None:
    with pytest.raises(BadInput, match=r"lab\.json does not describe a lab"):
        spec_from_json(text, "lab.json")


def test_an_unknown_step_is_named_with_the_known_ones() -> None:
    with pytest.raises(BadInput, match="Its steps are: split"):
        spec().step("splt")
