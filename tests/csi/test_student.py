"""Lab 13's driver: methods come from the learner's files, and what the solution writes passes csi-sanity."""

from __future__ import annotations

import re

import pytest

from lab_utils.errors import BadInput
from lab_utils.labs.catalog import find_lab
from tests.csi.conftest import Box

SIZES = f"--csi.testvolumesize={32 << 20} --csi.testvolumeexpandsize={64 << 20}"
START = "mkdir -p /run/mine; SOCKETS=/run/mine DISKS=/run/disks STUDENT=/run/files python3 -m csi.student > /run/log 2>&1 &"


def files_of_the_solution() -> dict[str, str]:
    """Name and text of each file that the lab's solution writes."""
    text = find_lab("13").source.read_text()
    return dict(re.findall(r"""^write\("(\w+\.py)", '''(.*?)^'''\)""", text, re.S | re.M))


def run_driver(box: Box, files: dict[str, str], then: str) -> str:
    box.sh("rm -rf /run/files /run/disks; mkdir -p /run/files")
    for name, text in files.items():
        (box.root / "code" / name).write_text(text)
    # The folder /run is a file system of its own in there; the files go through one that both see.
    box.sh("cp /code/*.py /run/files/; rm /code/*.py")
    wait = "for i in $(seq 50); do grep -q answers /run/log && break; sleep 0.2; done"
    return box.sh(f"{START} {wait}; {then}; kill $!; cat /run/log")


@pytest.mark.kernel
def test_what_the_solution_writes_passes_csi_sanity(box: Box) -> None:
    files = files_of_the_solution()
    assert set(files) == {"create.py", "mount.py", "grow.py", "delete.py"}
    judge = f"csi-sanity --ginkgo.no-color --csi.endpoint=/run/mine/csi.sock {SIZES} --csi.mountdir=/run/m --csi.stagingdir=/run/st"
    said = run_driver(box, files, judge)
    passed, failed = (int(re.findall(rf"(\d+) {word}", said)[0]) for word in ("Passed", "Failed"))
    print(f"{passed} passed, {failed} failed")
    assert failed == 0 and passed >= 40, said


@pytest.mark.kernel
def test_a_file_that_does_not_load_costs_only_its_own_methods(box: Box) -> None:
    files = {"a.py": "this is no Python", "b.py": "def DeleteVolume(self, request):\n    return {}\n"}
    ask = "for m in CreateVolume DeleteVolume; do python3 -m csi.protocol /run/mine/csi.sock Controller/$m; done"
    said = run_driver(box, files, ask)
    assert "UNIMPLEMENTED" in said and "DeleteVolume is from b.py" in said and "a.py does not load" in said and "SyntaxError" in said


def test_a_mistake_in_python_is_told_before_anything_is_started() -> None:
    from lab_utils.csi import workshop

    with pytest.raises(BadInput, match=r"create.py, line 1"):
        workshop.write(None, "create.py", "def :")  # type: ignore[arg-type]
