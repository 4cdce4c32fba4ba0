from __future__ import annotations

import pytest

from lab_utils.errors import BadInput
from lab_utils.labs.source import faults_in, read_source, read_wrong

FRONT = """---
jupytext: {text_representation: {extension: .md, format_name: myst}}
kernelspec: {name: python3, display_name: Python 3}
lab:
  title: Services
  minutes: 30
  points: 5
  objectives: [See a Service]
---
# Services

```{code-cell} ipython3
from lab_utils import Lab
lab = Lab("08-services")
```
"""

HINTS = 'hints: ["What is left over at the end?", "Then all of it."]'
TASK = """
```{code-cell} ipython3
---
step: split
points: 5
tags: [task]
HINTS
---
%s
```
""".replace("HINTS", HINTS)

SOLVED = "### BEGIN SOLUTION\nx = 1\n### END SOLUTION"


def source(task: str = SOLVED, front: str = FRONT, extra: str = ""):  # type: ignore[no-untyped-def]
    return read_source(front + TASK % task + extra, "08-services", "lab.md")


def refused(task: str = SOLVED, front: str = FRONT, extra: str = "") -> str:
    with pytest.raises(BadInput) as caught:
        source(task, front, extra)
    return str(caught.value)


def test_a_task_has_a_stub_and_a_solution() -> None:
    (task,) = source("before = 0\n" + SOLVED + "\nafter = 2").tasks
    assert task.stub == "before = 0\n...  # your code here\nafter = 2"
    assert task.solved == "before = 0\nx = 1\nafter = 2"


def test_a_stub_keeps_the_indentation_of_its_region() -> None:
    (task,) = source("def f():\n    ### BEGIN SOLUTION\n    return 1\n    ### END SOLUTION").tasks
    assert task.stub == "def f():\n    ...  # your code here"


def test_the_author_may_say_what_is_left_for_the_learner() -> None:
    (task,) = source("### BEGIN SOLUTION peer = ...\npeer = 18\n### END SOLUTION").tasks
    assert task.stub == "peer = ..."


def test_a_shell_cell_gets_a_stub_that_a_shell_can_run() -> None:
    (task,) = source("%%bash\n### BEGIN SOLUTION\nkubectl get pods\n### END SOLUTION").tasks
    assert task.stub == "%%bash\n# your commands here"


def test_several_regions_in_one_cell_are_several_stubs() -> None:
    (task,) = source(f"{SOLVED}\ny = 2\n{SOLVED}").tasks
    assert task.stub == "...  # your code here\ny = 2\n...  # your code here"


@pytest.mark.parametrize(
    ("task", "why"),
    [
        ("### BEGIN SOLUTION\nx = 1\n### BEGIN SOLUTION\ny = 1\n### END SOLUTION", "inside the one begun in line 1"),
        ("### BEGIN SOLUTION\nx = 1", "begun in its line 1 never ends"),
        ("x = 1\n### END SOLUTION", "never began"),
        ("### BEGIN SOLUTION\n\n### END SOLUTION", "is empty"),
        ("x = 1", "without a solution would be released as it is"),
        ("### begin solution\nx = 1\n### end solution", "looks like a marker"),
        ("# BEGIN SOLUTION\nx = 1\n# END SOLUTION", "looks like a marker"),
        ("### BEGIN SOLUTION x = (\nx = 1\n### END SOLUTION", "not Python"),
    ],
)
def test_a_region_that_is_not_exactly_right_is_refused(task: str, why: str) -> None:
    said = refused(task)
    assert why in said
    assert "lab.md, line 17" in said, "the author must find the cell"


def test_a_solution_outside_of_a_task_is_refused() -> None:
    assert "would be released" in refused(extra=f"\n```{{code-cell}} ipython3\n{SOLVED}\n```\n")
    assert "would be released" in refused(extra="\n+++\n\nSee ### BEGIN SOLUTION here\n")


def test_a_first_hint_that_gives_the_solution_away_is_refused() -> None:
    assert "first hint holds a line of the solution" in refused(f"%%bash\n{SOLVED.replace('x = 1', 'What is left over')}")


def test_two_cells_with_the_same_step_are_refused() -> None:
    assert "several cells are the step split" in refused(extra=TASK % SOLVED)


def test_front_matter_names_the_key_and_what_is_allowed() -> None:
    assert "front matter `lab`.minutes: 'long' is not of type 'integer'" in refused(front=FRONT.replace("minutes: 30", "minutes: long"))
    said = refused(front=FRONT.replace("minutes: 30", "minuets: 30"))
    assert "front matter `lab`" in said
    assert "Allowed keys: title, minutes, points" in said
    assert "it says 6, but the steps add up to 5" in refused(front=FRONT.replace("points: 5", "points: 6"))
    assert "holds no choice" in refused(front=FRONT.replace("points: 5", "points: 5\n  params: {port: {range: [9, 9]}}"))
    assert "front matter `lab` is missing" in refused(front=FRONT.replace("lab:\n", "other:\n"))


def test_a_step_is_not_named_as_another_cell_of_the_notebook_is() -> None:
    for name in ("progress", "check-split", "given-1", "text-a"):
        with pytest.raises(BadInput, match="a name that other cells"):
            read_source(FRONT + (TASK % SOLVED).replace("step: split", f"step: {name}"), "08-services", "lab.md")


@pytest.mark.parametrize("tags", ["solution", "null", "[1]", "{solution: 1}"])
def test_tags_that_are_no_list_of_words_are_refused(tags: str) -> None:
    assert "metadata of a cell" in refused(extra=f"\n```{{code-cell}} ipython3\n---\ntags: {tags}\n---\nx = 1\n```\n")


@pytest.mark.parametrize("tag", ["Solution", "solutions", "hide-solution"])
def test_a_tag_that_almost_says_solution_would_release_the_cell_and_is_refused(tag: str) -> None:
    assert "does not keep a cell from learners" in refused(extra=f"\n```{{code-cell}} ipython3\n---\ntags: [{tag}]\n---\nx = 1\n```\n")


@pytest.mark.parametrize(
    "params", ["{d: {choice: [2026-01-01, b]}}", "{d: {choice: [.nan, 1]}}", "{1: {range: [1, 2]}, a: {range: [1, 2]}}"]
)
def test_parameters_that_are_not_plain_json_are_refused(params: str) -> None:
    assert "not plain JSON" in refused(front=FRONT.replace("points: 5", f"points: 5\n  params: {params}"))


def test_front_matter_that_holds_itself_is_refused() -> None:
    assert "holds itself" in refused(front=FRONT.replace("[See a Service]", "&a [*a]"))


def test_a_wrong_answer_says_each_step_once() -> None:
    cell = "```{code-cell} ipython3\n:step: split\n1\n```\n"
    with pytest.raises(BadInput, match="two code cells are the step 'split'"):
        read_wrong(f"---\nwrong: {{title: Twice the same, score: 1}}\n---\n{cell}\n{cell}", "w.md")


def test_front_matter_that_is_not_yaml_is_refused_with_its_line() -> None:
    assert "lab.md, line 7: the front matter is not YAML" in refused(front=FRONT.replace("minutes: 30", "minutes: [30"))


def test_a_file_without_front_matter_is_refused() -> None:
    with pytest.raises(BadInput, match="no front matter"):
        read_source("# Hello\n", "08-services", "lab.md")


def test_a_lab_that_never_opens_itself_is_refused() -> None:
    assert 'never says lab = Lab("08-services")' in refused(front=FRONT.replace("08-services", "07-cni"))


def test_a_task_says_its_points_and_hints() -> None:
    with pytest.raises(BadInput, match="'points' is a required property"):
        read_source(FRONT + (TASK % SOLVED).replace("points: 5\n", ""), "08-services", "lab.md")
    with pytest.raises(BadInput, match="hints"):
        read_source(FRONT + (TASK % SOLVED).replace(HINTS, "hints: []"), "08-services", "lab.md")
    with pytest.raises(BadInput, match="does not match"):
        read_source(FRONT + (TASK % SOLVED).replace("step: split", "step: Split!"), "08-services", "lab.md")


def test_faults_are_read_from_the_cell_without_running_it() -> None:
    found = list(faults_in('lab.inject("rule-lost", service="web", node="w1")', "here"))
    assert found == [{"fault": "rule-lost", "options": {"service": "web", "node": "w1"}}]
    with pytest.raises(BadInput, match="computed"):
        list(faults_in('lab.inject("rule-lost", service=name)', "here"))


def test_a_task_may_not_inject_a_fault() -> None:
    assert "a task injects a fault" in refused('lab.inject("dns-broken")\n' + SOLVED)


def test_a_wrong_answer_says_what_it_scores() -> None:
    front = "---\nwrong: {title: Believes in magic, score: 2.5, steps: {split: 0}}\n---\n\n"
    text = front + "```{code-cell} ipython3\n:step: split\nx = 2\n```\n"
    wrong = read_wrong(text, "wrong.md")
    assert (wrong.score, wrong.steps, wrong.cells) == (2.5, {"split": 0}, {"split": "x = 2"})
    with pytest.raises(BadInput, match="'score' is a required property"):
        read_wrong(text.replace("score: 2.5, ", ""), "wrong.md")
    with pytest.raises(BadInput, match="has no step"):
        read_wrong(text.replace(":step: split\n", ""), "wrong.md")
