"""What root's half decides, with nodes that are only pretended."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from lab_utils.embedded import network, node, operations, pristine, state
from lab_utils.embedded.gate import Gate
from lab_utils.embedded.state import State
from lab_utils.errors import BadInput, Busy, LabError, Unhealthy
from lab_utils.progress import Silent
from lab_utils.run import Result

OPTIONS = {"proxy_mode": "", "host_key": "", "host_key_public": "", "authorized_key": "", "kubernetes": "", "images": {}, "bare": False}
REQUEST = {**OPTIONS, "name": "lab", "workers": 1, "lower": "/", "store": "/", "asked_by": [0], "kubectl": "kubectl"}


@pytest.fixture(autouse=True)
def own_state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("LAB_STATE", str(tmp_path))
    return tmp_path / "root"


class Heard(Silent):
    def __init__(self) -> None:
        self.notes: list[str] = []

    def note(self, what: str) -> None:
        self.notes.append(what)


def finished(name: str = "lab", owner: int = 0) -> State:
    known = State(name, 998, "172.31.64.0/24", ["cp", "w1"], "/", "/", "token", options=dict(OPTIONS), finished=True, owner=owner)
    known.save()
    return known


class TestUpOfARunningCluster:
    @pytest.fixture(autouse=True)
    def running(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Both nodes run; what would touch the host is left out."""
        self.wired: list[str] = []
        monkeypatch.setattr(node, "init_pid", lambda known, name: 1)
        monkeypatch.setattr(operations, "_wire", lambda known: self.wired.append(known.name))
        monkeypatch.setattr(operations, "_boot", lambda known, names: pytest.fail(f"{names} are booted"))
        monkeypatch.setattr(operations, "_admin_conf", lambda known: "a kubeconfig")
        monkeypatch.setattr(network, "fence", lambda plan, closed: None)

    def gate(self, monkeypatch: pytest.MonkeyPatch, nodes_missing: Callable[[Gate], str]) -> None:
        """A cluster of which at most its nodes' readiness is missing, and nobody waits for longer than a moment."""
        for name in ("account_missing", "coredns_missing", "proxies_missing", "traffic_missing"):
            monkeypatch.setattr(Gate, name, lambda gate: "")
        monkeypatch.setattr(Gate, "nodes_missing", nodes_missing)
        monkeypatch.setattr(Gate, "seconds", 0.5)

    def test_one_that_works_is_asked_once_and_its_way_out_is_seen_to(self, monkeypatch: pytest.MonkeyPatch) -> None:
        asked = []
        self.gate(monkeypatch, lambda gate: asked.append("nodes") or "")  # type: ignore[func-returns-value]
        finished()
        heard = Heard()
        assert operations.up(REQUEST, heard)["kubeconfig"] == "a kubeconfig"
        assert (asked, self.wired, heard.notes) == (["nodes"], ["lab"], [])

    def test_one_that_does_not_work_is_not_called_up(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.gate(monkeypatch, lambda gate: "not Ready: w1")
        finished()
        heard = Heard()
        with pytest.raises(Unhealthy, match=r"nodes Ready did not come about within 0 s: not Ready: w1.*lab diagnose --name lab"):
            operations.up(REQUEST, heard)
        assert heard.notes == ["all nodes run, and the cluster does not work: not Ready: w1"]

    def test_one_that_is_about_to_work_is_waited_for(self, monkeypatch: pytest.MonkeyPatch) -> None:
        late = iter(["not Ready: w1", "not Ready: w1"])
        self.gate(monkeypatch, lambda gate: next(late, ""))
        finished()
        assert [each["name"] for each in operations.up(REQUEST, Heard())["nodes"]] == ["cp", "w1"]

    def test_one_that_has_come_into_another_network_learns_its_name_servers(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """A laptop that was suspended at home and opened at work."""
        told, asked = [], []
        self.gate(monkeypatch, lambda gate: "")

        def kubectl(gate: Gate, *words: str, **_: Any) -> Result:
            asked.append(words[:2])
            return Result("", "", 0)

        monkeypatch.setattr(Gate, "kubectl", kubectl)
        monkeypatch.setattr(node, "inside", lambda known, name, words, *, input, check: told.append((name, *words, input)))
        monkeypatch.setattr(node, "nameservers", lambda: ["192.168.1.1"])
        known = finished()
        known.resolv_conf = "nameserver 192.168.1.1\n"
        known.save()
        operations.up(REQUEST, Heard())
        assert (told, asked) == ([], [])
        monkeypatch.setattr(node, "nameservers", lambda: ["10.1.0.53"])
        heard = Heard()
        operations.up(REQUEST, heard)
        assert told == [(name, "tee", "/etc/resolv.conf", "nameserver 10.1.0.53\n") for name in ("cp", "w1")]
        assert asked == [("get", "--raw=/readyz"), ("delete", "pod")] and "CoreDNS starts anew" in heard.notes[0]
        operations.up(REQUEST, Heard())
        assert len(told) == 2, "once is enough"

    def test_bare_nodes_are_asked_nothing(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.gate(monkeypatch, lambda gate: pytest.fail("there is nothing to ask"))
        known = finished()
        known.options["bare"] = True
        known.save()
        assert operations.up(REQUEST, Heard())["kubeconfig"] == ""
        assert self.wired == ["lab"]


def test_two_commands_at_once_never_take_the_same_number_or_addresses(monkeypatch: pytest.MonkeyPatch) -> None:
    def slowly() -> list[str]:
        time.sleep(0.05)  # long enough for the others to look, too
        return []

    monkeypatch.setattr(network, "subnets_in_use", slowly)
    monkeypatch.setattr(operations, "_create", lambda new, request, progress: {"index": new.index, "subnet": new.subnet})
    with ThreadPoolExecutor() as pool:
        made = list(pool.map(lambda name: operations.up({**REQUEST, "name": name}, Silent()), ["one", "two", "three"]))
    assert len({each["index"] for each in made}) == len({each["subnet"] for each in made}) == 3


class TestAnUpThatFails:
    @pytest.fixture(autouse=True)
    def fails(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
        monkeypatch.setattr(operations, "_create", self.fail)
        for name in ("close_ways_out", "fence", "remove"):
            monkeypatch.setattr(network, name, lambda *_, **__: None)

    def fail(self, new: State, *_: Any) -> None:
        new.node_dir("cp").mkdir(parents=True)
        (new.node_dir("cp") / "console.log").write_text("why")
        raise Unhealthy("it does not work")

    @pytest.mark.skipif(os.geteuid() != 0, reason="only root gives files away")
    def test_its_logs_are_the_users(self) -> None:
        heard = Heard()
        with pytest.raises(Unhealthy):
            operations.up({**REQUEST, "asked_by": [1000]}, heard)
        logs = Path(heard.notes[0].rpartition(" ")[2])
        assert [(path.name, path.stat().st_uid) for path in logs.iterdir()] == [("cp-console.log", 1000)]
        assert (logs.stat().st_uid, logs.stat().st_mode & 0o777) == (1000, 0o700)

    def test_nothing_of_it_is_left_even_without_room_for_its_logs(self, monkeypatch: pytest.MonkeyPatch, own_state: Path) -> None:
        def full(known: State) -> Path:
            raise OSError(28, "No space left on device")

        monkeypatch.setattr(operations, "_keep_logs", full)
        with pytest.raises(OSError, match="No space left"):
            operations.up(REQUEST, Silent())
        assert not (own_state / "lab").exists()


def test_what_a_killed_down_has_left_is_removed_by_the_next(own_state: Path) -> None:
    known = finished()
    (known.node_dir("cp") / "upper").mkdir(parents=True)
    known.forget()
    operations.down({"name": "lab", "asked_by": [0]}, Silent())
    assert not (own_state / "lab").exists()


def test_what_a_killed_down_has_left_does_not_become_a_new_clusters(own_state: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    known = finished()
    (known.node_dir("cp") / "upper").mkdir(parents=True)
    known.forget()
    monkeypatch.setattr(operations, "_create", lambda new, request, progress: {"left": new.node_dir("cp").exists()})
    assert operations.up(REQUEST, Silent()) == {"left": False}


@pytest.mark.parametrize("operation", ["up", "down", "reset", "load", "fence"])
@pytest.mark.parametrize("asked_by", [[1001], [0]], ids=["another user", "root"])
def test_a_cluster_is_touched_by_nobody_but_its_owner(operation: str, asked_by: list[int], monkeypatch: pytest.MonkeyPatch) -> None:
    """Everybody's first cluster is called `lab`: whoever has none yet and types `lab down` means nobody else's."""
    monkeypatch.setattr(state, "who", lambda known: "hers")
    finished(owner=1000)
    with pytest.raises(Busy, match="belongs to hers"):
        operations.OPERATIONS[operation]({**REQUEST, "asked_by": asked_by, "archive": "/a.tar", "closed": True}, Silent())
    assert state.load("lab")


@pytest.mark.parametrize(
    ("owner", "asked_by"), [(1000, [1000]), (1000, [0, 1000]), (3_999_999_999, [0])], ids=["oneself", "behind sudo", "a user who has gone"]
)
def test_a_cluster_is_removed_by(owner: int, asked_by: list[int], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(operations, "_remove", lambda known: known.forget())
    finished(owner=owner)
    operations.down({"name": "lab", "asked_by": asked_by}, Silent())
    assert not state.load("lab")


@pytest.mark.parametrize("variable", ["LAB_STATE", "LAB_CACHE"])
def test_a_folder_that_overlayfs_cannot_name_is_refused(variable: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(variable, str(tmp_path / "a:b"))
    with pytest.raises(BadInput, match="has ':' in it") as refused:
        operations.up(REQUEST, Silent())
    assert variable in str(refused.value)
    assert not state.load("lab")


def test_keys_that_were_lost_are_handed_out_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[str] = []
    monkeypatch.setattr(operations, "_start", lambda known, request, progress: {"nodes": []})
    monkeypatch.setattr(operations, "write", lambda known, name, path, text: said.append(f"{name}{path}={text.strip()}"))
    monkeypatch.setattr(node, "inside", lambda known, name, words: said.append(f"{name}: {' '.join(words)}"))
    finished()
    operations.up(REQUEST, Silent())
    assert said == []
    operations.up({**REQUEST, "host_key": "h", "host_key_public": "p", "authorized_key": "a"}, Silent())
    assert said[:4] == [
        "cp/etc/ssh/ssh_host_ed25519_key=h",
        "cp/etc/ssh/ssh_host_ed25519_key.pub=p",
        "cp/root/.ssh/authorized_keys=a",
        "cp: systemctl restart ssh",
    ]
    known = state.load("lab")
    assert known and known.options["authorized_key"] == "a"


def test_a_record_of_a_newer_version_is_read(own_state: Path) -> None:
    finished()
    file = own_state / "lab" / "state.json"
    file.write_text(file.read_text().replace("{", '{"invented_later": true, ', 1))
    known = state.load("lab")
    assert known and known.nodes == ["cp", "w1"]


@pytest.mark.parametrize("text", ["null", '"x"', "[]", "{}", "{ half of a rec", '{"name": "lab"}'])
def test_a_record_that_makes_no_sense_is_bad_input(text: str, own_state: Path) -> None:
    finished()
    (own_state / "lab" / "state.json").write_text(text)
    with pytest.raises(BadInput, match="cannot be read"):
        state.load("lab")
    assert state.all_states() == []


def test_what_such_a_record_says_of_the_host_is_given_back(own_state: Path) -> None:
    known = finished()
    known.host_before = {"/proc/sys/some/thing": "0"}
    known.forward_rules = True
    known.save()
    file = own_state / "lab" / "state.json"
    file.write_text(file.read_text().replace('"subnet"', '"sub"'))
    guess = operations._guess("lab")
    assert (guess.host_before, guess.forward_rules, guess.nodes) == (known.host_before, True, ["cp", "w1"])


def test_rules_that_need_what_kube_proxy_makes_are_no_hint() -> None:
    rules = "*filter\n-A KUBE-FORWARD -m nfacct --nfacct-name  ct_state_invalid_dropped_pkts -j DROP\n-A KUBE-FORWARD -j ACCEPT\nCOMMIT\n"
    assert pristine.loadable(rules) == "*filter\n-A KUBE-FORWARD -j ACCEPT\nCOMMIT\n"


def test_a_user_is_told_the_names_of_that_users_clusters_alone() -> None:
    finished("hers", owner=1000)
    finished("his", owner=1001)
    assert operations.OPERATIONS["names"]({"asked_by": [1000]}, Silent()) == {"names": ["hers"]}


def test_a_record_that_goes_while_it_is_looked_for_is_no_record() -> None:
    known = finished()
    known.forget()
    assert state.load("lab") is None
    with pytest.raises(LabError, match="there is no embedded cluster named 'lab'"):
        operations._own({"name": "lab", "asked_by": [0]})
