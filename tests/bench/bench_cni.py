"""What a CNI call costs: the plugin of lab 07 against the reference `bridge` with host-local, in network namespaces of our own.

The same configuration, in turn; each container is new. `python -m tests.bench cni`
"""

from __future__ import annotations

import statistics
import tempfile
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any

from lab_utils.artifacts import programs
from lab_utils.artifacts.versions import pinned
from lab_utils.progress import Silent
from tests.bench.report import Row, seconds
from tests.kernel.test_cni_plugin import REFERENCE, Node, installed, solved_pieces
from tests.kernel.wiring import wiring

ROUNDS, AT_ONCE = 15, 20
CALLS = ("ADD", "DEL", "DEL again")
Times = dict[str, list[float]]


def rows() -> list[Row]:
    with tempfile.TemporaryDirectory() as scratch, wiring() as wires:
        bin_dir = Path(scratch, "bin")
        bin_dir.mkdir()
        for name in programs.ensure(REFERENCE, Silent()):
            (bin_dir / name).symlink_to(programs.entry(pinned().program(name)) / name)
        installed(solved_pieces(), bin_dir)
        node = Node(wires, bin_dir, Path(scratch, "state"))
        one = alone(node)
        crowd = together(node)
    lines = [line(name, one[f"mine {name}"], one[f"bridge {name}"]) for name in CALLS]
    return [*lines, line(f"{AT_ONCE} ADD at once", crowd["mine"], crowd["bridge"])]


def alone(node: Node) -> Times:
    """One container after the other; the first of each does not count, as it makes the bridge."""
    taken: Times = {}
    for turn in range(ROUNDS + 1):
        for plugin in ("mine", "bridge"):
            conf, name = node.conf(plugin, bridge=f"br-{plugin}", name=plugin), f"{plugin}{turn}"
            node.container(name)
            for key in CALLS:
                spent = seconds(partial(node.call, key.split()[0], name, conf))
                if turn:
                    taken.setdefault(f"{plugin} {key}", []).append(spent)
    return taken


def together(node: Node) -> Times:
    """Many at once, as when a Deployment is scaled: the time until the last has its network."""
    taken: Times = {}
    numbers = count()
    for _ in range(3):
        for plugin in ("mine", "bridge"):
            conf, names = node.conf(plugin, bridge=f"br-{plugin}", name=plugin), [f"{plugin}-many{next(numbers)}" for _ in range(AT_ONCE)]
            for name in names:
                node.container(name)
            taken.setdefault(plugin, []).append(seconds(partial(at_once, node, "ADD", names, conf)))
            at_once(node, "DEL", names, conf)
    return taken


def at_once(node: Node, command: str, names: list[str], conf: dict[str, Any]) -> None:
    with ThreadPoolExecutor(len(names)) as pool:
        assert all(done.ok for done in pool.map(lambda name: node.call(command, name, conf), names))


def line(name: str, ours: list[float], reference: list[float]) -> Row:
    """Medians, and the median of the ratios pair by pair."""
    ratio = statistics.median(a / b for a, b in zip(ours, reference, strict=True))
    return Row(name, f"{statistics.median(ours) * 1000:.0f} ms", f"{statistics.median(reference) * 1000:.0f} ms", f"{ratio:.2f}")
