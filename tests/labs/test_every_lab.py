"""What every lab must keep to, on a real cluster. `pytest tests/labs -k 08-services` runs one lab's share of it.

Labs come from the checkout's solutions/, and the scaffold of `lab new` is one of them: it must pass as it is.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from lab_utils.cluster import Cluster
from lab_utils.labs.build import differences, load_source, load_wrong
from lab_utils.labs.catalog import LabFiles, all_labs
from lab_utils.labs.lifecycle import missing_needs
from lab_utils.labs.rehearsal import Rehearsal, rehearse
from lab_utils.labs.release import handed_in, released, solution
from lab_utils.labs.scaffold import new_lab

SCAFFOLD = "99-scaffold"
LABS = {lab.name: lab for lab in all_labs(sources=True)}
NAMES = [*LABS, SCAFFOLD]
WRONG = [(name, path.stem) for name, lab in LABS.items() for path in lab.wrong]
WRONG += [(SCAFFOLD, name) for name in ("blames-the-kubelet", "by-other-means", "forgets-the-root-ca", "one-key-only")]


@pytest.fixture
def files(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[LabFiles]:
    name: str = request.param
    if name != SCAFFOLD:
        yield LABS[name]
        return
    monkeypatch.setenv("LAB_ROOT", str(tmp_path))
    new_lab(SCAFFOLD)
    yield LabFiles(SCAFFOLD, tmp_path)


every_lab = pytest.mark.parametrize("files", NAMES, indirect=True)


def held(files: LabFiles, notebook: dict[str, object], cluster: Cluster) -> Rehearsal:
    if lacking := missing_needs(files.spec, cluster):
        pytest.skip(f"this cluster lacks {', '.join(lacking)}")
    found = rehearse(files, notebook, cluster)
    broken = [result for result in found.results if result.status == "error"]
    assert not broken, f"a check of {files.name} is broken:\n{found.story()}"
    assert found.left == [], "something of the lab was left on the cluster"
    return found


@every_lab
def test_the_notebook_is_what_the_source_says(files: LabFiles) -> None:
    assert differences(files) == ""


@every_lab
def test_at_least_four_wrong_answers_are_kept_and_one_of_them_is_right_in_an_unusual_way(files: LabFiles) -> None:
    wrong = load_wrong(files)
    assert len(wrong) >= 4
    assert any(one.score == files.spec.points for one in wrong), "a right answer in an unusual way is missing"
    assert any(one.score < files.spec.points for one in wrong)


@pytest.mark.cluster
@every_lab
def test_the_solution_scores_full_marks_twice(files: LabFiles, cluster: Cluster) -> None:
    notebook = solution(load_source(files))
    first = held(files, notebook, cluster)
    assert first.errors == {}, first.story()
    assert first.score == first.points, first.story()
    second = held(files, notebook, cluster)
    assert second.score == first.score, second.story()


@pytest.mark.cluster
@every_lab
def test_the_untouched_lab_scores_nothing(files: LabFiles, cluster: Cluster) -> None:
    found = held(files, released(load_source(files)), cluster)
    assert found.score == 0, found.story()


@pytest.mark.cluster
@pytest.mark.parametrize(("files", "name"), WRONG, indirect=["files"])
def test_a_wrong_answer_scores_what_it_says(files: LabFiles, name: str, cluster: Cluster) -> None:
    wrong = next(one for one in load_wrong(files) if Path(one.where).stem == name)
    found = held(files, handed_in(load_source(files), wrong), cluster)
    earned = {result.step: result.earned for result in found.results}
    for step, points in wrong.steps.items():
        assert earned[step] == points, f"step {step}\n{found.story()}"
    lost = sum(result.points for result in found.results if not result.counts)
    assert found.score == wrong.score or (lost and wrong.score - lost <= found.score <= wrong.score), found.story()
