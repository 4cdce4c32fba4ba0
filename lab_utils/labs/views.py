"""What lab.show(…) shows: small tables of live state, and drawings. And the cell magics %%on NODE and %%part FILE PIECE."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from lab_utils.errors import BadInput
from lab_utils.labs.outcome import say
from lab_utils.labs.parts import named
from lab_utils.labs.render import Note, Table
from lab_utils.labs.workspace import Workspace

if TYPE_CHECKING:
    from lab_utils.lab import Lab
    from lab_utils.topology import Topology


ON_SECONDS = 600  # kubeadm waits up to four minutes for a control plane that does not come; whoever is impatient interrupts the cell


def show(lab: Workspace, what: str, **options: Any) -> Any:
    if what not in VIEWS:
        raise BadInput(f"there is nothing to show named {what!r}", f"There is: {', '.join(VIEWS)}")
    return VIEWS[what](lab, **options)


def pods(lab: Workspace, selector: str = "", namespace: str | None = None) -> Table:
    rows = []
    for pod in lab.objects("pods", selector, namespace):
        status = pod.get("status", {})
        containers = status.get("containerStatuses", [])
        ready = f"{sum(each['ready'] for each in containers)}/{len(pod['spec']['containers'])}"
        waiting = [each["state"]["waiting"].get("reason", "") for each in containers if "waiting" in each.get("state", {})]
        phase = "Terminating" if pod["metadata"].get("deletionTimestamp") else (waiting or [status.get("phase", "")])[0]
        restarts = sum(each["restartCount"] for each in containers)
        rows.append([pod["metadata"]["name"], ready, phase, restarts, status.get("podIP", ""), pod["spec"].get("nodeName", "")])
    return Table(["pod", "ready", "status", "restarts", "address", "node"], rows)


def services(lab: Workspace, namespace: str | None = None) -> Table:
    endpoints: dict[str, list[str]] = {}
    for piece in lab.objects("endpointslices", namespace=namespace):
        service = piece["metadata"].get("labels", {}).get("kubernetes.io/service-name", "")
        numbers = [str(port.get("port")) for port in piece.get("ports") or []]
        for endpoint in piece.get("endpoints") or []:
            if endpoint.get("conditions", {}).get("ready") is not False:
                endpoints.setdefault(service, []).extend(f"{endpoint['addresses'][0]}:{number}" for number in numbers)
    rows = []
    for service in lab.objects("services", namespace=namespace):
        name, spec = service["metadata"]["name"], service["spec"]
        ports = ", ".join(f"{port['port']}→{port.get('targetPort', '')}/{port.get('protocol', 'TCP')}" for port in spec.get("ports", []))
        rows.append([name, spec["type"], spec.get("clusterIP", ""), ports, ", ".join(sorted(endpoints.get(name, []))) or "none"])
    return Table(["service", "type", "address", "ports", "endpoints"], rows)


def nodes(lab: Workspace) -> Table:
    rows = []
    for node in lab.cluster.get("nodes")["items"]:
        ready = next((each["status"] for each in node["status"]["conditions"] if each["type"] == "Ready"), "Unknown")
        address = next((each["address"] for each in node["status"]["addresses"] if each["type"] == "InternalIP"), "")
        rows.append(
            [node["metadata"]["name"], ready, address, node["spec"].get("podCIDR", ""), node["status"]["nodeInfo"]["kubeletVersion"]]
        )
    return Table(["node", "ready", "address", "pods", "kubelet"], rows)


def events(lab: Workspace, namespace: str | None = None, last: int = 15) -> Table:
    found = lab.objects("events", namespace=namespace)
    found.sort(key=lambda each: each.get("lastTimestamp") or each.get("eventTime") or each["metadata"]["creationTimestamp"])
    rows = [
        [
            each["type"],
            f"{each['involvedObject']['kind'].lower()}/{each['involvedObject']['name']}",
            each.get("reason", ""),
            say(each.get("message", ""), 200),
        ]
        for each in found[-last:]
    ]
    return Table(["type", "about", "reason", "message"], rows)


def answers(lab: Workspace) -> Table:
    return Table(["step", "answer"], [[step, say(value, 200)] for step, value in lab.store.answers.items()])


# drawings: made from what the cluster is now, in one round trip a node


def _topology(lab: Workspace) -> Topology:
    from lab_utils.snapshot.record import record
    from lab_utils.topology import Topology

    return Topology.from_snapshot(record(lab.cluster))


def draw_cluster(lab: Workspace) -> Any:
    from lab_utils import draw

    return draw.cluster(_topology(lab))


def draw_node(lab: Workspace, name: str) -> Any:
    from lab_utils import draw

    return draw.node(_topology(lab), lab.node(name).name)


def draw_path(lab: Workspace, start: str, end: str, port: int | None = None) -> Any:
    """A packet's way. A Pod or Service is named as in `lab.show("path", start="web", end="service/shop", port=80)`."""
    from lab_utils import draw

    topology = _topology(lab)
    return draw.path(topology.path(_full(lab, start), _full(lab, end), port), topology)


def draw_service(lab: Workspace, name: str, node: str = "") -> Any:
    """As the rules of one node have it: the first worker's, unless one is named."""
    from lab_utils import draw

    where = name if "/" in name else f"{lab.namespace}/{name}"
    seen_from = lab.node(node) if node else (lab.cluster.workers or lab.cluster.nodes)[0]
    return draw.service(seen_from.iptables(), where, _topology(lab))


def _full(lab: Workspace, name: str) -> str:
    """A Pod or a Service without a namespace is one of the lab's; a node or an address stays as it is."""
    if name.startswith("service/") and name.count("/") == 1:
        return f"service/{lab.namespace}/{name.removeprefix('service/')}"
    if "/" in name or any(node.name == name for node in lab.nodes) or re.fullmatch(r"[0-9a-f.:]*[.:][0-9a-f.:]*", name):
        return name
    return f"{lab.namespace}/{name}"


VIEWS: dict[str, Callable[..., Any]] = {
    "pods": pods,
    "services": services,
    "nodes": nodes,
    "events": events,
    "answers": answers,
    "cluster": draw_cluster,
    "node": draw_node,
    "path": draw_path,
    "service": draw_service,
}


def register_magics(lab: Lab) -> None:
    """What a cell may begin with.

    `%%on w1` runs the rest of the cell on that node, as root; `%on w1 ip route` runs one line.
    `%%part FILE PIECE` keeps the rest as a piece of a program (see parts.py). If PIECE is a step, an answer is recorded.
    """
    try:
        from IPython import get_ipython
    except ImportError:
        return
    if (shell := get_ipython()) is None:
        return

    def on(line: str, cell: str | None = None) -> None:
        name, _, rest = line.strip().partition(" ")
        done = lab.node(name).run(rest if cell is None else cell, timeout=ON_SECONDS)
        print(done.stdout, end="")
        if done.stderr:
            print(done.stderr, end="")
        if not done.ok:
            print(f"(ended with code {done.code})")

    def part(line: str, cell: str) -> Note:
        file, piece = named(line)
        kept = lab.parts.keep(file, piece, cell, shell.user_ns)
        if any(step.name == piece for step in lab.spec.steps):
            return lab.answer(piece, lab.parts.answer(file, piece))
        return Note(kept)

    shell.register_magic_function(on, magic_kind="line_cell", magic_name="on")
    shell.register_magic_function(part, magic_kind="cell", magic_name="part")
