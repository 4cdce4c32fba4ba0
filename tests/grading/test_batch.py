"""A batch: found, run on several slots, written in every form, resumed; no submission stops it."""

from __future__ import annotations

import csv
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import jsonschema
import psutil
import pytest
from click.testing import CliRunner

from lab_utils.cli.grade import both_ends, grade
from lab_utils.grading import batch, clusters
from lab_utils.grading.results import Grade
from lab_utils.grading.worker import WorkerFailed
from lab_utils.labs.catalog import LabFiles
from lab_utils.labs.spec import SCHEMAS
from tests.grading.conftest import FULL, LAB, Notebook, as_bytes

HandedIn = Callable[..., Notebook]
LOOP = "import signal; signal.signal(signal.SIGINT, signal.SIG_IGN)\nwhile True: pass"


@pytest.fixture
def lab(root: Path, tmp_path: Path) -> Callable[..., subprocess.CompletedProcess[str]]:
    """The command, in a process of its own."""

    def run(*words: str | Path) -> subprocess.CompletedProcess[str]:
        return subprocess.run(argv(*words), env=environment(root, tmp_path), capture_output=True, text=True, timeout=500)

    return run


def at_once(job: Any, *_: Any) -> Grade:
    """In the place of a sandbox, where only the run around it is asked about."""
    spec = LabFiles(job.lab, Path(job.root)).spec
    return Grade.begin(job.entry, spec).finish(spec)


def argv(*words: str | Path) -> list[str]:
    return [sys.executable, "-m", "lab_utils", *map(str, words)]


def environment(root: Path, tmp_path: Path) -> dict[str, str]:
    return {**os.environ, "LAB_ROOT": str(root), "LAB_STATE": str(tmp_path / "state"), "PYTHONWARNINGS": "default"}


def results(out: Path) -> dict[str, dict[str, Any]]:
    data = json.loads((out / "results.json").read_text())
    jsonschema.validate(data, json.loads((SCHEMAS / "results.schema.json").read_text()))
    return {one["student"]: one for one in data["submissions"]}


def hand_in(folder: Path, **notebooks: Notebook | bytes | str) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for name, notebook in notebooks.items():
        (folder / f"{name}.ipynb").write_bytes(as_bytes(notebook))
    return folder


def test_a_mixed_batch_of_thirty_gets_the_right_scores_in_one_go(
    lab: Callable[..., subprocess.CompletedProcess[str]], handed_in: HandedIn, untouched: Notebook, solved: Notebook, tmp_path: Path
) -> None:
    """Half of them hostile or broken; two at a time."""
    boom = "import os\nwhile True:\n    try: os.fork()\n    except OSError: pass"
    expected: dict[str, tuple[str, float]] = {}
    folder = tmp_path / "in"

    def add(name: str, notebook: Notebook | bytes | str, score: float, status: str = "graded") -> None:
        hand_in(folder, **{name: notebook})
        expected[name] = (status, score)

    add("right", handed_in(), FULL)
    add("solution", solved, FULL)
    add("untouched", untouched, 0)
    add("one wrong", handed_in(word='lab.answer("word", "Node")'), FULL - 3)
    add("partly", handed_in(table='lab.answer("table", {"api": 6443})'), FULL - 4)
    add("child without parent", handed_in(sum='lab.answer("sum", 0)'), FULL - 4)
    add("chatty", handed_in(sum='print("x" * 100_000)\nlab.answer("sum", lab.params["first"] + 1)'), FULL)
    add("error after", handed_in(word='lab.answer("word", "pod"); 1/0'), FULL)
    add("syntax error", handed_in(word='lab.answer("word", '), FULL - 3)
    add("no answers", handed_in(**dict.fromkeys(("sum", "word", "table", "double", "last"), "pass")), 0)
    add("BOM", b"\xef\xbb\xbf" + as_bytes(handed_in()), FULL)
    add("sys-exit", handed_in(word="import sys; sys.exit(0)"), FULL - 3)
    add("os-exit", handed_in(word="import os; os._exit(0)"), 2)
    add("loop", handed_in(word="while True: pass"), FULL - 3)
    add("stubborn loop", handed_in(table=LOOP), 5)
    add("fork bomb", handed_in(last=boom), FULL - 1)
    add("memory", handed_in(word="x = bytearray(10**11)"), FULL - 3)
    add("output", handed_in(word="for i in range(200_000): print('x' * 1000)"), FULL - 3)
    add("huge message", handed_in(word="print('x' * 100_000_000)"), FULL - 3)
    add("input", handed_in(word="lab.answer('word', input())"), FULL - 3)
    add("disk", handed_in(word="open('/tmp/x', 'wb').write(b'x' * 10**9)"), FULL - 3)
    add("patched", handed_in(word="import lab_utils.checks as c; c.run_checks = None"), FULL - 3)
    add("reads", handed_in(word="lab.answer('word', open('/root/.bashrc').read())"), FULL - 3)
    add(
        "network", handed_in(word="import urllib.request as u; lab.answer('word', u.urlopen('http://1.1.1.1', timeout=2).read())"), FULL - 3
    )
    add("detached", handed_in(word="import subprocess; subprocess.Popen(['sleep', '1000'], start_new_session=True)"), FULL - 3)
    add("empty", b"", 0, "rejected")
    add("null", b"null", 0, "rejected")
    add("truncated", as_bytes(handed_in())[:500], 0, "rejected")
    add("format 5", as_bytes(handed_in() | {"nbformat": 5}), 0, "rejected")
    add("deep", b"[" * 100_000, 0, "rejected")
    (folder / "folder.ipynb").mkdir()
    expected["folder"] = ("rejected", 0)
    assert len(expected) > 30

    out = tmp_path / "out"
    done = lab("grade", "90", folder, "--out", out, "--cluster", "none", "--jobs", "2", "--cell-timeout", "12")
    assert done.returncode == 0, done.stderr
    found = results(out)
    assert {name: (one["status"], one["score"]) for name, one in found.items()} == expected
    assert all(one["message"] for one in found.values() if one["status"] == "rejected")
    assert re.search(r"left, about \d+ (s|min)", done.stderr)

    # Every form is there and says the same.
    rows = {row["student_id"]: row for row in csv.DictReader((out / "grades.csv").read_text().splitlines())}
    assert list(next(iter(rows.values()))) == (
        [
            "assignment",
            "duedate",
            "timestamp",
            "student_id",
            "last_name",
            "first_name",
            "email",
            "raw_score",
            "late_submission_penalty",
            "score",
            "max_score",
        ]
    )
    assert {name: float(row["score"]) for name, row in rows.items()} == {name: float(score) for name, (_, score) in expected.items()}
    assert (out / "canvas.csv").read_text().startswith("Student,ID,SIS User ID,SIS Login ID,Section,")
    assert "Participant" not in (out / "moodle.csv").read_text()
    for one in found.values():
        assert (out / one["report"]).is_file()
        scope = json.loads((out / "gradescope" / (Path(one["report"]).stem + ".json")).read_text())
        assert scope["score"] == one["score"] == sum(test["score"] for test in scope["tests"])
    for page in out.rglob("*.html"):
        text = page.read_text()
        assert "<script" not in text
        assert not re.search(r"(?:src|href)=[\"']?https?:", text)

    # A second run does nothing, and leaves the same bytes.
    before = (out / "results.json").read_bytes()
    again = lab("grade", "90", folder, "--out", out, "--cluster", "none", "--jobs", "2", "--cell-timeout", "12")
    assert "31 have been graded before" in again.stderr
    assert (out / "results.json").read_bytes() == before

    # What changed is graded again, and only that.
    hand_in(folder, null=handed_in())
    third = lab("grade", "90", folder, "--out", out, "--cluster", "none", "--cell-timeout", "12")
    assert "30 have been graded before" in third.stderr
    assert results(out)["null"]["score"] == FULL


def test_a_group_taken_for_a_student_is_said(tmp_path: Path, lab: Any) -> None:
    hand_in(tmp_path / "in" / "group-a", ada=b"", lin=b"")
    hand_in(tmp_path / "in", eve=b"")
    done = lab("grade", "90", tmp_path / "in", "--out", tmp_path / "out", "--cluster", "none")
    assert set(results(tmp_path / "out")) == {"eve", "group-a"}
    assert "ignored: group-a/lin.ipynb" in done.stderr
    assert "Is it the folder of a group?" in done.stderr
    done = lab("grade", "90", tmp_path / "in" / "group-a", tmp_path / "in" / "eve.ipynb", "--out", tmp_path / "each", "--cluster", "none")
    assert set(results(tmp_path / "each")) == {"ada", "lin", "eve"}
    assert "group" not in done.stderr


def test_an_interrupted_run_resumes_and_leaves_nothing_behind(root: Path, handed_in: HandedIn, tmp_path: Path, lab: Any) -> None:
    folder = hand_in(tmp_path / "in", a=handed_in(), b=handed_in(word="import time; time.sleep(300)"))
    out = tmp_path / "out"
    words = argv("grade", "90", folder, "--out", out, "--cluster", "none")
    process = subprocess.Popen(
        words, env=environment(root, tmp_path), stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True, start_new_session=True
    )
    assert process.stderr
    for line in process.stderr:
        if "left" in line:
            break
    time.sleep(3)  # b sleeps in its sandbox
    family = psutil.Process(process.pid).children(recursive=True)
    assert any("bwrap" in one.name() for one in family)
    os.kill(process.pid, signal.SIGKILL)  # as hard as it gets
    process.wait()
    process.stderr.close()
    deadline = time.monotonic() + 60
    while any(one.is_running() and one.status() != psutil.STATUS_ZOMBIE for one in family) and time.monotonic() < deadline:
        time.sleep(0.2)
    assert not [one for one in family if one.is_running() and one.status() != psutil.STATUS_ZOMBIE]
    hand_in(folder, b=handed_in(word="1"))
    done = lab("grade", "90", folder, "--out", out, "--cluster", "none")
    assert done.returncode == 0, done.stderr
    assert "1 have been graded before" in done.stderr
    assert {name: one["score"] for name, one in results(out).items()} == {"a": FULL, "b": FULL - 3}


@pytest.mark.parametrize(("sent", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)], ids=["ctrl-c", "timeout, CI"])
def test_a_run_that_is_stopped_says_so_without_a_traceback(
    root: Path, handed_in: HandedIn, tmp_path: Path, sent: signal.Signals, code: int
) -> None:
    folder = hand_in(tmp_path / "in", b=handed_in(sum="import time; time.sleep(300)"))
    words = argv("grade", "90", folder, "--out", tmp_path / "out", "--cluster", "none")
    process = subprocess.Popen(
        words, env=environment(root, tmp_path), stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True, start_new_session=True
    )
    time.sleep(12)
    family = psutil.Process(process.pid).children(recursive=True)
    os.killpg(process.pid, sent) if sent == signal.SIGINT else process.send_signal(sent)  # Ctrl-C goes to all in front of the terminal
    _, said = process.communicate(timeout=100)
    assert process.returncode == code
    assert said.endswith("lab: stopped\n")
    assert "Traceback" not in said
    psutil.wait_procs(family, timeout=30)  # multiprocessing's own helpers notice a moment later
    assert not [one for one in family if one.is_running() and one.status() != psutil.STATUS_ZOMBIE]


BAD = {
    "no such lab": (["77", "{in}", "--out", "{out}"], "there is no lab"),
    "no such path": (["90", "{in}/gone", "--out", "{out}"], "there is no"),
    "no submissions": (["90", "{empty}", "--out", "{out}"], "no submissions"),
    "the out folder is a file": (["90", "{in}", "--out", "{file}"], "not a folder"),
    "the out folder is below a file": (["90", "{in}", "--out", "{file}/x"], "cannot be written"),
    "a broken zip": (["90", "{zip}", "--out", "{out}"], "zip"),
    "no such format": (["90", "{in}", "--out", "{out}", "--format", "pdf"], "there is no format"),
    "no such cluster": (["90", "{in}", "--out", "{out}", "--cluster", "gone"], "no cluster named"),
    "other results": (["90", "{in}", "--out", "{other}"], "results"),
    "no path": (["90", "--out", "{out}"], "Missing argument"),
    "no out": (["90", "{in}"], "Missing option"),
    "no jobs": (["90", "{in}", "--out", "{out}", "--jobs", "0"], "jobs"),
    "a timeout that is no number": (["90", "{in}", "--out", "{out}", "--timeout", "soon"], "not a valid number of seconds"),
    "a timeout that never comes": (["90", "{in}", "--out", "{out}", "--timeout", "nan"], "not a valid number of seconds"),
    "a cell's timeout that never comes": (["90", "{in}", "--out", "{out}", "--cell-timeout", "nan"], "not a valid number of seconds"),
    "results among the submissions": (["90", "{in}", "--out", "{in}"], "where the submissions are"),
    "somebody else's files": (["90", "{in}", "--out", "{foreign}"], "holds grades.csv, not written by this grader"),
}


@pytest.mark.parametrize(("words", "said"), BAD.values(), ids=BAD.keys())
def test_bad_input_ends_with_2_and_one_line(lab: Any, handed_in: HandedIn, tmp_path: Path, words: list[str], said: str) -> None:
    places = {name: tmp_path / name for name in ("in", "empty", "out", "file", "other", "foreign")} | {"zip": tmp_path / "x.zip"}
    hand_in(places["in"], a=handed_in())
    places["empty"].mkdir()
    places["file"].write_text("")
    places["zip"].write_text("no zip")
    places["other"].mkdir()
    (places["other"] / "results.json").write_text('{"lab": "03-pods", "cluster": {}}')
    places["foreign"].mkdir()
    (places["foreign"] / "grades.csv").write_text("a term's work")
    before = {path for path in tmp_path.rglob("*") if "state" not in path.parts}
    done = lab("grade", *(word.format(**places) for word in words))
    assert done.returncode == 2, done.stderr
    assert said in done.stderr
    assert "Traceback" not in done.stderr
    assert (places["foreign"] / "grades.csv").read_text() == "a term's work"
    assert {path for path in tmp_path.rglob("*") if "state" not in path.parts} == before, "nothing is left half made"


def test_a_lab_that_is_half_built_is_not_graded(root: Path, handed_in: HandedIn, tmp_path: Path, lab: Any) -> None:
    """Else everybody would get 0 for a step that the released notebook does not have yet."""
    notebook = root / "labs" / LAB / "lab.ipynb"
    before = notebook.read_text()
    data = json.loads(before)
    data["cells"] = [cell for cell in data["cells"] if cell["metadata"].get("step") != "word"]
    try:
        notebook.write_text(json.dumps(data))
        done = lab("grade", "90", hand_in(tmp_path / "in", ada=handed_in()), "--out", tmp_path / "out", "--cluster", "none")
    finally:
        notebook.write_text(before)
    assert (done.returncode, "speak of different steps" in done.stderr) == (2, True), done.stderr


def test_a_lab_that_looks_at_a_cluster_is_not_graded_without_one(tmp_path: Path) -> None:
    notebook = Path(__file__).parents[2] / "labs/03-pods/lab.ipynb"
    done = subprocess.run(
        argv("grade", "03", notebook, "--out", tmp_path / "out", "--cluster", "none"), capture_output=True, text=True, timeout=100
    )
    assert (done.returncode, "cannot be graded without a cluster" in done.stderr) == (2, True)


def test_a_grade_without_a_cluster_does_not_stand_for_one_with_a_cluster(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from lab_utils.grading.discover import discover
    from lab_utils.grading.limits import Limits

    class Silent:
        def begun(self, total: int, kept: int) -> None:
            counts.append(kept)

        def again(self, entry: Any, why: str) -> None:
            raise AssertionError(why)

        def finished(self, grade: Any, left: int, eta: float) -> None:
            pass

    counts: list[int] = []
    files = LabFiles(LAB, root)
    monkeypatch.setattr(batch, "grade_apart", at_once)
    entries = discover([hand_in(tmp_path / "in", ada="{}")], LAB, Limits()).entries
    for name in ("none", "none", "lab", "lab"):
        work = batch.outstanding(files, entries, tmp_path / "out", Limits(), on_cluster=name != "none")
        batch.grade_all(files, entries, tmp_path / "out", [batch.Slot(name)], Limits(), Silent(), work)
    assert counts == [0, 1, 0, 1]


def test_an_accident_of_ours_is_told_and_the_submission_is_graded_once_more(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def first_goes_wrong(job: Any, *_: Any) -> Grade:
        tries.append(job.verified)
        if len(tries) == 1:
            raise WorkerFailed("node w1 does not answer by ssh")
        return at_once(job)

    tries: list[bool] = []
    monkeypatch.setenv("LAB_ROOT", str(root))
    monkeypatch.setattr(batch, "grade_apart", first_goes_wrong)
    words = ["90", str(hand_in(tmp_path / "in", ada="{}")), "--out", str(tmp_path / "out"), "--cluster", "none"]
    done = CliRunner().invoke(grade, words, standalone_mode=False)
    assert (done.return_value, len(tries)) == (0, 2)
    assert "ada" in done.stderr and "once more" in done.stderr and "node w1 does not answer by ssh" in done.stderr


def test_a_long_command_does_not_hide_what_it_said() -> None:
    why = f"`kubectl --kubeconfig {'/a/long/path' * 60} get pods` ended with code 1: net/http: TLS handshake timeout"
    assert both_ends(why).startswith("`kubectl --kubeconfig /a") and both_ends(why).endswith("TLS handshake timeout")
    assert len(both_ends(why)) <= 303 and both_ends("short") == "short"


def test_a_run_in_which_nothing_is_left_to_grade_needs_no_cluster(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    @contextmanager
    def slots(*_: Any, **__: Any) -> Iterator[Any]:
        asked.append("for a cluster")
        yield [batch.Slot("lab")], {"names": ["lab"], "provider": "embedded", "kubernetes": "v1.36.3", "nodes": ["cp"]}

    asked: list[str] = []
    monkeypatch.setenv("LAB_ROOT", str(root))
    monkeypatch.setattr(clusters, "slots", slots)
    monkeypatch.setattr(batch, "grade_apart", at_once)
    folder, out = hand_in(tmp_path / "in", ada="{}"), tmp_path / "out"
    for _ in range(2):
        assert CliRunner().invoke(grade, ["90", str(folder), "--out", str(out)], standalone_mode=False).return_value == 0
    assert asked == ["for a cluster"]
    assert results(out).keys() == {"ada"}
    assert json.loads((out / "results.json").read_text())["cluster"]["names"] == ["lab"]
    hand_in(folder, eve="{}")
    CliRunner().invoke(grade, ["90", str(folder), "--out", str(out)], standalone_mode=False)
    assert asked == ["for a cluster"] * 2


def test_formulas_in_names_do_not_reach_a_spreadsheet(lab: Any, handed_in: HandedIn, tmp_path: Path) -> None:
    folder = hand_in(tmp_path / "in", **{"=cmd|' calc'!A1": "null", "@SUM(1)": "null", "<img src=x onerror=alert(1)>": "null"})
    out = tmp_path / "out"
    assert lab("grade", "90", folder, "--out", out, "--cluster", "none").returncode == 0
    for row in csv.reader((out / "grades.csv").read_text().splitlines()):
        assert not any(cell.startswith(("=", "@", "+", "-")) for cell in row)
    assert "<img src=x" not in (out / "index.html").read_text()


def test_one_notebook_and_only_the_formats_that_were_asked_for(lab: Any, handed_in: HandedIn, tmp_path: Path) -> None:
    folder = hand_in(tmp_path / "in", ada=handed_in())
    out = tmp_path / "new" / "out"
    done = lab("grade", LAB, folder / "ada.ipynb", "--out", out, "--cluster", "none", "--format", "csv,gradescope")
    assert done.returncode == 0, done.stderr
    assert results(out)["ada"]["score"] == FULL
    assert {path.name for path in out.iterdir() if not path.name.startswith(".")} == {"results.json", "grades.csv", "gradescope", "state"}


def test_two_graders_do_not_share_a_folder(root: Path, tmp_path: Path) -> None:
    from lab_utils.errors import Busy
    from lab_utils.grading.batch import out_folder

    with out_folder(tmp_path / "out", LAB), pytest.raises(Busy), out_folder(tmp_path / "out", LAB):
        pass


def test_clusters_whose_nodes_share_the_kernel_are_named_before_students_become_root_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from lab_utils.cluster import ClusterRecord
    from lab_utils.grading.clusters import without_walls

    monkeypatch.setenv("LAB_STATE", str(tmp_path))
    for name, provider, guarded in (
        ("open", "embedded", False),
        ("walled", "embedded", True),
        ("boxes", "kind", False),
        ("machines", "vagrant", False),
    ):
        ClusterRecord(name, provider, "up", "", [], options={"guarded": guarded}).save()
    assert without_walls(["open", "walled", "boxes", "machines"]) == ["open", "boxes"]
