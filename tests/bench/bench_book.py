"""The book: a build after one sentence or one cell was changed, against a build that executes everything."""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
from pathlib import Path

from lab_utils.paths import repo_dir
from lab_utils.progress import Silent
from lab_utils.providers import ClusterSpec, provider
from lab_utils.run import run
from tests.bench.report import Row, seconds

NAME = "bench-book"
CHAPTER = "book/03-pods.md"
LEFT_OUT = shutil.ignore_patterns(".git", ".venv", "_build", ".*_cache", "__pycache__")


def rows() -> list[Row]:
    chosen = provider("embedded")
    with tempfile.TemporaryDirectory(prefix="lab-bench-") as folder:
        top = Path(folder) / "course"
        shutil.copytree(repo_dir(), top, ignore=LEFT_OUT)
        chapter = top / CHAPTER
        try:
            chosen.up(ClusterSpec(NAME), Silent()).close()
            full = seconds(lambda: build(top))
            chapter.write_text(chapter.read_text() + "\nOne more sentence.\n")
            sentence = seconds(lambda: build(top))
            chapter.write_text(chapter.read_text() + "\n```{code-cell} ipython3\nprint(6 * 7)\n```\n")
            cell = seconds(lambda: build(top))
        finally:
            chosen.down(NAME, Silent())
    return [
        Row(f"rebuild after {what} of {CHAPTER} changed / full build", f"{took:.0f} s", f"{full:.0f} s", f"{took / full:.2f}")
        for what, took in (("a sentence", sentence), ("a cell", cell))
    ]


def build(top: Path) -> None:
    """With a cache of its own, so that the first build executes every chapter and nobody else's outputs are lost."""
    env = {**os.environ, "LAB_CLUSTER": NAME, "LAB_CACHE": str(top.parent / "cache")}
    run([sys.executable, "-m", "lab_utils.book", "build", "--source", str(top)], env=env)
