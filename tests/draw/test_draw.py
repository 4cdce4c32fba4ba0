"""Drawings are checked as documents here: well-formed, safe, the same every time, with their facts in the table.

Whether they are good to look at was looked at, as pictures, in light, dark and print.
"""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lab_utils import draw
from lab_utils.draw.text import clean, escape, middle, wrap
from lab_utils.errors import BadInput
from lab_utils.snapshot import Snapshot, read_snapshot
from lab_utils.topology import Topology
from lab_utils.trace import Packet, trace

WIRED = Path(__file__).parent.parent / "data" / "snapshots" / "wired"
SVG = "{http://www.w3.org/2000/svg}"
HOSTILE = '<script>alert(1)</script>"]]>\x00\x1b[31m\u202e&amp;'


@pytest.fixture(scope="module")
def recorded() -> Snapshot:
    return read_snapshot(WIRED)


@pytest.fixture(scope="module")
def topology(recorded: Snapshot) -> Topology:
    return Topology.from_snapshot(recorded)


def all_drawings(topology: Topology) -> dict[str, draw.Drawing]:
    rules = topology.node("w1").ruleset
    packet = Packet("10.244.2.2", "10.96.45.17", 80)
    return {
        "cluster": draw.cluster(topology),
        "node": draw.node(topology, "w1"),
        "path": draw.path(topology.path("default/client", "default/web-7d9c5b6f4-abcde"), topology),
        "ways": draw.path(topology.path("default/client", "service/default/web"), topology),
        "lost": draw.path(topology.path("default/client", "service/default/empty"), topology),
        "outside": draw.path(topology.path("default/client", "192.0.2.1"), topology),
        "service": draw.service(rules, "default/web", topology),
        "no endpoints": draw.service(rules, "default/empty", topology),
        "trace": draw.trace(trace(rules, packet, origin="pod", explain=True)),
    }


@pytest.fixture(scope="module")
def drawings(topology: Topology) -> dict[str, draw.Drawing]:
    return all_drawings(topology)


def words(drawing: draw.Drawing) -> str:
    """What is written in the picture, without what rests behind the mouse."""
    return "\n".join("".join(text.itertext()) for text in ElementTree.fromstring(drawing.svg).iter(f"{SVG}text"))


def test_every_drawing_is_well_formed_and_has_a_name_and_a_description(drawings: dict[str, draw.Drawing]) -> None:
    for drawing in drawings.values():
        root = ElementTree.fromstring(drawing.svg)
        assert root.get("role") == "img"
        names = (root.get("aria-labelledby") or "").split()
        assert [root[0].get("id"), root[1].get("id")] == names
        assert (root[0].tag, root[1].tag) == (f"{SVG}title", f"{SVG}desc")
        assert root[0].text and root[1].text


def test_the_same_facts_give_the_same_bytes(recorded: Snapshot, drawings: dict[str, draw.Drawing]) -> None:
    again = all_drawings(Topology.from_snapshot(recorded))
    assert {name: drawing.svg for name, drawing in again.items()} == {name: drawing.svg for name, drawing in drawings.items()}


def test_two_drawings_on_one_page_share_no_id(drawings: dict[str, draw.Drawing]) -> None:
    ids = [found for drawing in drawings.values() for found in re.findall(r'\bid="([^"]+)"', drawing.svg)]
    assert len(ids) == len(set(ids))


def test_every_style_rule_is_bound_to_its_own_drawing(drawings: dict[str, draw.Drawing]) -> None:
    """A style element in an inline SVG holds for the whole page: a rule without our id would change the page."""
    for drawing in drawings.values():
        root = ElementTree.fromstring(drawing.svg)
        (style,) = root.iter(f"{SVG}style")
        selectors = re.findall(r"(?:^|[{}])\s*([^{}@]+)\{", style.text or "")
        assert len(selectors) > 20
        for selector in selectors:
            assert all(f"#{root.get('id')}" in part for part in selector.split(",")), selector


def test_every_colour_class_that_is_used_is_defined_in_light_and_dark(drawings: dict[str, draw.Drawing]) -> None:
    from lab_utils.draw.canvas import DARK, LIGHT

    assert LIGHT.keys() == DARK.keys()
    known = set(LIGHT) | {f"s-{name}" for name in LIGHT} | {"mono", "strong", "halo", "none", "dim"}
    for drawing in drawings.values():
        used = {name for element in ElementTree.fromstring(drawing.svg).iter() for name in (element.get("class") or "").split()}
        assert used <= known


def luminance(colour: str) -> float:
    parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(one: str, other: str) -> float:
    light, dark = sorted((luminance(one), luminance(other)), reverse=True)
    return (light + 0.05) / (dark + 0.05)


@pytest.mark.parametrize("name", ["LIGHT", "DARK"])
def test_text_has_enough_contrast_on_everything_it_is_written_on(name: str) -> None:
    """WCAG 2.1 asks for 4.5 to 1 for small text."""
    from lab_utils.draw import canvas

    colours: dict[str, str] = getattr(canvas, name)
    for ground in ("ground", "node", "pod", "bridge", "stack", "tunnel", "link"):
        for ink in ("ink", "soft"):
            assert contrast(colours[ink], colours[ground]) >= 4.5, (ink, ground)
    for badge in ("lit1", "lit2", "lit3", "lit4", "bad"):
        assert contrast(colours["onlit"], colours[badge]) >= 4.5, badge
        assert contrast(colours[badge], colours["ground"]) >= 4.5, badge


def test_the_cluster_shows_every_pod_and_every_device_that_matters(topology: Topology, drawings: dict[str, draw.Drawing]) -> None:
    shown = words(drawings["cluster"])
    for pod in topology.pods.values():
        assert middle(pod.name, 20) in shown and pod.ip in shown
        assert pod.key in str(drawings["cluster"].table)
    for name in topology.nodes:
        assert {cable.host.name for cable in topology.cables(name)} <= set(shown.split("\n"))
    assert shown.count("flannel.1") == shown.count("eth0") == 3


def test_a_way_numbers_its_hops_and_tells_them_in_words(topology: Topology, drawings: dict[str, draw.Drawing]) -> None:
    path = topology.path("default/client", "default/web-7d9c5b6f4-abcde")
    shown = words(drawings["path"]).split("\n")
    for number in range(1, len(path.hops) + 1):
        assert shown.count(str(number)) == 2  # at its place, and beside its words
    assert len(drawings["path"].table.rows) == len(path.hops)


def test_colour_is_never_alone(drawings: dict[str, draw.Drawing]) -> None:
    """Ways differ by letter and dash pattern too, and a lost packet carries a cross."""
    root = ElementTree.fromstring(drawings["ways"].svg)
    lit = [line for line in root.iter(f"{SVG}polyline") if re.search(r"s-lit[123]", line.get("class") or "")]
    dashes = {(line.get("class"), line.get("stroke-dasharray")) for line in lit}
    assert len({dash for _, dash in dashes}) == 3
    assert {"A4", "B4", "C4"} <= set(words(drawings["ways"]).split("\n"))
    assert "4✕" in words(drawings["lost"])


def test_the_service_tree_has_each_endpoint_with_both_probabilities(drawings: dict[str, draw.Drawing]) -> None:
    rows = drawings["service"].table.rows
    assert [(row[2], row[5], row[6]) for row in rows] == [
        ("10.244.1.2:8080", "1/3", "1/3"),
        ("10.244.1.3:8080", "1/2", "1/3"),
        ("10.244.2.3:8080", "1", "1/3"),
    ]
    shown = words(drawings["service"])
    assert shown.count("1/3\n") == 3 and "1/2 of the rest" in shown and "all the rest" in shown


def test_a_service_without_endpoints_is_shown_as_rejected(drawings: dict[str, draw.Drawing]) -> None:
    assert "rejected" in words(drawings["no endpoints"])


def test_a_service_that_no_rule_names_is_refused(topology: Topology) -> None:
    with pytest.raises(BadInput, match="no rule speaks of"):
        draw.service(topology.node("w1").ruleset, "default/headless", topology)


def test_a_notebook_gets_the_picture_the_table_and_plain_text(drawings: dict[str, draw.Drawing]) -> None:
    bundle = drawings["cluster"]._repr_mimebundle_()
    assert set(bundle) == {"text/html", "image/svg+xml", "text/plain"}
    assert "<details" in bundle["text/html"] and "<table>" in bundle["text/html"] and "<svg" in bundle["text/html"]
    assert "10.244.1.2" in bundle["text/plain"]


def test_a_saved_drawing_stands_alone(drawings: dict[str, draw.Drawing], tmp_path: Path) -> None:
    file = drawings["cluster"].save(tmp_path / "cluster.svg")
    assert ElementTree.parse(file).getroot().tag == f"{SVG}svg"
    assert "url(http" not in file.read_text() and "<script" not in file.read_text()


def with_name(recorded: Snapshot, name: str) -> Topology:
    """The recorded cluster, with a Pod, its owner, a device and a rule's comment of that name."""

    def pod(item: Any) -> Any:
        if item["metadata"]["name"] != "client":
            return item
        return {**item, "metadata": {**item["metadata"], "name": name, "ownerReferences": [{"kind": name, "name": name}]}}

    def node(one: Any) -> Any:
        boxes = tuple(replace(box, name=name) if box.name == "client" else box for box in one.sandboxes)
        links = [{**line, "ifname": name if line["ifname"] == "flannel.1" else line["ifname"]} for line in one.outputs["link"]]
        return replace(one, sandboxes=boxes, outputs={**one.outputs, "link": links, "addr": []})

    return Topology.from_snapshot(
        replace(recorded, pods=tuple(map(pod, recorded.pods)), nodes=tuple(map(node, recorded.nodes)), cluster=name)
    )


def assert_harmless(drawing: draw.Drawing) -> None:
    root = ElementTree.fromstring(drawing.svg)
    tags = {element.tag.removeprefix(SVG) for element in root.iter()}
    assert tags <= {"svg", "title", "desc", "style", "defs", "marker", "path", "rect", "g", "polyline", "circle", "text"}
    assert not any(name.startswith("on") or "href" in name for element in root.iter() for name in element.attrib)
    assert "<script" not in drawing.html and "\x00" not in drawing.html and "\u202e" not in drawing.html


def test_hostile_names_stay_text(recorded: Snapshot) -> None:
    topology = with_name(recorded, HOSTILE)
    for drawing in (draw.cluster(topology), draw.node(topology, "w2"), draw.path(topology.path("10.244.2.2", "10.244.1.2"), topology)):
        assert_harmless(drawing)
        assert "&lt;script&gt;" in drawing.html


@settings(max_examples=25, deadline=None)
@given(name=st.text(min_size=1, max_size=60).filter(lambda name: "/" not in name))
def test_no_name_breaks_a_drawing(recorded: Snapshot, name: str) -> None:
    topology = with_name(recorded, name)
    assert_harmless(draw.cluster(topology))
    assert_harmless(draw.path(topology.path("10.244.2.2", "10.244.1.2"), topology))


@given(st.text(max_size=80), st.integers(3, 30))
def test_shortened_names_fit_and_keep_both_ends(text: str, length: int) -> None:
    short = middle(text, length)
    assert len(short) <= length
    if len(clean(text)) > length:
        assert "…" in short and clean(text).endswith(short.rpartition("…")[2])


@given(st.text(max_size=200), st.integers(5, 60))
def test_wrapped_text_fits_and_loses_nothing_but_space(text: str, length: int) -> None:
    lines = wrap(text, length)
    assert all(len(line) <= length for line in lines)
    assert "".join("".join(lines).split()) == "".join(clean(text).split())


@given(st.text(max_size=60))
def test_escaped_text_comes_back_cleaned(text: str) -> None:
    found = ElementTree.fromstring(f'<a b="{escape(text)}">{escape(text)}</a>')
    assert (found.text or "") == clean(text) == found.get("b")


def test_thirty_pods_on_three_nodes_fit_on_a_page(recorded: Snapshot) -> None:
    """Wider than this and the letters get too small beside a book's text."""
    topology = crowded(recorded, each=10)
    drawing = draw.cluster(topology)
    root = ElementTree.fromstring(drawing.svg)
    assert len(topology.pods) == 30
    assert float(root.get("width") or 0) <= 1020 and float(root.get("height") or 0) <= 800
    assert all(pod.ip in words(drawing) for pod in topology.pods.values())


def crowded(recorded: Snapshot, each: int) -> Topology:
    """The recorded nodes with `each` Pods, wired as the bridge plugin would."""
    from lab_utils.snapshot import Sandbox

    nodes = []
    for number, one in enumerate(recorded.nodes):
        links = [line for line in one.outputs["link"] if not line["ifname"].startswith("veth")]
        pattern: dict[str, Any] = next(line for line in one.outputs["link"] if line["ifname"].startswith("veth"))
        inside: dict[str, Any] = next(line for line in one.sandboxes[0].outputs["link"] if line["ifname"] == "eth0")  # type: ignore[index]
        addresses = [line for line in one.outputs["addr"] if not line["ifname"].startswith("veth")]
        boxes = []
        for pod in range(each):
            inode = 1000 * (number + 1) + pod
            links.append({**pattern, "ifindex": 20 + pod, "ifname": f"veth{number}{pod:07}", "link_netnsid": pod + 1})
            addr = [{"ifindex": 2, "ifname": "eth0", "addr_info": [{"local": f"10.244.{number}.{pod + 2}", "prefixlen": 24}]}]
            outputs = {"link": [{**inside, "link_index": 20 + pod}], "addr": addr}
            boxes.append(Sandbox(f"{inode}", "default", f"web-{number}-{pod}", 1, inode, outputs))
        nsids = [{"nsid": pod + 1, "name": f"cni-{number}-{pod}"} for pod in range(each)]
        names = {f"cni-{number}-{pod}": 1000 * (number + 1) + pod for pod in range(each)}
        nodes.append(
            replace(one, sandboxes=tuple(boxes), names=names, outputs={**one.outputs, "link": links, "addr": addresses, "nsids": nsids})
        )
    return Topology.from_snapshot(replace(recorded, nodes=tuple(nodes), pods=()))
