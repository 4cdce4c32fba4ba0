from __future__ import annotations

import json
import multiprocessing
from pathlib import Path

import pytest

from lab_utils.labs.outcome import CheckResult
from lab_utils.labs.store import Store, learner_id


def result(status: str, earned: float = 0) -> CheckResult:
    return CheckResult("split", 5, earned, status)  # type: ignore[arg-type]


def test_progress_survives_the_process(checkout: Path) -> None:
    Store.of_learner("08-services").record(result("failed", 2))
    Store.of_learner("08-services").record(result("passed", 5))
    again = Store.of_learner("08-services")
    assert again.attempts("split") == 1
    assert again.results()["split"].passed
    assert again.progress()["split"]["best"] == 5


def test_only_failed_checks_count_as_attempts(checkout: Path) -> None:
    store = Store.of_learner("08-services")
    for status in ("error", "skipped", "passed"):
        store.record(result(status))
    assert store.attempts("split") == 0


def test_beginning_anew_keeps_the_best_score_and_forgets_the_rest(checkout: Path) -> None:
    store = Store.of_learner("08-services", "lab")
    store.record(result("passed", 5))
    store.answer("split", 0.5)
    store.sight("pod/web", "uid-1")
    store.begin_anew()
    assert store.results() == {}
    assert store.answers == {}
    assert store.sightings() == {}
    assert store.progress()["split"]["best"] == 5


@pytest.mark.parametrize("broken", ["", "{", "[]", "\x00\x01", '{"a": '])
def test_a_broken_progress_file_is_put_aside_and_said(checkout: Path, broken: str) -> None:
    store = Store.of_learner("08-services")
    store.record(result("passed", 5))
    (store.folder / "progress.json").write_text(broken)
    with pytest.warns(UserWarning, match=r"progress\.json of 08-services could not be read .* kept as"):
        assert store.progress() == {}
    store.record(result("failed"))
    assert store.attempts("split") == 1
    assert [path.read_text() for path in store.folder.glob("progress.json.broken-*")] == [broken]
    assert len(store.notes) == 1


def test_a_broken_file_of_answers_does_not_keep_one_from_answering(checkout: Path) -> None:
    store = Store.of_learner("08-services")
    store.answer("a", 1)
    store.answers_file.write_text("{")
    with pytest.warns(UserWarning, match=r"answers\.json"):
        store.answer("b", 2)
    assert store.answers == {"b": 2}


def test_labs_do_not_share_anything(checkout: Path) -> None:
    Store.of_learner("03-pods").answer("split", 1)
    assert Store.of_learner("08-services").answers == {}


def test_sightings_and_faults_belong_to_one_cluster(checkout: Path) -> None:
    one, other = Store.of_learner("08-services", "one"), Store.of_learner("08-services", "other")
    one.sight("pod/web")
    one.add_fault({"id": "1", "name": "dns-broken"})
    assert other.sightings() == {}
    assert other.faults() == []
    one.remove_fault("1")
    assert one.faults() == []


def test_the_graders_file_takes_the_answers(checkout: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LAB_ANSWERS", str(checkout / "box" / "answers.json"))
    Store.of_learner("08-services", "lab").answer("split", 0.5)
    assert json.loads((checkout / "box" / "answers.json").read_text())["answers"] == {"split": 0.5}
    assert not (checkout / "state").exists()


def test_a_learner_has_one_id_for_good(checkout: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = learner_id()
    assert len(first) == 32
    assert learner_id() == first
    monkeypatch.setenv("LAB_LEARNER", "s1")
    assert learner_id() == "s1"


def test_a_broken_learner_file_is_replaced(checkout: Path) -> None:
    learner_id()
    (checkout / "state" / "learner.json").write_text("{")
    assert len(learner_id()) == 32
    assert list((checkout / "state").glob("learner.json.broken-*"))


def test_several_processes_that_make_the_learner_at_once_agree(checkout: Path) -> None:
    with multiprocessing.get_context("spawn").Pool(4) as pool:
        ids = pool.starmap(learner_id, [()] * 8)
    assert len(set(ids)) == 1
