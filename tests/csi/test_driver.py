"""What the driver promises: each call may come twice, at the wrong time, or be cut off, and nothing that was acknowledged is lost."""

from __future__ import annotations

import json
import re

import pytest

from lab_utils.csi import recording
from tests.csi.conftest import MODE, SOCKET, Box, Refused

pytestmark = pytest.mark.kernel


def test_csi_sanity_passes(box: Box) -> None:
    """The judge of Kubernetes' own storage group: every test of what the driver says it can do."""
    sizes = f"--csi.testvolumesize={32 << 20} --csi.testvolumeexpandsize={64 << 20}"
    said = box.sh(f"csi-sanity --ginkgo.no-color --csi.endpoint={SOCKET} {sizes} --csi.mountdir=/run/m --csi.stagingdir=/run/st")
    passed, failed, pending, skipped = map(int, re.findall(r"(\d+) (?:Passed|Failed|Pending|Skipped)", said))
    print(f"{passed} passed, {failed} failed, {skipped} skipped, {pending} pending")
    assert failed == 0 and passed >= 70, said


def test_a_volume_is_made_once_however_often_it_is_asked_for(box: Box) -> None:
    first = box.create("cellar", 40)
    assert first["capacity_bytes"] == str(40 << 20)
    assert box.create("cellar", 40) == first
    assert box.create("cellar", 33) == first  # less was asked for: what is there will do
    with pytest.raises(Refused, match="ALREADY_EXISTS"):
        box.create("cellar", 80)


def test_a_size_beyond_the_limit_or_the_node_is_refused(box: Box) -> None:
    with pytest.raises(Refused, match="OUT_OF_RANGE"):
        box.call("Controller/CreateVolume", name="v", volume_capabilities=[MODE], capacity_range={"limit_bytes": 1 << 20})
    with pytest.raises(Refused, match="RESOURCE_EXHAUSTED"):
        box.create("huge", 1 << 30)
    assert "volumes" in box.sh("ls /disks") and not box.sh("ls -A /disks/volumes")


@pytest.mark.parametrize("name", ["../../etc", "/etc", ".", "..", ".hidden", "a/b"])
def test_an_id_is_no_path(box: Box, name: str) -> None:
    with pytest.raises(Refused, match="NOT_FOUND"):
        box.stage(name)
    box.call("Controller/DeleteVolume", volume_id=name)
    assert "passwd" in box.sh("ls /etc")


def test_a_name_that_cannot_be_a_folder_gets_another_id(box: Box) -> None:
    box.create("cellar")
    made = box.create("../a name of the Kübel")
    assert len(made["volume_id"]) == 64 and "/" not in made["volume_id"]
    assert sorted(box.sh("ls /disks/volumes").split()) == sorted(["cellar", made["volume_id"]])


def test_what_is_staged_and_published_twice_is_mounted_once(box: Box) -> None:
    box.create("cellar")
    for _ in range(2):
        staged, path = box.stage("cellar"), box.publish("cellar")
    assert (box.mounts(staged), box.mounts(path)) == (1, 1)
    for _ in range(2):
        box.call("Node/NodeUnpublishVolume", volume_id="cellar", target_path=path)
        box.call("Node/NodeUnstageVolume", volume_id="cellar", staging_target_path=staged)
    assert (box.mounts(staged), box.mounts(path)) == (0, 0)
    assert "No such file" in box.sh(f"ls {path}")


def test_two_pods_on_a_node_share_a_volume_and_one_may_only_read(box: Box) -> None:
    box.create("cellar")
    staged, path = box.stage("cellar"), box.publish("cellar")
    more = {"staging_target_path": staged, "volume_capability": MODE, "readonly": True}
    box.call("Node/NodePublishVolume", volume_id="cellar", target_path="/run/pods/reader/cellar", **more)
    box.sh(f"echo wine > {path}/list")
    assert box.sh("cat /run/pods/reader/cellar/list") == "wine\n"
    assert "Read-only" in box.sh("touch /run/pods/reader/cellar/x")


def test_publishing_what_is_not_staged_is_refused(box: Box) -> None:
    box.create("cellar")
    with pytest.raises(Refused, match="FAILED_PRECONDITION"):
        box.publish("cellar")


def test_a_full_volume_is_full_at_its_own_size(box: Box) -> None:
    box.create("cellar"), box.create("other")
    path = (box.stage("cellar"), box.publish("cellar"))[1]
    other = (box.stage("other"), box.publish("other"))[1]
    assert "No space left on device" in box.sh(f"head -c 40M /dev/zero > {path}/large")
    assert box.sh(f"head -c 10M /dev/zero > {other}/file; stat -c %s {other}/file") == f"{10 << 20}\n"


def test_a_volume_grows_while_it_is_written_to(box: Box) -> None:
    box.create("cellar")
    box.stage("cellar")
    path = box.publish("cellar")
    box.sh(f"head -c 20M /dev/urandom > {path}/old; md5sum {path}/old > {path}/sum")
    grown = box.call("Node/NodeExpandVolume", volume_id="cellar", volume_path=path, capacity_range={"required_bytes": 96 << 20})
    assert grown["capacity_bytes"] == str(96 << 20)
    assert "No space" not in box.sh(f"head -c 60M /dev/zero > {path}/large")
    assert "OK" in box.sh(f"cd {path} && md5sum -c sum")
    again = box.call("Node/NodeExpandVolume", volume_id="cellar", volume_path=path, capacity_range={"required_bytes": 64 << 20})
    assert again["capacity_bytes"] == str(96 << 20)  # never smaller


def test_a_snapshot_of_a_volume_in_use_has_what_was_in_it(box: Box) -> None:
    box.create("cellar")
    box.stage("cellar")
    path = box.publish("cellar")
    box.sh(f"echo old > {path}/word")
    box.call("Controller/CreateSnapshot", name="then", source_volume_id="cellar")
    box.sh(f"echo new > {path}/word")
    box.create("restored", 64, volume_content_source={"snapshot": {"snapshot_id": "then"}})
    box.stage("restored")
    restored = box.publish("restored")
    assert (box.sh(f"cat {path}/word"), box.sh(f"cat {restored}/word")) == ("new\n", "old\n")
    assert int(box.sh(f"df -m --output=size {restored}").split()[-1]) > 50  # the copy is as large as was asked for


def test_what_is_mounted_is_not_deleted(box: Box) -> None:
    box.create("cellar")
    box.stage("cellar")
    path = box.publish("cellar")
    box.sh(f"echo wine > {path}/list")
    for method in ("DeleteVolume", "ControllerUnpublishVolume"):
        with pytest.raises(Refused, match="FAILED_PRECONDITION: cellar is mounted"):
            box.call(f"Controller/{method}", volume_id="cellar")
    assert box.sh(f"cat {path}/list") == "wine\n"


def test_killed_between_stage_and_publish_it_goes_on_where_it_was(box: Box) -> None:
    box.create("cellar")
    staged = box.stage("cellar")
    box.sh("echo NodePublishVolume > /run/die-at")
    with pytest.raises(Refused, match="UNAVAILABLE"):
        box.publish("cellar")
    assert box.driver and box.driver.wait() == 137
    box.start()
    assert box.stage("cellar") == staged
    path = box.publish("cellar")
    assert (box.mounts(staged), box.mounts(path)) == (1, 1)


def test_pods_go_on_writing_while_the_driver_is_dead(box: Box) -> None:
    box.create("cellar")
    box.stage("cellar")
    path = box.publish("cellar")
    box.kill()
    assert box.sh(f"echo alone > {path}/note && sync {path}/note && cat {path}/note") == "alone\n"
    box.start()
    box.call("Node/NodeUnpublishVolume", volume_id="cellar", target_path=path)
    box.call("Node/NodeUnstageVolume", volume_id="cellar", staging_target_path="/run/staged/cellar")
    assert box.sh(f"cat {(box.stage('cellar'), box.publish('cellar'))[1]}/note") == "alone\n"


def test_a_disk_that_was_half_made_when_the_driver_was_killed_is_swept_away(box: Box) -> None:
    box.kill()
    box.sh("mkdir /disks/volumes/.cellar && truncate -s 32M /disks/volumes/.cellar/disk")
    box.start()
    assert not box.call("Controller/ListVolumes")
    box.create("cellar")


def test_a_file_system_that_stood_still_when_the_driver_was_killed_is_thawed(box: Box) -> None:
    box.create("cellar")
    path = box.stage("cellar")
    box.kill()
    box.sh(f"fsfreeze --freeze {path}")
    box.start()
    assert box.sh(f"timeout 5 touch {path}/file && echo written") == "written\n"


def test_of_two_calls_for_one_volume_the_second_is_told_to_come_again(box: Box) -> None:
    """Twenty callers want the same snapshot at once: some are served, the others are told ABORTED, and there is one snapshot."""
    box.create("cellar", 64)
    script = f"""
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from csi.protocol import Refused, call
def ask(number):
    try:
        call(Path("{SOCKET}"), "Controller/CreateSnapshot", {{"name": "then", "source_volume_id": "cellar"}})
        return "OK"
    except Refused as refused:
        return refused.code
with ThreadPoolExecutor(20) as pool:
    print(*pool.map(ask, range(20)))
"""
    answers = box.sh(f"python3 -c '{script}'").split()
    assert set(answers) == {"OK", "ABORTED"}, answers
    assert len(box.call("Controller/ListSnapshots")["entries"]) == 1


def test_different_volumes_do_not_wait_for_each_other(box: Box) -> None:
    ask = "python3 -m csi.protocol " + SOCKET + " Controller/CreateVolume '%s' &"
    mode = {"volume_capabilities": [MODE]}
    box.sh(" ".join(ask % json.dumps({"name": name, **mode}) for name in "abcd") + " wait")
    assert [each["volume"]["volume_id"] for each in box.call("Controller/ListVolumes")["entries"]] == ["a", "b", "c", "d"]


def test_every_call_is_in_the_log_with_its_answer(box: Box) -> None:
    box.create("cellar")
    with pytest.raises(Refused):
        box.publish("cellar")
    told = recording.about(recording.calls(box.log(), "w1"), "cellar")
    assert [(call.caller, call.method, call.code) for call in told] == [
        ("csi", "CreateVolume", "OK"),
        ("csi", "NodePublishVolume", "FAILED_PRECONDITION"),
    ]


def test_the_registrar_says_what_the_driver_is_called_and_where_it_answers(box: Box) -> None:
    ask = "python3 -m csi.protocol /run/registry/disks.test.example-reg.sock Registration/GetInfo"
    told = json.loads(box.sh(f"python3 -m csi.registrar > /dev/null & {ask}; kill $!"))
    assert told == {"type": "CSIPlugin", "name": "disks.test.example", "endpoint": SOCKET, "supported_versions": ["1.0.0"]}
