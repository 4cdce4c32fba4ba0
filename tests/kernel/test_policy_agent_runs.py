"""Lab 11's agent as a program: on a node made of namespaces, against a small API that lists and watches."""

from __future__ import annotations

import json
import os
import select
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from lab_utils.policies import Request
from lab_utils.run import run
from tests.kernel import agent_source
from tests.kernel.pod_wires import ADDRESSES, RANGES, PodWires, hear, packet, pod_wires
from tests.kernel.small_api import SmallApi
from tests.kernel.test_policy_agent import SHOP, SPACES, B, only, policy

pytestmark = [pytest.mark.kernel, pytest.mark.skipif(os.geteuid() != 0, reason="network namespaces need root")]
A_TO_B = Request(ADDRESSES["p11"][0], ADDRESSES["p12"][0], "TCP", 80)
C_TO_B = Request(ADDRESSES["p13"][0], ADDRESSES["p12"][0], "TCP", 80)
NODE = {"metadata": {"name": "n1"}, "spec": {"podCIDRs": list(RANGES["n1"])}}
NOBODY, ONLY_A = policy({"podSelector": B}), policy({"podSelector": B, "ingress": [{"from": [only("a")]}]})


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return agent_source.folder(tmp_path_factory.mktemp("agent"))


@pytest.fixture(scope="module")
def wires() -> Iterator[PodWires]:
    with pod_wires() as made:
        yield made


@pytest.fixture
def api(wires: PodWires) -> Iterator[SmallApi]:
    made = SmallApi(wires.namespace("n1"))
    made.put("Node", NODE)
    for each in SPACES:
        made.put("Namespace", each)
    for each in SHOP:
        made.put("Pod", each)
    yield made
    made.close()
    wires.on("n1", "nft", "flush", "ruleset")


class Agent:
    def __init__(self, wires: PodWires, api: SmallApi, folder: Path, scratch: Path, **more: str) -> None:
        self.ready, self.log = scratch / "ready", scratch / "log"
        self.ready.unlink(missing_ok=True)
        (scratch / "token").write_text("secret")
        own = {"NODE_NAME": "n1", "API_SERVER": f"http://127.0.0.1:{api.port}", "ACCOUNT": str(scratch), "READY": str(self.ready)}
        enter = ["nsenter", f"--net=/run/netns/{wires.namespace('n1')}"]
        with self.log.open("w") as log:
            self.process = subprocess.Popen(
                [*enter, sys.executable, str(folder / "agent.py")],
                env={**os.environ, "LOOK_AGAIN": "1", **own, **more},
                stdout=log,
                stderr=log,
            )

    def stop(self) -> int:
        self.process.terminate()
        return self.process.wait(10)

    def __repr__(self) -> str:
        return self.log.read_text()


@contextmanager
def running(wires: PodWires, api: SmallApi, folder: Path, scratch: Path, wait: bool = True, **more: str) -> Iterator[Agent]:
    agent = Agent(wires, api, folder, scratch, **more)
    try:
        if wait:
            eventually(agent.ready.exists, agent)
        yield agent
    finally:
        if agent.process.poll() is None:
            agent.process.kill()
            agent.process.wait()


def eventually(true: Callable[[], bool], agent: Agent, seconds: float = 20) -> None:
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, f"not within {seconds} s; the agent said:\n{agent}"
        time.sleep(0.02)


def fate(wires: PodWires, sent: Request) -> str:
    return wires.fates([sent])[sent]


def becomes(wires: PodWires, right: dict[Request, str], agent: Agent) -> None:
    eventually(lambda: wires.fates(right) == right, agent)


def tables(wires: PodWires) -> list[str]:
    return sorted(wires.on("n1", "nft", "list", "tables").split("\n"))[1:]


def test_policies_come_change_and_go(wires: PodWires, api: SmallApi, folder: Path, tmp_path: Path) -> None:
    with running(wires, api, folder, tmp_path) as agent:
        becomes(wires, {A_TO_B: "arrived", C_TO_B: "arrived"}, agent)
        api.put("NetworkPolicy", NOBODY)
        becomes(wires, {A_TO_B: "refused", C_TO_B: "refused"}, agent)
        api.put("NetworkPolicy", ONLY_A)
        becomes(wires, {A_TO_B: "arrived", C_TO_B: "refused"}, agent)
        api.delete("NetworkPolicy", ONLY_A)
        becomes(wires, {A_TO_B: "arrived", C_TO_B: "arrived"}, agent)
        assert len(tables(wires)) == 2  # one name, both families


def test_pods_and_namespaces_change_what_a_policy_means(wires: PodWires, api: SmallApi, folder: Path, tmp_path: Path) -> None:
    api.put(
        "NetworkPolicy", policy({"podSelector": B, "ingress": [{"from": [{"namespaceSelector": {"matchLabels": {"kind": "secret"}}}]}]})
    )
    with running(wires, api, folder, tmp_path) as agent:
        becomes(wires, {A_TO_B: "refused", C_TO_B: "arrived"}, agent)
        api.put("Namespace", {"metadata": {"name": "vault", "labels": {}}})
        becomes(wires, {A_TO_B: "refused", C_TO_B: "refused"}, agent)
        api.put("Namespace", {"metadata": {"name": "shop", "labels": {"kind": "secret"}}})
        becomes(wires, {A_TO_B: "arrived", C_TO_B: "refused"}, agent)
        (b,) = [each for each in SHOP if each["metadata"]["name"] == "b"]
        api.put("Pod", {**b, "metadata": {**b["metadata"], "labels": {"pod": "other"}}})  # no policy selects it now
        becomes(wires, {A_TO_B: "arrived", C_TO_B: "arrived"}, agent)
        api.delete("Pod", b)  # its address belongs to nobody that is known
        becomes(wires, {A_TO_B: "lost", C_TO_B: "lost"}, agent)


def test_a_watch_that_breaks_is_taken_up_again(wires: PodWires, api: SmallApi, folder: Path, tmp_path: Path) -> None:
    with running(wires, api, folder, tmp_path) as agent:
        for forget in (False, True):  # from where it was; and where the server remembers nothing, from a new list
            api.cut(forget)
            api.put("NetworkPolicy", NOBODY)
            becomes(wires, {A_TO_B: "refused"}, agent)
            api.cut(forget)
            api.delete("NetworkPolicy", NOBODY)
            becomes(wires, {A_TO_B: "arrived"}, agent)


def test_what_happened_while_the_server_was_away_is_caught_up_with(wires: PodWires, api: SmallApi, folder: Path, tmp_path: Path) -> None:
    with running(wires, api, folder, tmp_path) as agent:
        api.put("NetworkPolicy", NOBODY)
        becomes(wires, {A_TO_B: "refused"}, agent)
        api.away = True
        api.cut(forget=True)
        time.sleep(1.5)
        assert fate(wires, A_TO_B) == "refused"  # the rules hold without a server
        api.put("NetworkPolicy", ONLY_A)
        api.away = False
        becomes(wires, {A_TO_B: "arrived", C_TO_B: "refused"}, agent)


def test_nothing_is_loaded_from_half_a_picture(wires: PodWires, api: SmallApi, folder: Path, tmp_path: Path) -> None:
    """A restarted agent that knows the Pods and not yet the policies would open everything."""
    api.put("NetworkPolicy", NOBODY)
    with running(wires, api, folder, tmp_path) as agent:
        becomes(wires, {A_TO_B: "refused"}, agent)
        assert agent.stop() == 0
    assert fate(wires, A_TO_B) == "refused"  # without an agent nothing opens
    api.away_for = "/apis/networking.k8s.io/v1/networkpolicies"
    with running(wires, api, folder, tmp_path, wait=False) as agent:
        time.sleep(2)
        assert not agent.ready.exists() and fate(wires, A_TO_B) == "refused"
        api.away_for = ""
        eventually(agent.ready.exists, agent)
        assert fate(wires, A_TO_B) == "refused"


def test_rules_that_somebody_took_away_come_back(wires: PodWires, api: SmallApi, folder: Path, tmp_path: Path) -> None:
    api.put("NetworkPolicy", NOBODY)
    with running(wires, api, folder, tmp_path) as agent:
        becomes(wires, {A_TO_B: "refused"}, agent)
        wires.on("n1", "nft", "flush", "ruleset")
        becomes(wires, {A_TO_B: "refused"}, agent)
        name = tables(wires)[0].split()[-1]
        wires.on("n1", "nft", "flush", "chain", "ip", name, "to/shop/b")  # the end of the chain: back, and accepted
        becomes(wires, {A_TO_B: "refused"}, agent)


def test_rules_that_are_taken_away_at_once_come_back_too(wires: PodWires, api: SmallApi, folder: Path, tmp_path: Path) -> None:
    """Between loading them and looking at what was loaded: what is found then must not pass for what was loaded."""
    bin_folder, real = tmp_path / "bin", run(["sh", "-c", "command -v nft"]).stdout.strip()
    bin_folder.mkdir()
    thief = bin_folder / "nft"
    steal = f"if [ -e {tmp_path}/thief ]; then rm {tmp_path}/thief; {real} flush ruleset; fi"
    thief.write_text(f'#!/bin/sh\n{real} "$@"; code=$?\nif [ "$1" = -f ]; then {steal}; fi\nexit $code\n')
    thief.chmod(0o755)
    api.put("NetworkPolicy", NOBODY)
    (tmp_path / "thief").touch()
    with running(wires, api, folder, tmp_path, wait=False, PATH=f"{bin_folder}:{os.environ['PATH']}") as agent:
        eventually(lambda: not (tmp_path / "thief").exists(), agent)
        eventually(lambda: tables(wires) == [], agent)
        becomes(wires, {A_TO_B: "refused"}, agent)


def test_a_load_that_fails_is_tried_again(wires: PodWires, api: SmallApi, folder: Path, tmp_path: Path) -> None:
    """An nft that fails three times, as when the kernel is short of memory; until then the old rules are in force."""
    bin_folder, real = tmp_path / "bin", run(["sh", "-c", "command -v nft"]).stdout.strip()
    bin_folder.mkdir()
    failing = bin_folder / "nft"
    failing.write_text(f'#!/bin/sh\nif [ "$1" = -f ] && [ -e {tmp_path}/broken ]; then echo no memory >&2; exit 1; fi\nexec {real} "$@"\n')
    failing.chmod(0o755)
    api.put("NetworkPolicy", NOBODY)
    with running(wires, api, folder, tmp_path, PATH=f"{bin_folder}:{os.environ['PATH']}") as agent:
        becomes(wires, {A_TO_B: "refused"}, agent)
        (tmp_path / "broken").touch()
        api.put("NetworkPolicy", ONLY_A)
        eventually(lambda: repr(agent).count("no memory") >= 2, agent)
        assert fate(wires, A_TO_B) == "refused"
        (tmp_path / "broken").unlink()
        becomes(wires, {A_TO_B: "arrived"}, agent)


def test_removing_leaves_nothing(wires: PodWires, api: SmallApi, folder: Path, tmp_path: Path) -> None:
    api.put("NetworkPolicy", NOBODY)
    with running(wires, api, folder, tmp_path) as agent:
        becomes(wires, {A_TO_B: "refused"}, agent)
        agent.stop()
    env = {**os.environ, "NODE_NAME": "n1", "API_SERVER": "http://127.0.0.1:1"}
    for _ in range(2):  # removing nothing is no error
        run(["nsenter", f"--net=/run/netns/{wires.namespace('n1')}", sys.executable, str(folder / "agent.py"), "remove"], env=env)
        assert tables(wires) == []
    assert fate(wires, A_TO_B) == "arrived"


# Not one packet may slip through while rules are replaced.

REPLACING = """
import json, sys
from agent import Kernel, nft
from rules import in_tables, ruleset

worlds, how = json.load(sys.stdin)
kernel = Kernel()
for world in worlds:
    contents = ruleset(*world, "n1", ["10.244.1.0/24"])
    if how == "in two steps":  # as one would write it first: away with the old, in with the new
        nft("-f", "-", text="table ip policy-a\\ndelete table ip policy-a\\n")
        nft("-f", "-", text=in_tables("policy-a", contents))
    else:
        kernel.load(contents)
    print(len(contents["ip"]), flush=True)
"""


def changing(number: int) -> list[Any]:
    """The policies of one moment: they differ each time, but a is never allowed to reach b, and c always is."""
    others = [{"ipBlock": {"cidr": f"192.168.{n}.0/24"}} for n in range(number % 7)]
    spec = {"podSelector": B, "ingress": [{"from": [only("c"), {"namespaceSelector": {}, **only("c")}, *others]}]}
    more = [policy({"podSelector": {}, "policyTypes": ["Ingress"]}, name=f"more-{n}") for n in range(number % 3)]
    pods = SHOP[: 3 + number % 4]  # Pods come and go meanwhile
    return [[policy(spec), *more], pods, SPACES]


class Flood:
    """Datagrams from a and from c to b, as fast as Python can, until told to stop; and how many of each arrived or were refused."""

    def __init__(self, wires: PodWires) -> None:
        self.wires, self.stop = wires, threading.Event()
        self.sent = {"a": 0, "c": 0}
        self.arrived: set[int] = set()
        self.refused: set[int] = set()
        # The number says who sent it: a's are even. Each sender takes a new source port each time.
        self.threads = [threading.Thread(target=self.send, args=who) for who in (("a", "p11", 0), ("c", "p13", 1))]
        self.threads.append(threading.Thread(target=self.listen))
        for thread in self.threads:
            thread.start()

    def send(self, letter: str, wire: str, odd: int) -> None:
        src, dst = ADDRESSES[wire][0], ADDRESSES["p12"][0]
        packets = [packet(Request(src, dst, "UDP", 80), 10000 + n, 2 * n + odd + 2) for n in range(20000)]
        sender = self.wires.senders[wire, 4]
        while not self.stop.is_set():
            for n, each in enumerate(packets):
                sender.sendto(each, (dst, 0))
                self.sent[letter] += 1
                if n % 100 == 0:
                    time.sleep(0.002)  # leaves the processor to the others, and conntrack its memory
                    if self.stop.is_set():
                        return

    def listen(self) -> None:
        ears = [*self.wires.catchers, *self.wires.errors]
        while not self.stop.is_set() or select.select(ears, [], [], 0.3)[0]:
            for ear in select.select(ears, [], [], 0.1)[0]:
                while (heard := hear(ear)) is not None:
                    if isinstance(heard, int):
                        self.refused.add(heard)
                    else:
                        self.arrived.add(heard[0])

    def end(self) -> None:
        self.stop.set()
        for thread in self.threads:
            thread.join()

    @property
    def slipped(self) -> int:
        return sum(number % 2 == 0 for number in self.arrived)

    @property
    def wronged(self) -> int:
        """Of c's packets, those that were refused by a rule: b itself answers with the same ICMP error, but only to what arrived."""
        return sum(number % 2 == 1 for number in self.refused - self.arrived)


def replaced_under_fire(wires: PodWires, folder: Path, times: int, how: str) -> Flood:
    wires.on("n1", "nft", "flush", "ruleset")
    wires.on("n1", "conntrack", "-F", check=False)
    enter = ["nsenter", f"--net=/run/netns/{wires.namespace('n1')}", sys.executable, "-c", REPLACING]
    env = {**os.environ, "NODE_NAME": "n1", "API_SERVER": "http://none", "PYTHONPATH": str(folder)}
    run(enter, input=json.dumps([[changing(0)], how]), env=env)  # the first table stands before the first packet
    flood = Flood(wires)
    try:
        run(enter, input=json.dumps([[changing(n) for n in range(times)], how]), env=env, timeout=300)
    finally:
        flood.end()
        wires.on("n1", "nft", "flush", "ruleset")
    return flood


def test_while_rules_are_replaced_60_times_nothing_slips_through(wires: PodWires, folder: Path) -> None:
    """`python -m tests.bench policy_gap` does it 300 times, faster, and in the ways that are not safe, too."""
    flood = replaced_under_fire(wires, folder, 60, "two tables take turns")
    print(f"{flood.sent}; {len(flood.arrived)} different ones arrived")
    assert flood.sent["a"] > 1000 and flood.sent["c"] > 1000
    assert flood.slipped == 0
    assert flood.wronged == 0  # and what both the old and the new rules allow is never refused


def test_this_would_be_noticed(wires: PodWires, folder: Path) -> None:
    flood = replaced_under_fire(wires, folder, 20, "in two steps")
    assert flood.slipped > 0
