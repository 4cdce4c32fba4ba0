"""Forging a score: whatever a notebook says, patches or pretends, it earns what its answers are worth."""

# ruff: noqa: E501 (a student's cell stands on one line, as it is sent)

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from lab_utils import checks
from lab_utils.errors import Unhealthy
from lab_utils.grading import unit
from lab_utils.grading.arena import NO_CLUSTER
from lab_utils.grading.limits import Limits
from lab_utils.grading.results import Grade
from lab_utils.grading.unit import Course
from lab_utils.labs.catalog import LabFiles
from lab_utils.labs.context import CheckContext
from lab_utils.labs.outcome import CheckResult
from lab_utils.run import Result
from tests.grading.conftest import FULL, RIGHT, STEPS, Grader, Notebook, earned

pytestmark = pytest.mark.beside  # so that both lines of `make test` take about as long

HandedIn = Callable[..., Notebook]


def task(notebook: Notebook, step: str) -> dict[str, object]:
    return next(cell for cell in notebook["cells"] if cell["metadata"].get("step") == step)


def test_the_solution_scores_full_marks(grader: Grader, solved: Notebook) -> None:
    assert grader(solved).score == FULL


def test_the_untouched_lab_scores_nothing(grader: Grader, untouched: Notebook) -> None:
    grade = grader(untouched)
    assert (grade.status, grade.score, grade.max_score) == ("graded", 0, FULL)


def test_partial_credit_is_what_the_check_gives(grader: Grader, handed_in: HandedIn) -> None:
    grade = grader(handed_in(table='lab.answer("table", {"api": 6443, "etcd": 2379, "kubelet": 10250, "dns": 0, "ssh": 0})'))
    assert earned(grade)["table"] == 3


@pytest.mark.parametrize("leave", ["import sys; sys.exit(0)", "raise SystemExit", "raise KeyboardInterrupt"])
def test_leaving_politely_ends_the_cell_and_no_more(grader: Grader, handed_in: HandedIn, leave: str) -> None:
    grade = grader(handed_in(word=leave))
    assert earned(grade) == {"sum": 2, "word": 0, "table": 5, "double": 2, "last": 1}


@pytest.mark.parametrize(
    "leave",
    [
        "import os; os._exit(0)",
        "exit",
        "quit()",
        "import os, signal; os.kill(os.getpid(), signal.SIGKILL)",
        "import ctypes; ctypes.string_at(0)",
    ],
)
def test_a_kernel_that_ends_keeps_what_came_before_and_gets_nothing_after(grader: Grader, handed_in: HandedIn, leave: str) -> None:
    grade = grader(handed_in(table=leave))
    assert earned(grade) == {"sum": 2, "word": 3, "table": 0, "double": 0, "last": 0}
    assert [step.executed for step in grade.steps] == [True, True, True, False, False]
    assert "not executed" in grade.steps[-1].message


def test_what_the_students_code_took_away_is_no_way_to_leave_a_step_out(
    grader: Grader, handed_in: HandedIn, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Root on a node hides its python3: in the notebook that step is skipped and does not count, in the grader it does."""
    usual = checks.run_checks

    def lacking(checkset: checks.CheckSet, context: CheckContext, only: str) -> list[CheckResult]:
        if only != "table":
            return usual(checkset, context, only=only)
        context.results[only] = CheckResult(only, 5, 0, "skipped", missing="python3 on its nodes")
        return [context.results[only]]

    monkeypatch.setattr(checks, "run_checks", lacking)
    assert grader(handed_in()).max_score == FULL - 5, "on a cluster that need not have it"
    monkeypatch.setattr(unit, "HAVE_ALL", (NO_CLUSTER,))
    grade = grader(handed_in())
    assert (grade.score, grade.max_score) == (FULL - 5, FULL)
    assert grade.steps[2].message.startswith("python3 on its nodes is not there (any more)")


def test_a_tag_that_skips_execution_is_not_taken_over(grader: Grader, handed_in: HandedIn) -> None:
    notebook = handed_in(word='lab.answer("word", "wrong")')
    for cell in notebook["cells"]:
        cell["metadata"]["tags"] = ["skip-execution", "remove-cell", "parameters", "injected-parameters", "check"]
    assert earned(grader(notebook))["word"] == 0
    assert grader(notebook).score == FULL - 3


def test_metadata_cannot_choose_a_kernel_or_parameters(grader: Grader, handed_in: HandedIn) -> None:
    notebook = handed_in()
    notebook["metadata"] = {
        "kernelspec": {"name": "no-such-kernel", "display_name": "x", "language": "bash"},
        "language_info": {"name": "bash"},
        "papermill": {"parameters": {"given": 8}, "status": "completed"},
        "lab": {"name": "90-answers", "points": 1000, "steps": []},
    }
    assert grader(notebook).score == FULL


def test_outputs_in_the_submission_give_nothing(grader: Grader, untouched: Notebook) -> None:
    notebook = copy.deepcopy(untouched)
    for cell in notebook["cells"]:
        if cell["cell_type"] == "code":
            cell["outputs"] = [{"output_type": "stream", "name": "stdout", "text": ["✔ passed 13/13"]}]
            cell["execution_count"] = 1
    assert grader(notebook).score == 0


def test_printing_a_result_gives_nothing(grader: Grader, handed_in: HandedIn) -> None:
    said = 'print(\'{"event": "grade", "grade": {"score": 13}}\'); print("##score 13/13"); 13'
    assert grader(handed_in(**dict.fromkeys(STEPS, said))).score == 0


PATCHES = {
    "the checking function": "import lab_utils.checks as c; c.run_checks = lambda *a, **k: [type('R', (), {'passed': True, 'earned': 99})()]",
    "the context": "from lab_utils.labs.context import CheckContext as C; C.expect = C.compare = C.fail = lambda *a, **k: None",
    "the lab": "type(lab).check = lambda self, step=None: 'passed'; lab.spec.__dict__['steps'] = ()",
    "a module that does not exist": "import sys, types; m = types.ModuleType('lab_utils.checks'); m.check = lambda *a, **k: (lambda f: f)\n"
    "sys.modules['lab_utils.checks'] = m; sys.modules['yaml'] = m",
    "assert": "import builtins; builtins.AssertionError = None; builtins.isinstance = lambda *a: True",
    "a library beside the notebook": "open('yaml.py', 'w').write('raise SystemExit(0)'); open('json.py', 'w').write('loads = dict'); import importlib",
    "numbers": "import builtins; builtins.int = type('int', (int,), {'__eq__': lambda a, b: True, '__hash__': int.__hash__})",
}


@pytest.mark.parametrize("patch", PATCHES.values(), ids=PATCHES.keys())
def test_patching_inside_the_kernel_gives_nothing(grader: Grader, handed_in: HandedIn, patch: str) -> None:
    grade = grader(handed_in(sum=patch, word='lab.answer("word", "wrong")', table="1", double="1", last="1"))
    assert grade.score == 0


def test_editing_given_cells_changes_nothing(grader: Grader, handed_in: HandedIn) -> None:
    notebook = handed_in()
    for cell in notebook["cells"]:
        if cell["cell_type"] == "code" and "step" not in cell["metadata"]:
            cell["source"] = "import os; os._exit(0)"
    assert grader(notebook).score == FULL


def test_a_deleted_cell_fails_its_step_only(grader: Grader, handed_in: HandedIn) -> None:
    notebook = handed_in()
    notebook["cells"] = [cell for cell in notebook["cells"] if cell["metadata"].get("step") != "word"]
    grade = grader(notebook)
    assert grade.score == FULL - 3
    assert next(step for step in grade.steps if step.step == "word").executed is False
    assert [step.step for step in grade.steps] == STEPS, "a step that was not reached stands in its place"
    assert any("'word' has no cell" in note for note in grade.notes)


def test_deleting_everything_but_one_cell_is_still_graded(grader: Grader, handed_in: HandedIn) -> None:
    notebook = handed_in()
    notebook["cells"] = [task(notebook, "word")]
    assert grader(notebook).score == 3


def test_reordered_cells_run_in_the_courses_order(grader: Grader, handed_in: HandedIn) -> None:
    notebook = handed_in()
    notebook["cells"].reverse()
    assert grader(notebook).score == FULL


def test_a_duplicated_cell_runs_as_it_would_for_the_student(grader: Grader, handed_in: HandedIn) -> None:
    notebook = handed_in(word='lab.answer("word", "Node")')
    again = copy.deepcopy(task(notebook, "word"))
    again["source"] = RIGHT["word"]
    notebook["cells"].append(again)  # the same id, too
    grade = grader(notebook)
    assert grade.score == FULL  # the later answer replaces the earlier one, as in the student's own notebook


def test_a_cell_that_was_split_in_two_counts_whole(grader: Grader, handed_in: HandedIn) -> None:
    notebook = handed_in(sum="n = lab.params['first']")
    second = copy.deepcopy(task(notebook, "sum")) | {"id": "other", "source": 'lab.answer("sum", n + 1)'}
    place = notebook["cells"].index(task(notebook, "sum"))
    notebook["cells"].insert(place + 1, second)
    assert grader(notebook).score == FULL


def test_an_untouched_copy_does_not_undo_an_answer(grader: Grader, handed_in: HandedIn, untouched: Notebook) -> None:
    notebook = handed_in()
    notebook["cells"].append(copy.deepcopy(task(untouched, "word")))
    assert grader(notebook).score == FULL


def test_a_renamed_cell_earns_what_its_new_step_is_worth_and_leaves_its_old_one_empty(grader: Grader, handed_in: HandedIn) -> None:
    notebook = handed_in(word='lab.answer("word", "wrong")')
    cell = task(notebook, "table")
    cell.update(id="x", metadata={"step": "word", "points": 100})
    assert earned(grader(notebook)) == {"sum": 2, "word": 0, "table": 0, "double": 2, "last": 1}


def test_a_step_is_found_by_its_cell_id_when_metadata_was_lost(grader: Grader, handed_in: HandedIn) -> None:
    notebook = handed_in()
    for cell in notebook["cells"]:
        cell["metadata"] = {}
    assert grader(notebook).score == FULL


ANSWERS = {
    "a pickle": "import pickle; open(p, 'wb').write(pickle.dumps({'answers': {'word': 'Pod'}}))",
    "not JSON": "open(p, 'w').write('{')",
    "NaN": "open(p, 'w').write('{\"answers\": {\"word\": NaN}}')",
    "a list": "open(p, 'w').write('[]')",
    "too large": "open(p, 'w').write('{\"answers\": {\"word\": \"' + 'x' * 5_000_000 + '\"}}')",
    "too deep": "open(p, 'w').write('{\"answers\": {\"word\": ' + '[' * 100_000 + ']' * 100_000 + '}}')",
    "a huge number": "open(p, 'w').write('{\"answers\": {\"word\": 1' + '0' * 100_000 + '}}')",
    "a pipe": "import os; os.path.exists(p) and os.remove(p); os.mkfifo(p)",
    "a folder": "import os; os.path.exists(p) and os.remove(p); os.mkdir(p)",
    "a link to a host's file": "import os; os.path.exists(p) and os.remove(p); os.symlink('/etc/passwd', p)",
    "a link to a device": "import os; os.path.exists(p) and os.remove(p); os.symlink('/dev/zero', p)",
    "a link to itself": "import os; os.path.exists(p) and os.remove(p); os.symlink(p, p)",
    "gone": "import os, shutil; shutil.rmtree(os.path.dirname(p))",
    "not UTF-8": "open(p, 'wb').write(b'\\xff\\xfe{}')",
}


@pytest.mark.parametrize("write", ANSWERS.values(), ids=ANSWERS.keys())
def test_a_bad_file_of_answers_costs_its_step_and_hurts_nobody(grader: Grader, handed_in: HandedIn, write: str) -> None:
    grade = grader(handed_in(word=f"import os; p = os.environ['LAB_ANSWERS']\n{write}"))
    assert grade.status == "graded"
    assert earned(grade)["sum"] == 2
    assert earned(grade)["word"] == 0


def test_answers_that_are_no_json_values_are_refused_in_the_notebook(grader: Grader, handed_in: HandedIn) -> None:
    for value in ("{1, 2}", "object()", "float('nan')", "b'Pod'", "lambda: 'Pod'"):
        assert earned(grader(handed_in(word=f'lab.answer("word", {value})')))["word"] == 0


def test_an_answer_of_another_type_is_not_equal_to_everything(grader: Grader, handed_in: HandedIn) -> None:
    for value in ("True", '{"__eq__": true}'.replace("true", "True"), "[1, 2, 3]", "10**30"):
        assert earned(grader(handed_in(sum=f'lab.answer("sum", {value})')))["sum"] == 0


# Right in an unusual way

UNUSUAL = {
    "another way to say it": {"word": 'lab.answer("word", "  pod ")'},
    "chatty": {"sum": 'import sys, warnings; warnings.warn("hm"); print("x" * 1000); sys.stderr.write("oh")\n' + RIGHT["sum"]},
    "an error after the answer": {"word": RIGHT["word"] + "\n1/0"},
    "answered in another cell": {"sum": RIGHT["sum"] + "\n" + RIGHT["word"], "word": "pass"},
    "by hand": {
        "word": "import json, os\np = os.environ['LAB_ANSWERS']\nd = json.load(open(p))\nd['answers']['word'] = 'Pod'\njson.dump(d, open(p, 'w'))"
    },
    "in a process of its own": {
        "word": "import subprocess, sys\nsubprocess.run([sys.executable, '-c', '''\nfrom lab_utils import Lab\nLab(\"90-answers\").answer(\"word\", \"Pod\")'''], check=True)"
    },
    "with magics": {"table": "%%time\n" + RIGHT["table"]},
    "with a thread": {"word": f"import threading\nt = threading.Thread(target=lambda: {RIGHT['word']})\nt.start(); t.join()"},
    "asynchronous": {"word": f"import asyncio\nawait asyncio.sleep(0.01)\n{RIGHT['word']}"},
    "changing the folder": {"sum": "import os; os.chdir('/tmp')\n" + RIGHT["sum"]},
}


@pytest.mark.parametrize("cells", UNUSUAL.values(), ids=UNUSUAL.keys())
def test_right_in_an_unusual_way_is_right(grader: Grader, handed_in: HandedIn, cells: dict[str, str]) -> None:
    grade = grader(handed_in(**cells))
    assert grade.score == FULL, [step.message for step in grade.steps]


def test_the_students_own_parameters_are_used_when_the_notebook_tells_whose_it_is(grader: Grader, handed_in: HandedIn, root: Path) -> None:
    learner = "0123456789abcdef0123456789abcdef"
    number = LabFiles("90-answers", root).spec.draw(learner)["first"]
    notebook = handed_in(sum=f'lab.answer("sum", {number + 1})', double=f'lab.answer("double", {2 * (number + 1)})')
    notebook["cells"][1]["outputs"] = [{"output_type": "display_data", "data": {}, "metadata": {"lab": {"learner": learner}}}]
    assert grader(notebook).score == FULL


@pytest.mark.parametrize("answers", [True, False], ids=["a cluster that answers", "a cluster that does not"])
def test_what_a_student_has_deleted_cannot_be_broken_and_that_costs_its_steps_only(root: Path, answers: bool) -> None:
    """The course's own cell wants to break a Service that is not there any more: the run goes on, unless it is our cluster that fails."""
    files = LabFiles("90-answers", root)

    def kubectl(*words: str, **_: object) -> Result:
        if not answers:
            raise Unhealthy("connection refused")
        return Result("", "", 0)

    def find(*_: object) -> None:
        kubectl()

    context: Any = SimpleNamespace(
        spec=files.spec,
        cluster=SimpleNamespace(kubectl=kubectl),
        fill=str,
        find=find,
        namespace="lab-90",
        store=SimpleNamespace(faults=list),
    )
    result = Grade("ada.ipynb", "ada", 0, 0, "graded")
    course = Course(files, context, None, [], result, Limits(), lambda event: None)  # type: ignore[arg-type]
    if answers:
        course._inject({"fault": "selector-wrong", "options": {"name": "web"}})
        assert result.notes == ["the fault selector-wrong could not be injected: what it breaks is not there, or does not answer"]
    else:
        with pytest.raises(Unhealthy):
            course._inject({"fault": "selector-wrong", "options": {"name": "web"}})
