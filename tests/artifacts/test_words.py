"""What is said when a program that builds fails."""

from __future__ import annotations

from pathlib import Path

from lab_utils.artifacts.words import failed


def test_one_line_says_why_and_a_file_has_all_of_it() -> None:
    error = failed("building x failed", "a.go:1: undefined: y\n\nexit status 1\n", "Run the command again", reason="a.go:1: undefined: y")
    assert error.what == "building x failed: a.go:1: undefined: y"
    mend, _, path = error.mend.rpartition(" ")
    assert mend == "Run the command again. All that was said is in"
    assert Path(path).read_text() == "a.go:1: undefined: y\n\nexit status 1\n"
    Path(path).unlink()


def test_the_last_line_is_the_reason_where_nobody_knows_better() -> None:
    error = failed("importing images failed", "import a\nno space left on device\n")
    assert error.what == "importing images failed: no space left on device" and "\n" not in str(error)
    Path(error.mend.rpartition(" ")[2]).unlink()
