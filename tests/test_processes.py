"""Processes of a node, told apart: units, shims, pause, containers. From what `ps` and `crictl` print."""

from __future__ import annotations

import json
from xml.etree import ElementTree

from lab_utils import draw
from lab_utils.processes import Process, classify, read_ps, read_sandboxes

PS = """\
      1       0 /sbin/init --log-target=console
     40       1 /usr/lib/systemd/systemd-journald
    100       1 /usr/local/bin/containerd
    200       1 /usr/bin/kubelet --config=/var/lib/kubelet/config.yaml
    300       1 /usr/local/bin/containerd-shim-runc-v2 -namespace k8s.io -id aaa111 -address /run/containerd/containerd.sock
    301     300 /pause
    302     300 etcd --name=cp --data-dir=/var/lib/etcd
    400       1 /usr/local/bin/containerd-shim-runc-v2 -namespace k8s.io -id bbb222 -address /run/containerd/containerd.sock
    401     400 /pause
    402     400 sh -c while true; do sleep 1; done
    403     402 sleep 1
    404     402 /pause
    500     100 runc --version
    600     601 a
    601     600 b
"""
PODS = json.dumps(
    {
        "items": [
            {
                "id": "aaa111",
                "metadata": {"namespace": "kube-system", "name": "etcd-cp"},
                "annotations": {"kubernetes.io/config.source": "file"},
            },
            {"id": "bbb222", "metadata": {"namespace": "shop", "name": "web"}, "annotations": {"kubernetes.io/config.source": "api"}},
        ]
    }
)


def found() -> dict[int, Process]:
    return {each.pid: each for each in classify(read_ps(PS), read_sandboxes(PODS))}


def test_kubelet_and_containerd_are_units_and_in_no_container() -> None:
    assert [(found()[pid].kind, found()[pid].program, found()[pid].contained) for pid in (100, 200)] == [
        ("unit", "containerd", False),
        ("unit", "kubelet", False),
    ]


def test_a_shim_belongs_to_its_pod_and_is_in_no_container_itself() -> None:
    shim = found()[300]
    assert (shim.kind, shim.pod, shim.from_file, shim.contained) == ("shim", "kube-system/etcd-cp", True, False)


def test_everything_below_a_shim_is_in_a_container_also_the_children_of_children() -> None:
    assert {pid for pid, each in found().items() if each.contained} == {301, 302, 401, 402, 403, 404}
    assert found()[403].pod == "shop/web" and not found()[403].from_file


def test_pause_is_the_shims_own_child_of_that_name_and_no_other() -> None:
    assert {pid for pid, each in found().items() if each.kind == "pause"} == {301, 401}


def test_what_containerd_starts_without_a_shim_is_in_no_container() -> None:
    assert found()[500].kind == "other"


def test_a_circle_of_parents_ends() -> None:
    assert found()[600].kind == "other"


def test_lines_that_are_no_processes_and_a_runtime_that_does_not_answer_are_passed_over() -> None:
    assert read_ps("error: something\n\n 1 x y\n") == []
    assert read_sandboxes("") == read_sandboxes("{}") == read_sandboxes('{"items": null}') == []


def test_the_drawing_is_well_formed_says_its_facts_as_a_table_and_is_the_same_every_time() -> None:
    picture = draw.processes({"cp": list(found().values())})
    assert picture.svg == draw.processes({"cp": list(found().values())}).svg
    assert ElementTree.fromstring(picture.svg).tag.endswith("svg")
    rows = {row[1]: row for row in picture.table.rows}
    assert rows["302"] == ("cp", "302", "300", "etcd", "container", "kube-system/etcd-cp", "a file")
    assert rows["200"][4:] == ("no container", "", "")
    assert "40" not in rows, "units that are not Kubernetes' are left out"


def test_names_from_a_node_cannot_break_the_drawing() -> None:
    hostile = [Process(7, 1, '<script>alert(1)</script>"&', "container", 'a/<b>&"', True), Process(8, 1, "", "shim", 'a/<b>&"', True)]
    ElementTree.fromstring(draw.processes({"<cp>&": hostile}).svg)
