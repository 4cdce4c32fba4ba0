"""What the driver's log says, and the drawing made of it."""

from __future__ import annotations

import json
from xml.etree import ElementTree

from lab_utils import draw
from lab_utils.csi import recording


def line(second: float, door: str, method: str, code: str = "OK", why: str = "") -> str:
    at = f"2026-11-21T15:00:{second:06.3f}+00:00"
    return json.dumps({"at": at, "door": door, "method": method, "concerns": ["pvc-1"], "seconds": 0.012, "code": code, "why": why})


LOG = "\n".join(
    [
        "disks.example on w1 answers at 2 sockets",
        line(3, "kubelet", "Node/NodeStageVolume"),
        line(1, "provisioner", "Controller/CreateVolume"),
        line(2, "attacher", "Identity/Probe"),
        '{"at": "yesterday"}',
        "[1, 2]",
        line(4, "kubelet", "Node/NodePublishVolume", "INTERNAL", "a <b> & c"),
    ]
)


def test_calls_are_read_in_the_order_in_which_they_began() -> None:
    found = recording.calls(LOG, "w1")
    assert [call.method for call in found] == ["CreateVolume", "Probe", "NodeStageVolume", "NodePublishVolume"]
    assert recording.callers(found) == ["provisioner", "attacher", "kubelet"]
    assert found[0].service == "Controller" and found[0].node == "w1" and not found[3].ok


def test_small_talk_and_what_was_before_are_left_out_of_a_story() -> None:
    found = recording.calls(LOG)
    assert [call.method for call in recording.story(found, since=found[1].at)] == ["NodeStageVolume", "NodePublishVolume"]
    assert recording.about(found, "pvc-2") == []


def test_the_drawing_says_of_each_call_who_called_and_what_the_answer_was() -> None:
    drawing = draw.calls(recording.story(recording.calls(LOG, "w1")), "A Pod starts")
    ElementTree.fromstring(drawing.svg)
    assert drawing.table.rows[0][2:5] == ("provisioner", "driver on w1", "Controller/CreateVolume")
    assert drawing.table.rows[2][7] == "INTERNAL: a <b> & c"
    assert "kubelet calls NodePublishVolume: INTERNAL" in drawing.svg and "a &lt;b&gt;" in drawing.svg


def test_a_recording_without_calls_is_drawn_too() -> None:
    assert "Nobody called." in draw.calls([]).svg
