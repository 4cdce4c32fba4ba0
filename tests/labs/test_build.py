from __future__ import annotations

import io
import json
from pathlib import Path

import nbformat
import pytest

from lab_utils.errors import BadInput
from lab_utils.labs.build import build, differences, load_source, load_wrong, outputs, solution_text
from lab_utils.labs.catalog import LabFiles, find_lab
from lab_utils.labs.release import handed_in, joined, released


def edit(path: Path, old: str, new: str) -> None:
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))


def fresh(files: LabFiles) -> LabFiles:
    return LabFiles(files.name, files.root)


def test_a_release_is_a_valid_notebook_without_solutions_hints_or_outputs(example: LabFiles) -> None:
    text = example.notebook.read_text()
    notebook = nbformat.from_dict(json.loads(text))  # type: ignore[no-untyped-call]
    nbformat.validate(notebook)
    again = io.StringIO()
    nbformat.write(notebook, again)  # type: ignore[no-untyped-call]
    assert again.getvalue() == text, "saving it in Jupyter must not change a byte"
    assert "BEGIN SOLUTION" not in text
    assert "str(lab.params" not in text, "a solution was released"
    assert "explain configmap.data" not in text, "a hint was released"
    assert "For instructors" not in text
    assert all(not cell.get("outputs") and cell.get("execution_count") is None for cell in notebook.cells)


def test_cell_ids_come_from_steps_and_stay_when_other_cells_move(example: LabFiles) -> None:
    before = [cell["id"] for cell in released(load_source(example))["cells"]]
    assert {"predict", "check-predict", "mend", "check-mend", "progress"} <= set(before)
    edit(example.source, "## Predict\n", "A new first paragraph.\n\n+++\n\n## Predict\n")
    after = [cell["id"] for cell in released(load_source(example))["cells"]]
    assert set(before) < set(after)
    assert len(set(after)) == len(after)


def test_the_same_text_twice_has_two_ids(example: LabFiles) -> None:
    edit(example.source, "## Predict\n", "Again.\n\n+++\n\nAgain.\n\n+++\n\n## Predict\n")
    ids = [cell["id"] for cell in released(load_source(example))["cells"]]
    assert len(set(ids)) == len(ids)


def test_building_again_writes_nothing(example: LabFiles) -> None:
    before = {path: path.read_bytes() for path in outputs(example)}
    assert build(fresh(example)) == []
    assert {path: path.read_bytes() for path in before} == before
    assert differences(fresh(example)) == ""


def test_a_changed_source_shows_as_a_diff(example: LabFiles) -> None:
    edit(example.source, "## Explain", "## Explain it")
    diff = differences(fresh(example))
    assert '+    "## Explain it' in diff
    assert diff.startswith("--- labs/99-example/lab.ipynb")
    assert build(fresh(example)) == [example.notebook]
    assert differences(fresh(example)) == ""


def test_other_ends_of_lines_are_a_difference(example: LabFiles) -> None:
    example.notebook.write_bytes(example.notebook.read_bytes().replace(b"\n", b"\r\n"))
    assert differences(fresh(example)) != ""


def test_somebodys_work_is_not_overwritten(example: LabFiles) -> None:
    notebook = json.loads(example.notebook.read_text())
    notebook["cells"][1]["execution_count"] = 1
    example.notebook.write_text(json.dumps(notebook))
    with pytest.raises(BadInput, match="holds the outputs of somebody's work"):
        build(fresh(example))
    assert build(fresh(example), force=True) == [example.notebook]


def test_points_in_the_source_and_in_the_checks_agree(example: LabFiles) -> None:
    checks = example.folder / "checks.py"
    edit(checks, '@check("notes", points=5)', '@check("notes", points=4)')
    with pytest.raises(BadInput, match=r"step 'notes' gives 5 points, but its check in checks\.py gives 4"):
        build(fresh(example))


@pytest.mark.parametrize(
    ("old", "new", "why"),
    [
        ('@check("notes", points=5)', '@check("note", points=5)', "the step 'notes' has no check"),
        ('@check("mend", points=5)', '@check("mend", points=5)\ndef _(lab): ...\n\n@check("more", points=5)', "'more' has no step"),
    ],
)
def test_every_step_has_a_check_and_every_check_a_step(example: LabFiles, old: str, new: str, why: str) -> None:
    edit(example.folder / "checks.py", old, new)
    with pytest.raises(BadInput, match=why):
        build(fresh(example))


def test_the_declaration_survives_the_file(example: LabFiles) -> None:
    assert fresh(example).spec == joined(load_source(example), example.checks)
    assert example.spec.points == 16


def test_the_solution_solves_every_task_and_shows_the_hints(example: LabFiles) -> None:
    text = solution_text(example)
    assert "BEGIN SOLUTION" not in text
    assert "str(lab.params" in text
    assert "explain configmap.data" in text
    assert "For instructors" in text


def test_a_wrong_answer_takes_the_place_of_the_cells_it_names(example: LabFiles) -> None:
    source = load_source(example)
    wrong = next(wrong for wrong in load_wrong(example) if wrong.score == 13)
    cells = {cell["id"]: "".join(cell["source"]) for cell in handed_in(source, wrong)["cells"]}
    assert cells["predict"] == 'lab.answer("predict", 1)'
    assert "str(lab.params" in cells["notes"], "the other steps are solved"


def test_a_wrong_answer_that_cannot_score_that_much_is_refused(example: LabFiles) -> None:
    path = example.wrong[0]
    edit(path, "score: 8", "score: 17")
    with pytest.raises(BadInput, match="cannot score 17 of 16"):
        build(fresh(example))


def test_a_wrong_answer_for_an_unknown_step_is_refused(example: LabFiles) -> None:
    edit(example.wrong[0], ":step: explain", ":step: explian")
    with pytest.raises(BadInput, match="there is no step explian"):
        build(fresh(example))


@pytest.mark.parametrize("word", ["99", "99-example", "99-ex"])
def test_a_lab_is_found_by_its_number_its_name_or_its_beginning(example: LabFiles, word: str) -> None:
    assert find_lab(word).name == "99-example"


@pytest.mark.parametrize("word", ["", "98", "9", "../99-example", "99-example/../../x", "example"])
def test_an_unknown_lab_is_refused_and_the_known_ones_named(example: LabFiles, word: str) -> None:
    with pytest.raises(BadInput, match="99-example"):
        find_lab(word)
