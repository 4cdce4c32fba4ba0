"""Which processes share which namespaces: read from /proc, and drawn."""

from __future__ import annotations

import os
import xml.etree.ElementTree as ElementTree
from pathlib import Path

from lab_utils.namespaces import KINDS, Inhabitant, draw_sharing, read_links, runs, table

NODE = {kind: 100 + i for i, kind in enumerate(KINDS)}
PAUSE = {**{kind: 200 + i for i, kind in enumerate(KINDS)}, "user": NODE["user"]}
WEB = {**PAUSE, "pid": 301, "mnt": 302, "cgroup": 303}
WHO = [Inhabitant("the node", 1, NODE), Inhabitant("pause", 20, PAUSE), Inhabitant("web", 30, WEB)]
SVG = "{http://www.w3.org/2000/svg}"


def test_the_links_of_a_real_process_are_read() -> None:
    links = "\n".join(f"/proc/{os.getpid()}/ns/{kind} {Path(f'/proc/self/ns/{kind}').readlink()}" for kind in KINDS)
    assert set(read_links(links)[os.getpid()]) == set(KINDS)


def test_a_link_that_could_not_be_read_is_left_out() -> None:
    assert read_links("/proc/7/ns/net\n/proc/8/ns/net net:[42]\n") == {8: {"net": 42}}


def test_equal_neighbours_are_one_run() -> None:
    assert runs("aab") == [(0, 1), (2, 2)]
    assert runs("a") == [(0, 0)]
    assert runs("") == []


def test_a_shared_namespace_is_one_wide_bar_and_a_private_one_is_narrow() -> None:
    root = ElementTree.fromstring(draw_sharing(WHO).svg)
    bars = {kind: [float(r.attrib["width"]) for r in root.iter(f"{SVG}rect") if r.attrib.get("class") == kind] for kind in ("pod", "own")}
    assert len([width for width in bars["pod"] if width > 200]) == 3  # net, uts, ipc
    assert len([width for width in bars["own"] if width > 100]) == 6  # pid, mnt, cgroup of each


def test_the_drawing_has_a_text_alternative_with_every_namespace() -> None:
    label = ElementTree.fromstring(draw_sharing(WHO, "Pod <web>").svg).attrib["aria-label"]
    assert "net 200: pause, web" in label
    assert "user 106: the node, pause, web" in label


def test_the_table_has_a_line_for_each_kind() -> None:
    assert [line.split()[0] for line in table(WHO).splitlines()[1:]] == list(KINDS)
