"""What `lab ssh` becomes. ssh itself says how it understood the line (`ssh -G`)."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from lab_utils.cli.access import ssh_command
from lab_utils.cluster import ClusterRecord, NodeRecord
from lab_utils.run import run


@pytest.mark.skipif(not shutil.which("ssh"), reason="there is no ssh here")
@pytest.mark.parametrize("folder", ["plain", "Application Support", "50%h of it", 'a "quoted" one', r"back\slash", "it's"])
def test_ssh_finds_the_key_in_a_folder_of_any_name(folder: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    state = tmp_path / folder
    monkeypatch.setenv("LAB_STATE", str(state))
    place = state / "clusters/lab"
    node = NodeRecord("cp", "172.31.64.11", "control-plane", {"key": str(place / "id_ed25519"), "host_key": "ssh-ed25519 AAAA"})
    record = ClusterRecord("lab", "embedded", "up", str(place / "kubeconfig"), [node])
    program, *words = ssh_command(record, node, ["true"])
    said = run([program, "-G", *words]).stdout.splitlines()
    told = dict(line.split(" ", 1) for line in said if " " in line)
    # It prints some as written, with the % doubled that begins no token.
    assert told["identityfile"].replace("%%", "%") == str(place / "id_ed25519")
    assert told["userknownhostsfile"].replace("%%", "%") == str(place / "known_hosts")
    assert (told["hostname"], told["stricthostkeychecking"]) == ("172.31.64.11", "true")
