from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from lab_utils.grading.scratch import YOUNG, Scratch, sweep

KILLED = """
import os
from lab_utils.grading.scratch import Scratch
made = Scratch()
folder = made.name
open(folder + "/ada.ipynb", "w").close()
print(folder, flush=True)
os.kill(os.getpid(), 9)
"""


def old(folder: Path) -> Path:
    os.utime(folder, (time.time() - 2 * YOUNG,) * 2)
    return folder


def test_what_a_killed_grader_has_left_is_removed_and_what_a_living_one_uses_is_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    left = Path(subprocess.run([sys.executable, "-c", KILLED], capture_output=True, text=True).stdout.strip())
    assert (left / "ada.ipynb").exists()
    sweep()
    assert left.exists(), "it might be younger than its lock"
    old(left)
    with Scratch() as ours:
        old(Path(ours))
        (tmp_path / "elsewhere").mkdir()
        (tmp_path / "lab-grading-link").symlink_to(old(tmp_path / "elsewhere"))
        sweep()
        assert Path(ours).exists()
    assert not left.exists()
    assert not Path(ours).exists()
    assert (tmp_path / "elsewhere").exists()
