"""Several clusters: what is wrong with one hides none of the others, in `lab status` and in `lab down --all`."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field

import pytest
from click.testing import CliRunner, Result

from lab_utils.cli.clusters import down, status
from lab_utils.cluster import ClusterRecord, NodeRecord, cluster_dir
from lab_utils.errors import HostLacks, LabError
from lab_utils.progress import Progress
from lab_utils.providers import NodeStatus, Usability

CP = NodeRecord("cp", "192.168.56.10", "control-plane")


@dataclass
class Pretended:
    """A provider all of whose clusters run, but for what `fails`."""

    name: str
    fails: Exception | None = None
    removed: list[str] = field(default_factory=list)

    def usability(self) -> Usability:
        return Usability(self.name, False, "pretended")

    def status(self, record: ClusterRecord) -> list[NodeStatus]:
        if self.fails:
            raise self.fails
        return [NodeStatus(node.name, node.ip, node.role, True, True) for node in record.nodes]

    def down(self, name: str, progress: Progress) -> None:
        if self.fails:
            raise self.fails
        self.removed.append(name)


Pretend = Callable[[Exception | None], Pretended]


@pytest.fixture
def pretend(tmp_path: object, monkeypatch: pytest.MonkeyPatch) -> Pretend:
    """Three clusters: a and c of a provider that works, b of one that fails as told. Returns the one that works."""
    monkeypatch.setenv("LAB_STATE", str(tmp_path))

    def of(problem: Exception | None) -> Pretended:
        works, fails = Pretended("kind"), Pretended("vagrant", problem)
        monkeypatch.setattr("lab_utils.providers.provider", lambda name: fails if name == "vagrant" else works)
        for name, provider in (("a", "kind"), ("b", "vagrant"), ("c", "kind")):
            ClusterRecord(name, provider, "up", "/nowhere", [CP]).save()
        return works

    return of


def run(command: object, *words: str) -> Result:
    return CliRunner().invoke(command, list(words), catch_exceptions=False)  # type: ignore[arg-type]


@pytest.mark.parametrize("problem", [HostLacks("Vagrant is not installed", "Install it"), KeyError("vm_provider")])
def test_a_provider_that_cannot_tell_hides_no_other_cluster(pretend: Pretend, problem: Exception) -> None:
    pretend(problem)
    said = run(status)
    rows = said.stdout.splitlines()
    assert said.exit_code == 1
    assert [row.split()[:5] for row in rows if row[:1] in "abc"] == [
        ["a", "cp", "control-plane", CP.ip, "Ready"],
        ["b", "cp", "control-plane", CP.ip, "Unknown"],
        ["c", "cp", "control-plane", CP.ip, "Ready"],
    ]
    a, b, c = json.loads(run(status, "--json").stdout)["clusters"]
    assert (a["healthy"], b["healthy"], c["healthy"]) == (True, False, True)
    assert (b["nodes"][0]["running"], b["nodes"][0]["ready"]) == (None, None)
    assert "Vagrant is not installed. Install it" in b["nodes"][0]["detail"] or "vm_provider" in b["nodes"][0]["detail"]


def test_a_record_that_cannot_be_read_is_named_and_hides_no_other_cluster(pretend: Pretend) -> None:
    pretend(None)
    (cluster_dir("b") / "cluster.json").write_text("{")
    said = run(status, "--json")
    assert said.exit_code == 1, "one cluster could not be looked at"
    assert [each["name"] for each in json.loads(said.stdout)["clusters"]] == ["a", "c"]
    assert said.stderr.startswith("lab: ") and "b/cluster.json is not a cluster record" in said.stderr and said.stderr.count("\n") == 1
    with pytest.raises(LabError, match="is not a cluster record"):
        run(status, "--name", "b")


def test_only_damaged_records_are_not_called_no_cluster(pretend: Pretend) -> None:
    pretend(None)
    for name in "abc":
        (cluster_dir(name) / "cluster.json").write_text("{")
    said = run(status)
    assert (said.exit_code, said.stdout, said.stderr.count("lab: ")) == (1, "", 3)


def test_all_healthy_is_said_by_the_code(pretend: Pretend) -> None:
    pretend(None)
    assert run(status).exit_code == 0


@pytest.mark.parametrize("problem", [HostLacks("Vagrant is not installed", "Install it"), PermissionError(13, "Permission denied", "/x")])
def test_down_all_goes_on_and_tells_at_the_end_what_is_left(pretend: Pretend, problem: Exception) -> None:
    works = pretend(problem)
    said = run(down, "--all")
    assert works.removed == ["a", "c"]
    assert said.exit_code == 2
    assert said.stderr == f"lab: cluster b is not removed: {problem}\n"


def test_down_all_of_clusters_that_all_go_is_no_error(pretend: Pretend) -> None:
    works = pretend(None)
    assert run(down, "--all").exit_code == 0
    assert works.removed == ["a", "c"]


def test_down_of_one_raises_what_is_wrong(pretend: Pretend) -> None:
    pretend(HostLacks("Vagrant is not installed", "Install it"))
    with pytest.raises(HostLacks, match="Vagrant is not installed"):
        run(down, "--name", "b")
