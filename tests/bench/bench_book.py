"""The book: a build after one sentence or one cell was changed, against the first one.

Here the first one executes the two model chapters, and takes the others from recordings, as `.ci/run` does. (All chapters together break
and mend nodes, fill disks and wait for timeouts: a quarter of an hour in which the machine is mostly idle.)
"""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
from pathlib import Path

from lab_utils.paths import cache_dir, repo_dir, root_cache_dir
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
        lend(top.parent / "cache")
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
        Row(f"rebuild after {what} of {CHAPTER} changed / first build", f"{took:.0f} s", f"{full:.0f} s", f"{took / full:.2f}")
        for what, took in (("a sentence", sentence), ("a cell", cell))
    ]


def build(top: Path) -> None:
    env = {**os.environ, "LAB_CLUSTER": NAME, "LAB_CACHE": str(top.parent / "cache"), "LAB_BOOK_EXECUTE": "intro,03-pods,08-services"}
    run([sys.executable, "-m", "lab_utils.book", "build", "--source", str(top)], env=env)


def lend(cache: Path) -> None:
    """A cache in which everything is ours but the runs of the book: the first build executes, and nobody else's outputs are lost."""
    cache.mkdir()
    for path in cache_dir().iterdir():
        if path.name != "book":
            (cache / path.name).symlink_to(path)
    (cache / "root").symlink_to(root_cache_dir())
