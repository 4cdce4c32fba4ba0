"""`lab trace`, `topology`, `service` and `snapshot`, on a recorded snapshot."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from xml.etree import ElementTree

import pytest

from lab_utils.run import Result, run

WIRED = Path(__file__).parent.parent / "data" / "snapshots" / "wired"
DUMP = WIRED / "nodes" / "w1" / "iptables-save.txt"


def lab(*words: str, input: bytes | None = None) -> Result:
    return run([sys.executable, "-m", "lab_utils", *words], input=input, check=False)


def test_trace_as_json_has_the_documented_shape() -> None:
    done = lab("trace", "--dump", str(DUMP), "--from", "10.244.2.2", "--to", "10.96.45.17:80", "--origin", "pod", "--json")
    assert done.code == 0, done.stderr
    found = json.loads(done.stdout)
    assert {"packet", "verdict", "masquerade", "destinations", "steps", "undecided", "notes"} <= set(found)
    assert (found["verdict"], found["masquerade"]) == ("ACCEPT", False)
    assert [(end["address"], end["probability"]) for end in found["destinations"]] == [
        ("10.244.1.2:8080", "1/3"),
        ("10.244.1.3:8080", "1/3"),
        ("10.244.2.3:8080", "1/3"),
    ]
    assert {"hook", "table", "chain", "rule", "why", "matched", "probability"} <= set(found["steps"][0])


def test_trace_reads_a_dump_from_standard_input() -> None:
    done = lab("trace", "--dump", "-", "--from", "10.244.2.2", "--to", "10.96.45.18:80", input=DUMP.read_bytes())
    assert done.code == 0 and "REJECT" in done.stdout.splitlines()[0]


def test_trace_of_a_snapshot_takes_the_rules_of_the_node_where_the_packet_starts() -> None:
    done = lab("trace", "--snapshot", str(WIRED), "--from", "172.31.77.12", "--to", "10.96.45.17:80", "--json")
    found = json.loads(done.stdout)
    assert found["masquerade"] is True
    assert found["steps"][0]["hook"] == "OUTPUT"  # w1 sends it itself


@pytest.mark.parametrize(
    "words",
    [
        ["trace", "--dump", str(DUMP), "--from", "10.244.2.2", "--to", "10.96.45.17:80"],
        ["topology", "--snapshot", str(WIRED)],
        ["topology", "--snapshot", str(WIRED), "--node", "w1"],
        ["topology", "--snapshot", str(WIRED), "--from", "default/client", "--to", "service/default/web"],
        ["service", "web", "--snapshot", str(WIRED)],
    ],
)
def test_each_writes_a_drawing(words: list[str], tmp_path: Path) -> None:
    file = tmp_path / "out.svg"
    done = lab(*words, "--svg", str(file))
    assert done.code == 0, done.stderr
    assert ElementTree.parse(file).getroot().get("role") == "img"
    assert lab(*words, "--svg", "-").stdout.startswith("<svg ")


def test_topology_lists_every_pod_with_its_cable() -> None:
    done = lab("topology", "--snapshot", str(WIRED))
    assert done.code == 0
    assert "default/web-7d9c5b6f4-abcde" in done.stdout and "eth0 ↔ veth" in done.stdout


def test_topology_tells_a_way_hop_by_hop() -> None:
    done = lab("topology", "--snapshot", str(WIRED), "--from", "default/client", "--to", "default/web-7d9c5b6f4-abcde")
    assert done.code == 0 and "FDB 02:00:00:00:00:11 dev flannel.1 dst 172.31.77.12" in done.stdout


def test_service_shows_every_endpoint() -> None:
    done = lab("service", "web", "--snapshot", str(WIRED))
    assert done.code == 0
    assert done.stdout.count("KUBE-SEP-") == 3 and "1/2" in done.stdout
    assert lab("service", "kube-dns", "-n", "kube-system", "--snapshot", str(WIRED)).stdout.count("KUBE-SEP-") == 1


SNAP = ["--snapshot", str(WIRED)]
ONE = ["--from", "10.244.2.2", "--to", "10.96.45.17:80"]


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["trace", "--dump", "/nowhere/dump", *ONE], "cannot be read"),
        (["trace", "--dump", "/etc", *ONE], "cannot be read"),
        (["trace", "--dump", "/etc/passwd", *ONE], "line 1"),
        (["trace", "--dump", sys.executable, *ONE], "line 1"),
        (["trace", "--dump", "/dev/null", *ONE], "holds no rules"),
        (["trace", "--dump", str(DUMP), "--node", "w1", *ONE], "Give one of them"),
        (["trace", *SNAP, "--from", "here", "--to", "10.96.45.17:80"], "not an IP address"),
        (["trace", *SNAP, "--from", "10.244.2.2", "--to", "10.96.45.999:80"], "not an IP address"),
        (["trace", *SNAP, "--from", "10.244.2.2", "--to", "10.96.45.17:http"], "not a port"),
        (["trace", *SNAP, "--from", "10.244.2.2", "--to", "10.96.45.17:70000"], "not a port"),
        (["trace", *SNAP, "--from", "10.244.2.2", "--to", "[fd00::1]:80"], "IPv6"),
        (["trace", *SNAP, "--protocol", "carrier-pigeon", *ONE], "not a protocol"),
        (["trace", *SNAP, "--node", "w9", *ONE], "no node 'w9'"),
        (["topology", "--snapshot", "/etc"], "not a snapshot folder"),
        (["topology", *SNAP, "--node", "w9"], "no node 'w9'"),
        (["topology", *SNAP, "--from", "default/client"], "belong together"),
        (["topology", *SNAP, "--from", "default/client", "--to", "nobody"], "no Pod 'nobody'"),
        (["topology", *SNAP, "--svg", "/nowhere/out.svg"], "cannot be written"),
        (["service", "nothing", *SNAP], "no Service 'default/nothing'"),
        (["service", "web", "--node", "w9", *SNAP], "no node 'w9'"),
        (["snapshot", "--out", "/etc"], "not an empty folder"),
    ],
)
def test_bad_input_is_one_clear_line_and_code_2(words: list[str], says: str) -> None:
    done = lab(*words)
    assert done.code == 2
    assert done.stderr.count("\n") == 1 and done.stderr.startswith("lab: ") and says in done.stderr
    assert done.stdout == ""
