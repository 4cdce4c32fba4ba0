"""Malformed submissions: each is rejected with a sentence for the student, or read when it can be, and never stops anything."""

from __future__ import annotations

import copy
import io
import json
import os
import stat
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from lab_utils.errors import BadInput, HostLacks
from lab_utils.grading.discover import Entry, discover, who
from lab_utils.grading.limits import Limits
from lab_utils.grading.submission import Rejected, Submission, read_file, read_submission
from tests.grading.conftest import LAB, STEPS, Notebook, as_bytes

LIMITS = Limits()


def read(what: Notebook | str | bytes) -> Submission:
    return read_submission(as_bytes(what), LAB, STEPS, {}, LIMITS)


BAD = {
    "empty": (b"", "empty"),
    "white space": (b"  \n", "empty"),
    "a mark and nothing else": (b"\xef\xbb\xbf", "empty"),
    "truncated": (b'{"cells": [{"cell_type": "code"', "not a whole notebook"),
    "not UTF-8": (b'{"cells": "\xff\xfe\xfa"}', "not UTF-8"),
    "UTF-16": ('{"cells": []}'.encode("utf-16"), "not UTF-8"),
    "null": (b"null", "not a notebook"),
    "a number": (b"17", "not a notebook"),
    "a list": (b"[]", "not a notebook"),
    "a text": (b'"cells"', "not a notebook"),
    "an empty object": (b"{}", "nbformat"),
    "nbformat 5": (b'{"nbformat": 5, "nbformat_minor": 0, "metadata": {}, "cells": []}', "format 5"),
    "nbformat 2": (b'{"nbformat": 2, "worksheets": []}', "format 2"),
    "nbformat a text": (b'{"nbformat": "4", "cells": []}', "nbformat"),
    "nbformat true": (b'{"nbformat": true, "cells": []}', "nbformat"),
    "cells missing": (b'{"nbformat": 4, "metadata": {}}', "no list of cells"),
    "cells null": (b'{"nbformat": 4, "cells": null}', "no list of cells"),
    "cells an object": (b'{"nbformat": 4, "cells": {}}', "no list of cells"),
    "no cells": (b'{"nbformat": 4, "cells": []}', "no cell of lab"),
    "cells of wrong types": (b'{"nbformat": 4, "cells": [null, 1, "x", [], {}]}', "no cell of lab"),
    "nested deep": (b'{"nbformat": 4, "cells": ' + b"[" * 100_000 + b"]" * 100_000 + b"}", "nested"),
    "nested deep objects": (b'{"a":' * 100_000 + b"1" + b"}" * 100_000, "nested"),
    "HTML": (b"<!DOCTYPE html><html></html>", "not a whole notebook"),
    "a zip in disguise": (b"PK\x03\x04\x14\x00\x00\x00", "not a"),
    "binary": (bytes(range(256)), "not UTF-8"),
    "NUL bytes": (b"\0" * 1000, "not a whole notebook"),
    "a huge number": (b'{"nbformat": ' + b"9" * 10_000 + b"}", "not a whole notebook"),
    "another lab": (b'{"nbformat": 4, "metadata": {"lab": {"name": "03-pods"}}, "cells": []}', "03-pods"),
    "another notebook": (
        b'{"nbformat": 4, "metadata": {}, "cells": [{"cell_type": "code", "metadata": {}, "source": "1", "outputs": []}]}',
        "no cell of lab",
    ),
}


@pytest.mark.parametrize(("data", "why"), BAD.values(), ids=BAD.keys())
def test_what_is_no_notebook_of_this_lab_is_rejected_with_a_reason(data: bytes, why: str) -> None:
    with pytest.raises(Rejected, match=why):
        read(data)


def test_a_mark_in_front_is_taken_off(solved: Notebook) -> None:
    assert list(read(b"\xef\xbb\xbf" + as_bytes(solved)).steps) == STEPS


def test_format_3_is_converted(solved: Notebook) -> None:
    cells = [
        {"cell_type": "code", "input": cell["source"], "metadata": cell["metadata"], "outputs": []}
        for cell in solved["cells"]
        if cell["cell_type"] == "code"
    ]
    submission = read({"nbformat": 3, "nbformat_minor": 0, "metadata": {}, "worksheets": [{"cells": cells}]})
    assert list(submission.steps) == STEPS
    assert any("format 3" in note for note in submission.notes)


WRONG_FIELDS: dict[str, list[object]] = {
    "metadata": [None, 1, "x", []],
    "source": [None, 1, {}, [1, 2], [None]],
    "id": [None, 1, {}, [], "x" * 10_000],
    "cell_type": [None, 1, "markdown", "raw", {}],
    "outputs": [None, 1, {}, [None], [{"metadata": 1}]],
    "execution_count": ["x", {}, -1],
}


@pytest.mark.parametrize(("name", "value"), [(name, value) for name, values in WRONG_FIELDS.items() for value in values])
def test_a_field_of_a_wrong_type_costs_that_cell_at_most(solved: Notebook, name: str, value: object) -> None:
    notebook = copy.deepcopy(solved)
    cell = next(cell for cell in notebook["cells"] if cell["metadata"].get("step") == "word")
    cell[name] = value
    assert set(STEPS) - set(read(notebook).steps) <= {"word"}


@pytest.mark.parametrize("name", WRONG_FIELDS)
def test_a_missing_field_costs_that_cell_at_most(solved: Notebook, name: str) -> None:
    notebook = copy.deepcopy(solved)
    for cell in notebook["cells"]:
        if cell["metadata"].get("step") == "word":
            cell.pop(name, None)
            break
    assert set(STEPS) - set(read(notebook).steps) <= {"word"}


def test_half_characters_in_code_do_not_stop_the_run(solved: Notebook) -> None:
    notebook = copy.deepcopy(solved)
    text = json.dumps(notebook).replace('"Pod\\"', '"\\ud800Pod\\"')
    submission = read(text)
    for pieces in submission.steps.values():
        "".join(pieces).encode()


def test_the_ends_of_lines_of_windows_are_no_part_of_a_command(solved: Notebook) -> None:
    notebook = copy.deepcopy(solved)
    cell = next(cell for cell in notebook["cells"] if cell["metadata"].get("step") == "word")
    cell["source"] = "%%bash\r\ntrue\r\nfalse\r"
    assert read(notebook).steps["word"] == ["%%bash\ntrue\nfalse\n"]


def test_a_cell_of_the_students_own_is_not_run_and_that_is_said(solved: Notebook, untouched: Notebook) -> None:
    assert read(untouched).notes == []
    notebook = copy.deepcopy(untouched)
    notebook["cells"].insert(2, {"cell_type": "code", "id": "a1", "metadata": {}, "source": "helper = 1", "outputs": []})
    notebook["cells"].insert(2, {"cell_type": "code", "id": "a2", "metadata": {}, "source": " ", "outputs": []})
    notebook["cells"].insert(2, {"cell_type": "markdown", "id": "a3", "metadata": {}, "source": "mine"})
    assert [note for note in read(notebook).notes if note.startswith("1 code cell that")]


def test_duplicate_ids_and_keys_are_tolerated(solved: Notebook) -> None:
    notebook = copy.deepcopy(solved)
    for cell in notebook["cells"]:
        cell["id"] = "same"
    assert list(read(notebook).steps) == STEPS
    assert list(read(json.dumps(notebook)[:-1] + ', "nbformat": 4}').steps) == STEPS


def test_ten_thousand_cells_are_read_and_only_the_tasks_kept(solved: Notebook) -> None:
    notebook = copy.deepcopy(solved)
    notebook["cells"] += [{"cell_type": "code", "metadata": {}, "source": "1", "outputs": []}] * 10_000
    notebook["cells"] += [{"cell_type": "code", "metadata": {"step": "word"}, "source": f"{n}", "outputs": []} for n in range(3_000)]
    notebook["cells"] += [{"cell_type": "raw", "metadata": {"step": "word"}, "source": "1"}] * 3_000
    submission = read(notebook)
    assert sum(len(pieces) for pieces in submission.steps.values()) < 100
    assert len(submission.notes) < 10


def test_a_file_that_is_too_large_is_not_read(tmp_path: Path) -> None:
    path = tmp_path / "x.ipynb"
    with path.open("wb") as file:
        file.truncate(10**12)  # a hole: it takes no space, and would take a terabyte of memory
    with pytest.raises(Rejected, match="larger"):
        read_file(path, LIMITS.notebook_bytes)


def test_what_is_not_a_plain_file_is_not_read(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.ipynb")
    (tmp_path / "link.ipynb").symlink_to("/etc/passwd")
    (tmp_path / "folder.ipynb").mkdir()
    for name, why in (("pipe", "plain file"), ("link", "link"), ("folder", "folder"), ("gone", "cannot be read")):
        with pytest.raises(Rejected, match=why):
            read_file(tmp_path / f"{name}.ipynb", 1000)


# Finding submissions


Finder = Callable[..., dict[str, Entry]]


@pytest.fixture
def found() -> Iterator[Finder]:
    """What is found, by student."""
    made = []

    def find(*paths: Path) -> dict[str, Entry]:
        made.append(discover(list(paths), LAB, LIMITS))
        return {entry.student: entry for entry in made[-1].entries}

    yield find
    for one in made:
        one.cleanup()


def test_one_file_per_student(tmp_path: Path, found: Finder) -> None:
    for name in ("ada.ipynb", "Ünïcödé 学生.ipynb", "{curly} $(x).ipynb", "-rf.ipynb", "a\nb.ipynb", "GRACE.IPYNB", "lin.ipynb.json"):
        (tmp_path / name).write_text("{}")
    (tmp_path / "README.md").write_text("not a submission")
    (tmp_path / ".hidden.ipynb").write_text("{}")
    (tmp_path / ".ipynb_checkpoints").mkdir()
    (tmp_path / ".ipynb_checkpoints" / "ada-checkpoint.ipynb").write_text("{}")
    assert set(found(tmp_path)) == {"ada", "Ünïcödé 学生", "{curly} $(x)", "-rf", "a?b #7e18f7", "GRACE", "lin"}
    assert discover([tmp_path], LAB, LIMITS).ignored == ["README.md"]


def test_a_folder_in_place_of_a_file_and_a_link_are_named_and_rejected(tmp_path: Path, found: Finder) -> None:
    (tmp_path / "ada.ipynb").write_text("{}")
    (tmp_path / "bob.ipynb").mkdir()
    (tmp_path / "eve.ipynb").symlink_to("/etc/passwd")
    (tmp_path / "empty").mkdir()
    entries = found(tmp_path)
    assert "folder" in entries["bob"].refused
    assert "no notebook" in entries["empty"].refused
    path = entries["eve"].path
    assert path is not None
    with pytest.raises(Rejected, match="link"):
        read_file(path, 1000)


def test_nbgraders_folders(tmp_path: Path, found: Finder) -> None:
    for student in ("ada", "bob"):
        for assignment in (LAB, "03-pods"):
            folder = tmp_path / "submitted" / student / assignment
            folder.mkdir(parents=True)
            (folder / "lab.ipynb").write_text("{}")
            (folder / "timestamp.txt").write_text("2026-11-01 10:00:00 UTC\n")
    for given in (tmp_path, tmp_path / "submitted"):
        entries = found(given)
        assert set(entries) == {"ada", "bob"}
        assert entries["ada"].path == tmp_path / "submitted/ada" / LAB / "lab.ipynb"
        assert (entries["ada"].system, entries["ada"].timestamp) == ("nbgrader", "2026-11-01 10:00:00 UTC")
    assert set(found(tmp_path / "submitted/ada" / LAB / "lab.ipynb")) == {"ada"}


def test_the_folders_of_one_student_alone(tmp_path: Path, found: Finder, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "submitted" / "ada" / LAB
    folder.mkdir(parents=True)
    (folder / "lab.ipynb").write_text("{}")
    for given in (tmp_path / "submitted/ada", folder):
        assert [(name, entry.system) for name, entry in found(given).items()] == [("ada", "nbgrader")]
    (tmp_path / "grace").mkdir()
    (tmp_path / "grace/lab.ipynb").write_text("{}")
    monkeypatch.chdir(tmp_path / "grace")
    assert set(found(Path())) == {"grace"}


def test_a_folder_that_is_a_link_is_not_gone_into(tmp_path: Path, found: Finder) -> None:
    for name in ("ada", "bob"):
        (tmp_path / name).mkdir()
    (tmp_path / "bob/lab.ipynb").write_text("{}")
    (tmp_path / "ada/mine").symlink_to("../bob")
    (tmp_path / "ada/up").symlink_to("..")
    (tmp_path / "itself").symlink_to("itself")
    (tmp_path / "ada/itself").symlink_to("itself")
    entries = found(tmp_path)
    assert "no notebook" in entries["ada"].refused
    assert "not a notebook" in entries["itself"].refused


@pytest.mark.parametrize("place", ["out", "deep/out"])
def test_results_among_the_submissions_are_not_a_submission(tmp_path: Path, place: str) -> None:
    out = tmp_path / place
    (out / "state").mkdir(parents=True)
    for path in (tmp_path / "ada.ipynb", tmp_path / "deep/bob.ipynb", out / "results.json", out / "state/ada.json"):
        path.parent.mkdir(exist_ok=True)
        path.write_text("{}")
    assert [entry.submission for entry in discover([tmp_path], LAB, LIMITS, out).entries] == ["ada.ipynb", "deep/bob.ipynb"]


def test_a_second_notebook_in_a_students_folder_is_named(tmp_path: Path) -> None:
    for student, name in (("ada", "lab"), ("ada", "scratch"), ("bob", "lab")):
        (tmp_path / student).mkdir(exist_ok=True)
        (tmp_path / student / f"{name}.ipynb").write_text("{}")
    found = discover([tmp_path], LAB, LIMITS)
    assert [entry.submission for entry in found.entries] == ["ada/lab.ipynb", "bob/lab.ipynb"]
    assert found.ignored == ["ada/scratch.ipynb"]


def test_what_is_given_twice_is_graded_once(tmp_path: Path) -> None:
    (tmp_path / "ada.ipynb").write_text("{}")
    assert len(discover([tmp_path / "ada.ipynb", tmp_path / "." / "ada.ipynb"], LAB, LIMITS).entries) == 1


def zipped(path: Path, members: dict[str, bytes]) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
        for name, data in members.items():
            file.writestr(name, data)
    return path


def test_a_canvas_zip_tells_student_id_and_lateness(tmp_path: Path, found: Finder) -> None:
    archive = zipped(
        tmp_path / "submissions.zip",
        {"lovelaceada_4711_99_lab.ipynb": b"{}", "hoppergrace_LATE_4712_98_lab-1.ipynb": b"{}", "linus_4713_97_lab.pdf": b"x"},
    )
    entries = found(archive)
    assert (entries["lovelaceada"].student_id, entries["lovelaceada"].late) == ("4711", False)
    assert (entries["hoppergrace"].student_id, entries["hoppergrace"].late) == ("4712", True)
    assert "not a notebook" in entries["linus"].refused


def test_one_notebook_in_a_zip_belongs_to_whom_the_zip_is_named_after(tmp_path: Path, found: Finder) -> None:
    """Not to the folder that it is unpacked into, which has another name each time."""
    assert set(found(zipped(tmp_path / "ada.zip", {"lab.ipynb": b"{}"}))) == {"ada"}


def test_a_moodle_zip_with_folders_or_flat(tmp_path: Path, found: Finder) -> None:
    archive = zipped(
        tmp_path / "a.zip",
        {"Ada Lovelace_12_assignsubmission_file_/lab.ipynb": b"{}", "Grace Hopper_13_assignsubmission_file_lab.ipynb": b"{}"},
    )
    entries = found(archive)
    assert {(name, entry.student_id, entry.system) for name, entry in entries.items()} == {
        ("Ada Lovelace", "12", "moodle"),
        ("Grace Hopper", "13", "moodle"),
    }


def link_member() -> zipfile.ZipInfo:
    member = zipfile.ZipInfo("link.ipynb")
    member.external_attr = (stat.S_IFLNK | 0o777) << 16
    return member


def test_a_hostile_zip_costs_its_bad_members_only(tmp_path: Path, found: Finder) -> None:
    archive = tmp_path / "hostile.zip"
    inner = io.BytesIO()
    with zipfile.ZipFile(inner, "w") as file:
        file.writestr("lab.ipynb", "{}")
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr("good.ipynb", "{}")
        file.writestr("../outside.ipynb", "{}")
        file.writestr("a/../../outside2.ipynb", "{}")
        file.writestr("/etc/lab-absolute.ipynb", "{}")
        file.writestr("C:\\windows.ipynb", "{}")
        file.writestr(link_member(), "/etc/passwd")
        file.writestr("nested.zip", inner.getvalue())
        file.writestr("bomb.ipynb", b"0" * 20_000_000)
        file.writestr("n" * 300 + ".ipynb", "{}")
    entries = found(archive)
    assert entries["good"].path is not None
    refused = {entry.submission: entry.refused for entry in entries.values() if entry.refused}
    for name, why in (
        ("../outside.ipynb", "leads out"),
        ("a/../../outside2.ipynb", "leads out"),
        ("/etc/lab-absolute.ipynb", "absolute"),
        ("C:/windows.ipynb", "absolute"),
        ("link.ipynb", "link"),
        ("nested.zip", "archive within"),
        ("bomb.ipynb", "bomb"),
    ):
        assert why in refused[name], refused
    assert any("name" in why for name, why in refused.items() if name.startswith("nnn"))
    assert not Path("/etc/lab-absolute.ipynb").exists()
    assert not (tmp_path / "outside.ipynb").exists()


@pytest.mark.parametrize("slashes", ["/", "//", "///", "\\", "\\\\", "/\\"])
def test_no_number_of_slashes_leads_out_of_a_zip(tmp_path: Path, found: Finder, slashes: str) -> None:
    """POSIX gives "//x" a root of its own, so it is not "/x" for Python, but it is for the kernel."""
    outside = tmp_path / "outside.ipynb"
    archive = renamed(tmp_path / "x.zip", {"good.ipynb": "good.ipynb", "x": slashes + str(outside).lstrip("/")})
    entries = found(archive)
    assert entries["good"].path
    assert not outside.exists()
    assert [entry.refused for entry in entries.values() if entry.refused] == ["its path in the archive is absolute"]


def renamed(path: Path, members: dict[str, str]) -> Path:
    """An archive with names that zipfile would not write by itself."""
    with zipfile.ZipFile(path, "w") as file:
        for first, name in members.items():
            member = zipfile.ZipInfo(first)
            member.filename = name
            file.writestr(member, "{}")
    return path


def test_a_member_that_cannot_be_written_costs_itself_only(tmp_path: Path, found: Finder) -> None:
    below_a_file, too_long = "a.ipynb/b/c.ipynb", "/".join(["n" * 230] * 18) + "/d.ipynb"
    archive = zipped(tmp_path / "x.zip", {"a.ipynb": b"{}", below_a_file: b"{}", too_long: b"{}", "good.ipynb": b"{}"})
    entries = found(archive)
    assert entries["good"].path
    assert [entry.refused for entry in entries.values() if entry.submission == below_a_file] == ["it cannot be unpacked (Not a directory)"]
    assert any("File name too long" in entry.refused for entry in entries.values())


def test_a_full_disk_is_nobodys_submission(tmp_path: Path, found: Finder, monkeypatch: pytest.MonkeyPatch) -> None:
    archive = zipped(tmp_path / "x.zip", {"ada.ipynb": b"{}"})

    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "mkdir", full)
    with pytest.raises(HostLacks, match="no room"):
        found(archive)


def test_a_zip_that_lies_about_sizes_is_stopped(tmp_path: Path, found: Finder) -> None:
    archive = zipped(tmp_path / "liar.zip", {"good.ipynb": b"{}", "liar.ipynb": b"0" * 3_000_000})
    data = bytearray(archive.read_bytes())
    place = data.rfind(b"PK\x01\x02")  # the directory's entry of liar.ipynb: its size comes 24 bytes in
    data[place + 24 : place + 28] = (10).to_bytes(4, "little")
    archive.write_bytes(bytes(data))
    entries = found(archive)
    assert entries["good"].path
    assert entries["liar"].refused or (entries["liar"].path and entries["liar"].path.stat().st_size <= 10)


@pytest.mark.parametrize("data", [b"", b"PK\x03\x04", b"no zip at all", b"PK\x05\x06" + b"\0" * 18])
def test_a_broken_zip_is_bad_input(tmp_path: Path, data: bytes, found: Finder) -> None:
    (tmp_path / "x.zip").write_bytes(data)
    with pytest.raises(BadInput, match=r"zip|no submissions"):
        found(tmp_path / "x.zip")


def test_nothing_to_grade_is_bad_input(tmp_path: Path, found: Finder) -> None:
    with pytest.raises(BadInput, match="no submissions"):
        found(tmp_path)
    with pytest.raises(BadInput, match="there is no"):
        found(tmp_path / "gone")


def test_two_submissions_of_one_student_are_both_kept(tmp_path: Path) -> None:
    for place in ("a", "b"):
        (tmp_path / place).mkdir()
        (tmp_path / place / "ada.ipynb").write_text("{}")
    result = discover([tmp_path / "a/ada.ipynb", tmp_path / "b/ada.ipynb"], LAB, LIMITS)
    assert len({entry.submission for entry in result.entries}) == 2


@pytest.mark.parametrize("names", [("ada\x01", "ada\x02"), ("a" * 90 + "1", "a" * 90 + "2"), ("ada\udc80", "ada\udc81")])
def test_names_that_cannot_be_shown_whole_stay_different(names: tuple[str, str]) -> None:
    first, second = (who(f"{name}.ipynb").student for name in names)
    assert first != second
    assert (first + second).isprintable()
    assert len(first) < 100


def test_rejections_are_grades_of_nothing(grader: Callable[..., object], tmp_path: Path) -> None:
    grade = grader(b"null")
    assert (grade.status, grade.score, grade.max_score) == ("rejected", 0, 13)  # type: ignore[attr-defined]
    assert all(not step.executed for step in grade.steps)  # type: ignore[attr-defined]
