"""What every lab must keep to, on a real cluster. `pytest tests/labs -k 08-services` runs one lab's share of it.

Labs come from the checkout's solutions/, and the scaffold of `lab new` is one of them: it must pass as it is. Grading all
notebooks of a lab takes minutes, so `make test` does it for the two model labs, with a few of their wrong answers, and
`make test-labs` (LAB_TEST_LABS=all) for all labs with all; LAB_TEST_LABS=07-cni,12-volumes names some.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from tempfile import mkdtemp

import pytest

from lab_utils.addons import give
from lab_utils.cluster import Cluster
from lab_utils.labs.build import differences, load_source, load_wrong
from lab_utils.labs.catalog import LabFiles, all_labs
from lab_utils.labs.lifecycle import missing_needs
from lab_utils.labs.release import handed_in, released, solution
from lab_utils.labs.scaffold import new_lab
from lab_utils.labs.source import Wrong
from lab_utils.labs.spec import Needs
from lab_utils.progress import Progress, Silent
from lab_utils.providers import ClusterSpec, provider
from tests.conftest import PROVIDER
from tests.labs.judges import Score, scores

SCAFFOLD = "99-scaffold"
MODELS = ("03-pods", "08-services", SCAFFOLD)
CHOSEN = os.environ.get("LAB_TEST_LABS", ",".join(MODELS)).split(",")
FEW = 3  # wrong answers of a model lab that `make test` grades
ALL_ANSWERS = "LAB_TEST_LABS" in os.environ
NAMES = [*(lab.name for lab in all_labs(sources=True)), SCAFFOLD]
every_lab = pytest.mark.parametrize("name", NAMES)


@pytest.fixture(scope="module")
def scaffold(tmp_path_factory: pytest.TempPathFactory) -> LabFiles:
    top: Path = tmp_path_factory.mktemp("scaffold")
    before = os.environ.get("LAB_ROOT")
    os.environ["LAB_ROOT"] = str(top)
    try:
        new_lab(SCAFFOLD)
    finally:
        os.environ.pop("LAB_ROOT")
        if before is not None:
            os.environ["LAB_ROOT"] = before
    return LabFiles(SCAFFOLD, top)


@pytest.fixture
def files(name: str, scaffold: LabFiles) -> LabFiles:
    return scaffold if name == SCAFFOLD else next(lab for lab in all_labs(sources=True) if lab.name == name)


@pytest.fixture(scope="module")
def bare_cluster(progress: Progress) -> Iterator[Cluster]:
    """Two machines on which nothing runs, for labs that begin so: another cluster than everybody's."""
    chosen, name = provider(PROVIDER), f"bare-{os.getpid()}"
    if PROVIDER not in ("embedded", "vagrant"):
        pytest.skip(f"provider {PROVIDER} makes no bare nodes")
    if not (usable := chosen.usability()).usable:
        pytest.skip(f"no bare nodes can be made here: {usable.why}")
    try:
        yield chosen.up(ClusterSpec(name, workers=1, bare=True, guarded=PROVIDER == "embedded"), progress)
    finally:
        chosen.down(name, progress)


@pytest.fixture(scope="module")
def judged(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory):  # type: ignore[no-untyped-def]
    """All notebooks of a lab, scored in one go when the first test of the lab asks."""

    def cluster_for(needs: Needs) -> Cluster:
        if needs.bare and not os.environ.get("LAB_TEST_CLUSTER"):
            found: Cluster = request.getfixturevalue("bare_cluster")
        else:
            found = request.getfixturevalue("cluster" if needs.devices else "guarded")
        return found

    @cache
    def of(files: LabFiles) -> dict[str, Score]:
        if files.name not in CHOSEN and CHOSEN != ["all"]:
            pytest.skip("graded by `make test-labs`")
        needs = files.spec.needs
        cluster = cluster_for(needs)
        give(cluster, Silent(), metrics=needs.metrics, storage=needs.storage, ingress=needs.ingress, images=needs.images)
        if lacking := missing_needs(files.spec, cluster):
            pytest.skip(f"this cluster lacks {', '.join(lacking)}")
        source = load_source(files)
        notebooks = {"solution": solution(source), "untouched": released(source)}
        few, rest = wrong_answers(files)
        notebooks |= {stem(wrong): handed_in(source, wrong) for wrong in (few + rest if ALL_ANSWERS else few)}
        notebooks["solution-again"] = solution(source)
        if only := os.environ.get("LAB_TEST_NOTEBOOKS"):  # while one is written; the tests of the others then fail
            notebooks = {name: notebook for name, notebook in notebooks.items() if name in only.split(",")}
        return scores(files, notebooks, cluster, Path(mkdtemp(dir=tmp_path_factory.getbasetemp())))

    return of


def wrong_answers(files: LabFiles) -> tuple[list[Wrong], list[Wrong]]:
    """A few of them, one that is right in an unusual way first, and the rest."""
    wrong = sorted(load_wrong(files), key=lambda one: one.score != files.spec.points)
    return wrong[:FEW], wrong[FEW:]


def stem(wrong: Wrong) -> str:
    return Path(wrong.where).stem


def score_what_they_say(wrongs: list[Wrong], seen: dict[str, Score]) -> None:
    wanted, found = {}, {}
    for wrong in wrongs:
        name, score = stem(wrong), seen[stem(wrong)]
        wanted[name] = {"score": wrong.score, **wrong.steps}
        found[name] = {"score": score.score, **{step: score.earned[step] for step in wrong.steps}}
    assert found == wanted


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
@pytest.mark.timeout(3600)  # whichever test comes first waits for all of a lab's notebooks
@every_lab
class TestOnACluster:
    def test_the_solution_scores_full_marks_every_time(self, files: LabFiles, judged) -> None:  # type: ignore[no-untyped-def]
        for which in ("solution", "solution-again"):
            found: Score = judged(files)[which]
            assert found.score == found.max_score, found.story
            assert not found.raised, found.story

    def test_the_untouched_lab_scores_nothing(self, files: LabFiles, judged) -> None:  # type: ignore[no-untyped-def]
        assert judged(files)["untouched"].score == 0, judged(files)["untouched"].story

    def test_a_few_wrong_answers_score_what_they_say(self, files: LabFiles, judged) -> None:  # type: ignore[no-untyped-def]
        score_what_they_say(wrong_answers(files)[0], judged(files))

    def test_the_other_wrong_answers_score_what_they_say(self, files: LabFiles, judged) -> None:  # type: ignore[no-untyped-def]
        rest = wrong_answers(files)[1]
        if not ALL_ANSWERS and rest:
            pytest.skip(f"graded by `make test-labs`: {', '.join(map(stem, rest))}")
        score_what_they_say(rest, judged(files))

    def test_no_check_breaks(self, files: LabFiles, judged) -> None:  # type: ignore[no-untyped-def]
        assert {name: found.errors for name, found in judged(files).items() if found.errors} == {}

    def test_nothing_of_the_lab_is_left(self, files: LabFiles, judged) -> None:  # type: ignore[no-untyped-def]
        assert {name: found.left for name, found in judged(files).items() if found.left} == {}
