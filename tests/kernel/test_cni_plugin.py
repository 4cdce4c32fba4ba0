"""The CNI plugin of lab 07, as its solution has it: against the kernel, against the reference plugins, and against SIGKILL.

Its source stands in one place, the lab's. It is taken from there, piece by piece, as the notebook puts it together.
Whether the lab's trial notices every slip takes two minutes; so that is asked when LAB_TEST_SLIPS=all.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import sys
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from importlib.resources import files
from pathlib import Path
from typing import Any

import pytest

from lab_utils.artifacts import programs
from lab_utils.artifacts.versions import pinned
from lab_utils.checks import load_checks
from lab_utils.labs.build import load_source
from lab_utils.labs.catalog import find_lab
from lab_utils.labs.parts import joined, pieces_of
from lab_utils.labs.release import released, solution
from lab_utils.run import Result, run
from tests.kernel.wiring import Wiring, needs_root, wiring

pytestmark = [pytest.mark.kernel, needs_root]

REFERENCE = ("bridge", "host-local")
SUBNET = "10.99.0.0/26"
thorough = pytest.mark.skipif(os.environ.get("LAB_TEST_SLIPS") != "all", reason="set LAB_TEST_SLIPS=all: two minutes and more")
Pieces = dict[str, str]


def solved_pieces() -> Pieces:
    return pieces_of(solution(load_source(find_lab("07", sources=True))))["mine"]


def installed(pieces: Pieces, folder: Path) -> Path:
    path = folder / "mine"
    path.write_text(joined(pieces))
    path.chmod(0o755)
    return path


@pytest.fixture(scope="module")
def bin_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Our plugin and the reference plugins beside it, where both find each other."""
    if lacking := [name for name in REFERENCE if not programs.known(name)]:
        pytest.skip(f"not in the cache: {', '.join(lacking)}; `lab up` makes them")
    if not Path("/usr/bin/python3").exists():
        pytest.skip("there is no /usr/bin/python3, which nodes have")
    folder = tmp_path_factory.mktemp("cni-bin")
    for name in REFERENCE:
        (folder / name).symlink_to(programs.entry(pinned().program(name)) / name)
    installed(solved_pieces(), folder)
    return folder


# ── a node of our own ───────────────────────────────────────────────────────


class Node:
    """A network namespace that plays the node; containers are others. All of them end with the test."""

    def __init__(self, wires: Wiring, bin_dir: Path, state: Path) -> None:
        self.wires, self.bin_dir, self.state = wires, bin_dir, state
        wires.add("node")

    def container(self, name: str) -> None:
        run(["ip", "netns", "add", self.wires.prefix + name])
        self.wires.names.append(name)

    def conf(self, plugin: str = "mine", ipam: str = "", version: str = "1.1.0", **more: Any) -> dict[str, Any]:
        managed = {"type": ipam or ("mine" if plugin == "mine" else "host-local"), "subnet": SUBNET, "dataDir": str(self.state)}
        shape = {"isDefaultGateway": True, "hairpinMode": True}
        return {"cniVersion": version, "name": "net", "type": plugin, "bridge": "br0", **shape, "ipam": managed, **more}

    def call(self, command: str, container: str, conf: dict[str, Any] | None = None, *, under: tuple[str, ...] = ()) -> Result:
        conf = conf or self.conf()
        env = {
            "CNI_COMMAND": command,
            "CNI_CONTAINERID": container,
            "CNI_NETNS": f"/run/netns/{self.wires.prefix}{container}",
            "CNI_IFNAME": "eth0",
            "CNI_PATH": str(self.bin_dir),
        }
        argv = ["nsenter", f"--net=/run/netns/{self.wires.prefix}node", *under, str(self.bin_dir / conf["type"])]
        return run(argv, input=json.dumps(conf), env=env, check=False, timeout=60)

    def add(self, container: str, conf: dict[str, Any] | None = None) -> dict[str, Any]:
        done = self.call("ADD", container, conf)
        assert done.ok, done
        return dict(json.loads(done.stdout))

    @property
    def links(self) -> set[str]:
        return {link["ifname"] for link in json.loads(self.wires.ip("node", "-j link"))} - {"lo", "br0"}

    @property
    def taken(self) -> dict[str, str]:
        return {file.name: file.read_text() for file in (self.state / "net").glob("[0-9]*")}


@pytest.fixture
def node(bin_dir: Path, tmp_path: Path) -> Iterator[Node]:
    with wiring() as wires:
        yield Node(wires, bin_dir, tmp_path)


# ── the trial that the lab's checks use ─────────────────────────────────────


def tried(plugin: Path, trial: str, reference: Path) -> dict[str, bool]:
    script = files("lab_utils").joinpath("cnitrial.py")
    argv = ["unshare", "--net", "--mount", sys.executable, str(script), str(plugin), trial, "--plugins", str(reference)]
    done = run(argv, timeout=200)
    found = json.loads(done.stdout)
    for each in found:
        if not each["ok"]:
            print(f"{each['what']}: expected {each['expected']}; seen: {each['seen']}")
    return {each["what"]: each["ok"] for each in found}


@pytest.mark.parametrize("trial", ["contract", "addresses", "cable"])
def test_the_solution_passes_the_trial(bin_dir: Path, trial: str) -> None:
    found = tried(bin_dir / "mine", trial, bin_dir)
    assert len(found) > 10 and all(found.values())


# What is done wrong, in which part, and what the trial has to notice by it.
SLIPS = {
    "it trusts its input": (
        "contract", "contract", r"re.fullmatch(form, str(conf.get(key, \"\")))", "True", "a network named ../../etc"
    ),
    "it does not say which variable": ("contract", "contract", "', '.join(wrong)", "'something'", "ADD without CNI_NETNS"),
    "it needs a network namespace for DEL": ("addresses", "contract", '"DEL": ATTACHMENT', '"DEL": INSIDE', "DEL without CNI_NETNS"),
    "it never looks who has what": ("addresses", "addresses", "if each not in taken", "if each", "20 ask at once"),
    "it gives the bridge's address away": ("addresses", "addresses", ".hosts()][1:]", ".hosts()]", "20 ask at once"),
    "it always begins at the first": (
        "addresses", "addresses", "usable.index(last) + 1 if last in usable else 0", "0", "an address that was given back rests"
    ),
    "it does not go round": (
        "addresses", "addresses", "usable[start:] + usable[:start]", "usable[start:]", "one is given back, and the next one gets it"
    ),
    "a second DEL is an error to it": (
        "cable", "cable", 'if "Cannot find device" not in refused.details:', "if True:", "DEL again"
    ),
    "it forgets hairpin": ("cable", "cable", "hairpin on", "hairpin off", "a container may reach itself through the bridge"),
    "it forgets the other nodes": ("cable", "cable", "in call.peers.items()", "in ()", "a container reaches another node's Pod"),
    "it leaves an address behind when ADD fails": (
        "cable", "commands", "        delete(call)\n        raise", "        raise", "what was refused holds no address: so many are free"
    ),
    "it does not look at the bridge in CHECK": (
        "cable", "cable", 'outside.get("master") != call.bridge or', "", "CHECK notices damage"
    ),
    "it does not look for the default route in CHECK": (
        "cable", "cable", "if not any(route", "if not routes == [] and not any(route", "CHECK notices damage"
    ),
}  # fmt: skip


@thorough
@pytest.mark.parametrize("slip", SLIPS)
def test_the_trial_notices(slip: str, bin_dir: Path, tmp_path: Path) -> None:
    trial, part, right, wrong, finding = SLIPS[slip]
    pieces = solved_pieces()
    right = right.replace("\\", "")
    assert pieces[part].count(right) == 1
    pieces[part] = pieces[part].replace(right, wrong)
    found = tried(installed(pieces, tmp_path), trial, bin_dir)
    assert found[finding] is False


@pytest.mark.parametrize("trial", ["contract", "addresses", "cable"])
def test_an_untouched_lab_earns_nothing(bin_dir: Path, tmp_path: Path, trial: str) -> None:
    """What a learner finds in the cells is a program too. The check gives points from half of the findings on."""
    found = tried(installed(pieces_of(released(load_source(find_lab("07", sources=True))))["mine"], tmp_path), trial, bin_dir)
    assert sum(found.values()) * 2 < len(found)


# ── beside the reference plugins ────────────────────────────────────────────


def shape(value: Any) -> Any:
    """Keys and kinds of values: what two results have in common when they say the same of different containers."""
    if isinstance(value, dict):
        return {key: shape(each) for key, each in value.items()}
    return [shape(each) for each in value] if isinstance(value, list) else type(value).__name__


@pytest.mark.parametrize("version", ["1.0.0", "1.1.0"])
def test_a_result_has_the_shape_of_the_reference_plugins(node: Node, version: str) -> None:
    said = {}
    for plugin in ("mine", "bridge"):
        node.container(plugin)
        said[plugin] = node.add(plugin, node.conf(plugin, version=version))
    assert shape(said["mine"]) == shape(said["bridge"])
    assert said["mine"]["cniVersion"] == version
    assert said["mine"]["ips"][0]["gateway"] == said["bridge"]["ips"][0]["gateway"]


def test_it_and_host_local_read_each_others_reservations(node: Node) -> None:
    for name in ("one", "two"):
        node.container(name)
    first = node.add("one", node.conf("bridge", ipam="mine"))["ips"][0]["address"]
    second = node.add("two", node.conf("bridge", ipam="host-local"))["ips"][0]["address"]
    assert [first, second] == ["10.99.0.2/26", "10.99.0.3/26"]
    assert node.call("DEL", "one", node.conf("bridge", ipam="host-local")).ok
    assert node.call("DEL", "two", node.conf("bridge", ipam="mine")).ok
    assert node.taken == {}


def test_what_the_lab_says_of_the_reference_plugin_is_what_it_does(bin_dir: Path) -> None:
    """The check of `refusals` makes the experiment; its outcome here is the answer of the solution."""
    module = load_checks(find_lab("07", sources=True).folder / "checks.py").checks["refusals"].function.__globals__

    class Here:
        def run(self, argv: list[str], timeout: float) -> Result:
            return run(argv, timeout=timeout)

    seen = module["experiment"](Here(), str(bin_dir))
    right = {"add_again": "error", "delete": "ok", "delete_again": "ok", "delete_without": "ok", "future": "error", "check_blind": "error"}
    assert seen == right


# ── many, and not to the end ────────────────────────────────────────────────


def test_fifty_containers_come_and_go_at_once_and_leave_nothing(node: Node) -> None:
    names = [f"c{number}" for number in range(50)]
    for name in names:
        node.container(name)
    with ThreadPoolExecutor(50) as pool:
        results = list(pool.map(node.add, names))
        assert len({result["ips"][0]["address"] for result in results}) == 50
        assert len(node.links) == len(node.taken) == 50
        assert all(done.ok for done in pool.map(lambda name: node.call("DEL", name), names))
    assert (node.links, node.taken) == (set(), {})
    assert sorted(path.name for path in (node.state / "net").iterdir()) == ["last_reserved_ip.0", "lock"]


WATCHED = ("flock", "rename", "unlink", "write", "vfork", "clone", "clone3", "wait4", "exit_group")


@pytest.mark.skipif(shutil.which("strace") is None, reason="killing at a certain system call needs strace")
@pytest.mark.parametrize("who", [pytest.param("the plugin", marks=thorough), "whoever it started, too"])
def test_killed_at_any_system_call_it_leaves_nothing_that_a_delete_does_not_find(node: Node, who: str) -> None:
    follow = ("-f",) if who != "the plugin" else ()
    node.container("first")
    log = node.state / "calls"
    done = node.call("ADD", "first", under=("strace", "-qq", "-o", str(log), "-e", f"trace={','.join(WATCHED)}"))
    if "ptrace" in done.stderr.lower():
        pytest.skip("tracing is not allowed here")
    assert done.ok
    calls = Counter(re.findall(r"^(\w+)\(", log.read_text(), re.M))
    assert calls["rename"] == 1 and calls["flock"] == 1
    deaths = 0
    for number, (name, nth) in enumerate((name, nth) for name, times in calls.items() for nth in range(1, times + 1)):
        container = f"k{number}"
        node.container(container)
        inject = f"inject={name}:signal=KILL:when={nth}"
        done = node.call("ADD", container, under=("strace", "-qq", *follow, "-o", "/dev/null", "-e", f"trace={name}", "-e", inject))
        deaths += not done.ok
        assert node.call("DEL", container).ok
        assert (len(node.links), len(node.taken)) == (1, 1), f"killed at {name} number {nth}"
    assert deaths >= 10
    assert node.call("DEL", "first").ok
    assert (node.links, node.taken) == (set(), {})


def test_an_unknown_attachment_is_collected_and_a_known_one_is_left_alone(node: Node) -> None:
    for name in ("known", "stale"):
        node.container(name)
        node.add(name)
    known = [{"containerID": "known", "ifname": "eth0"}]
    assert node.call("GC", "nobody", {**node.conf(), "cni.dev/valid-attachments": known}).ok
    assert list(node.taken.values()) == ["known\neth0"] and len(node.links) == 1
