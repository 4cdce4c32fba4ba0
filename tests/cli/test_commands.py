"""What a person types wrong gets one clear line, exit code 2, and changes nothing."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from lab_utils.cli import COMMANDS
from lab_utils.cluster import ClusterRecord
from lab_utils.embedded.state import State, all_states
from lab_utils.errors import Busy
from lab_utils.grading.lock import grading, leave_alone


def lab(*words: str, state: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    env = {**os.environ, "LAB_STATE": str(state), **environment}
    env.pop("LAB_CLUSTER", None)
    return subprocess.run([sys.executable, "-m", "lab_utils", *words], capture_output=True, text=True, timeout=120, env=env)


MISTAKES = {
    "a name with a slash": (["up", "--name", "../etc"], "cannot name a cluster"),
    "a name in capitals": (["up", "--name", "Lab"], "cannot name a cluster"),
    "an empty name": (["up", "--name", ""], "cannot name a cluster"),
    "a very long name": (["up", "--name", "a" * 60], "cannot name a cluster"),
    "too many workers": (["up", "--workers", "9"], "0<=x<=5"),
    "a word for a number": (["up", "--workers", "two"], "two"),
    "an unknown provider": (["up", "--provider", "clouds"], "there is no provider named 'clouds'"),
    "an unknown proxy mode": (["up", "--proxy-mode", "ipvs"], "ipvs"),
    "an unknown engine": (["up", "--network-policy", "nonsense"], "nonsense"),
    "an engine where nothing runs": (["up", "--bare", "--network-policy", "own"], "--bare and --network-policy were both given"),
    "an add-on where nothing runs": (["up", "--bare", "--metrics-server"], "--bare and --metrics-server were both given"),
    "a lab on a cluster where nothing runs": (["up", "--bare", "--for", "12"], "--bare and --for were both given"),
    "an add-on for a lab on bare nodes": (["up", "--for", "01", "--metrics-server"], "--for 01 and --metrics-server were both given"),
    "an unknown cluster": (["status", "--name", "nowhere"], "there is no cluster named 'nowhere'"),
    "a shell on nothing": (["ssh", "cp"], "there is no cluster here"),
    "kubectl for nothing": (["kubectl", "--", "get", "nodes"], "there is no cluster here"),
    "reset of nothing": (["reset"], "there is no cluster named 'lab'"),
    "the kubeconfig of nothing": (["kubeconfig", "--name", "nowhere"], "there is no cluster named 'nowhere'"),
    "an image that is not there": (["load", "missing.tar"], "there is no file missing.tar"),
    "a name and all": (["down", "--name", "lab", "--all"], "both given"),
    "an unknown command": (["frobnicate"], "frobnicate"),
    "diagnosing nothing": (["diagnose"], "there is no cluster here"),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_gets_one_clear_line(mistake: str, tmp_path: Path) -> None:
    words, expected = MISTAKES[mistake]
    said = lab(*words, state=tmp_path)
    assert said.returncode == 2, said.stderr
    assert expected in said.stderr
    assert said.stderr.startswith("lab: ") and said.stderr.count("\n") == 1
    assert said.stdout == ""
    assert not list(tmp_path.rglob("*.json")), "nothing was recorded"


def test_removing_what_is_not_there_is_no_mistake(tmp_path: Path) -> None:
    assert lab("down", "--name", "nowhere", state=tmp_path).returncode == 0


@pytest.mark.parametrize(
    ("trace", "why"),
    [
        ("kind.yaml", "there is no `docker` command"),
        ("vagrant/dot/machines/cp/virtualbox/id", "Vagrant is not installed"),
        ("node-pods", "node-cp"),
    ],
)
def test_what_another_provider_made_is_not_forgotten_because_the_record_is_damaged(trace: str, why: str, tmp_path: Path) -> None:
    """Here neither can be asked, so the folder, by which they would know what is theirs, stays; and it is said why."""
    folder = tmp_path / "clusters/broken"
    (folder / trace).parent.mkdir(parents=True)
    (folder / trace).write_text("node-cp\n")
    (folder / "cluster.json").write_text("{")
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin/kind").symlink_to("/bin/true")
    said = lab("down", "--name", "broken", state=tmp_path, PATH=str(tmp_path / "bin"))
    *_, last = said.stderr.splitlines()
    assert said.returncode == 2 and last.startswith("lab: ") and why in last, said.stderr
    assert (folder / trace).exists()


@pytest.mark.parametrize("words", [["up"], ["reset"], ["down"]], ids=" ".join)
def test_a_cluster_that_grades_is_left_alone(words: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LAB_STATE", str(tmp_path))
    ClusterRecord("busy", "embedded", "up", "", []).save()
    with grading("busy"):
        said = lab(*words, "--name", "busy", state=tmp_path)
        assert (said.returncode, said.stdout) == (2, "")
        assert said.stderr == "lab: `lab grade` uses cluster 'busy'. Wait until it has ended, or use another --name\n"
        with pytest.raises(Busy, match="another `lab grade` uses cluster 'busy'"), grading("busy"):
            pass
    leave_alone("busy")


@pytest.mark.parametrize(("sent", "code"), [(signal.SIGTERM, 143), (signal.SIGHUP, 129)], ids=["timeout, CI", "a closed window"])
def test_whatever_ends_a_command_lets_it_clean_up(sent: signal.Signals, code: int, tmp_path: Path) -> None:
    """A command that waits, with a terminal that is gone when it cleans up."""
    script = f"""
import os, signal, time
import click
from lab_utils.cli import finish
signal.signal(signal.SIGHUP, signal.SIG_DFL)  # ignored where the suite was started by nohup

@click.command()
def wait():
    try:
        print("begun", flush=True)
        time.sleep(60)
    finally:
        click.echo("cleaning", err=True)
        open({str(tmp_path / "clean")!r}, "w").close()

finish(wait, "wait")
"""
    ours, terminal = os.openpty()
    with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, stderr=terminal, start_new_session=True) as process:
        os.close(terminal)
        assert process.stdout and process.stdout.readline() == b"begun\n"
        if sent == signal.SIGHUP:
            os.close(ours)  # from now on whatever is written there is an error
        process.send_signal(sent)
        assert process.wait(timeout=30) == code
    assert (tmp_path / "clean").exists()


@pytest.mark.skipif(os.geteuid() != 0, reason="root's record of a cluster is for root alone")
def test_down_all_removes_clusters_of_this_user_whose_own_record_is_gone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LAB_STATE", str(tmp_path))
    for number, (name, owner) in enumerate({"mine": 0, "another": 1000}.items(), start=998):
        State(name, number, f"172.31.{number - 900}.0/24", ["cp"], "", "", "", owner=owner).save()
    said = lab("down", "--all", state=tmp_path)
    assert said.returncode == 0 and "Removing cluster mine" in said.stderr
    assert [known.name for known in all_states()] == ["another"]


def test_no_cluster_is_a_healthy_state(tmp_path: Path) -> None:
    said = lab("status", "--json", state=tmp_path)
    assert said.returncode == 0
    assert json.loads(said.stdout) == {"clusters": []}


def test_a_record_that_is_damaged_is_named(tmp_path: Path) -> None:
    record = tmp_path / "clusters/lab/cluster.json"
    record.parent.mkdir(parents=True)
    record.write_text('{"name": "lab", "prov')
    said = lab("ssh", "cp", state=tmp_path)
    assert said.returncode == 2
    assert str(record) in said.stderr and "lab down" in said.stderr and "Traceback" not in said.stderr


NODE = {"name": "cp", "ip": "172.31.64.11", "role": "control-plane"}
WRONG_RECORDS = {
    "null": "null",
    "a text": '"x"',
    "a list": "[]",
    "no access": json.dumps({"name": "foo", "provider": "embedded", "state": "up", "kubeconfig": "k", "nodes": [{**NODE, "access": None}]}),
}


@pytest.mark.parametrize("record", WRONG_RECORDS)
def test_a_record_of_a_wrong_shape_is_named_by_every_command_and_removed_by_down(record: str, tmp_path: Path) -> None:
    path = tmp_path / "clusters/foo/cluster.json"
    path.parent.mkdir(parents=True)
    path.write_text(WRONG_RECORDS[record])
    for words in (["status"], ["kubeconfig"], ["ssh", "cp"], ["kubectl", "version"]):
        said = lab(*words, state=tmp_path)
        # `status` goes on with the other clusters, and ends with its own code for one that is not well.
        assert (said.returncode, said.stdout, said.stderr.count("\n")) == (1 if words == ["status"] else 2, "", 1), said.stderr
        assert said.stderr.startswith(f"lab: {path} is not a cluster record") and "`lab down --name foo`" in said.stderr
    removed = lab("down", "--name", "foo", state=tmp_path)
    assert "Traceback" not in removed.stderr
    if os.geteuid() == 0:
        assert removed.returncode == 0 and not path.exists()


def test_a_cluster_that_a_newer_version_wrote_down_is_used(tmp_path: Path) -> None:
    path = tmp_path / "clusters/foo/cluster.json"
    path.parent.mkdir(parents=True)
    record = {"name": "foo", "provider": "embedded", "state": "up", "kubeconfig": "/there", "nodes": [{**NODE, "zone": 1}], "since": 2}
    path.write_text(json.dumps(record))
    assert lab("kubeconfig", state=tmp_path).stdout == "/there\n"


@pytest.mark.parametrize("encoding", ["iso-8859-1", "cp1252", "utf-8"])
def test_a_terminal_that_lacks_our_signs_gets_others(encoding: str, tmp_path: Path) -> None:
    env = {**os.environ, "LAB_STATE": str(tmp_path), "PYTHONIOENCODING": encoding}
    said = subprocess.run([sys.executable, "-m", "lab_utils", "doctor"], capture_output=True, timeout=120, env=env)
    marks = {line.split()[0] for line in said.stdout.decode(encoding).splitlines() if line.startswith(" ") and line[1] != " "}
    assert marks <= ({"✓", "✗"} if encoding == "utf-8" else {"+", "-"}) and marks
    assert b"Traceback" not in said.stderr


def test_doctor_needs_no_home(tmp_path: Path) -> None:
    said = lab("doctor", "--json", state=tmp_path, HOME="/nonexistent", XDG_CACHE_HOME="", LAB_CACHE="")
    assert json.loads(said.stdout)["has"]["disk_mb"] > 0, said.stderr


def test_doctor_tells_programs_what_can_run(tmp_path: Path) -> None:
    said = lab("doctor", "--json", state=tmp_path)
    report = json.loads(said.stdout)
    assert {"name", "usable", "why"} <= set(report["providers"][0])
    usable = [each["name"] for each in report["providers"] if each["usable"]]
    assert said.returncode == (0 if usable else 2)
    assert report["recommended"] == (usable[0] if usable else None)


def test_doctor_names_what_is_missing_and_the_command_that_helps(tmp_path: Path) -> None:
    bare = tmp_path / "bin"
    bare.mkdir()
    (bare / "ip").symlink_to(shutil.which("true") or "/bin/true")
    debian = tmp_path / "os-release"
    debian.write_text("ID=debian\n")
    said = lab("doctor", "--json", state=tmp_path, PATH=str(bare), OS_RELEASE=str(debian))
    embedded = next(each for each in json.loads(said.stdout)["providers"] if each["name"] == "embedded")
    assert not embedded["usable"] and "nftables" in embedded["why"] and "apt-get install" in embedded["mend"]
    assert said.returncode == 2


def as_nobody(words: list[str], state: Path) -> subprocess.CompletedProcess[str]:
    if os.geteuid() != 0:
        pytest.skip("only root can become somebody else for this test")
    nobody = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", sys.executable]
    env = {"PATH": os.environ["PATH"], "LAB_STATE": str(state), "LAB_CACHE": str(state / "cache"), "PYTHONDONTWRITEBYTECODE": "1"}
    if subprocess.run([*nobody, "-c", "import lab_utils"], capture_output=True, env=env).returncode != 0:
        pytest.skip("another user cannot read this checkout or its Python")
    return subprocess.run([*nobody, "-m", "lab_utils", *words], capture_output=True, text=True, env=env, timeout=60)


def test_without_root_and_without_sudo_nothing_is_tried() -> None:
    if shutil.which("sudo"):
        pytest.skip("this machine has sudo, so the case does not arise")
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o777)
        said = as_nobody(["up"], Path(folder))
        assert said.returncode == 2
        assert "needs root" in said.stderr and "Traceback" not in said.stderr
        assert not list(Path(folder).rglob("*.json"))


def test_a_folder_that_may_not_be_read_is_named() -> None:
    with tempfile.TemporaryDirectory() as folder:
        said = as_nobody(["status"], Path(folder) / "state")
        assert said.returncode == 2
        assert "Permission denied" in said.stderr and folder in said.stderr and "Traceback" not in said.stderr


def test_every_command_explains_itself(tmp_path: Path) -> None:
    for name in COMMANDS:
        said = lab(name, "--help", state=tmp_path)
        assert said.returncode == 0, f"{name}: {said.stderr}"
        assert len(said.stdout.splitlines()) > 2, name


@pytest.mark.skipif(not Path("/usr/sbin/nft").exists(), reason="nftables is not installed here")
def test_programs_that_an_ordinary_users_path_leaves_out_are_found(tmp_path: Path) -> None:
    """On Debian a user's PATH has no /usr/sbin, where nft is."""
    report = json.loads(lab("doctor", "--json", state=tmp_path, PATH="/usr/local/bin:/usr/bin:/bin").stdout)
    embedded = next(each for each in report["providers"] if each["name"] == "embedded")
    assert "nft" not in embedded["why"] + embedded["mend"]
