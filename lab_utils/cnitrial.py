"""Tries a CNI plugin from outside: calls it as a container runtime would, and says what it saw.

    unshare --net --mount python3 cnitrial.py PLUGIN contract|addresses|cable --plugins /opt/cni/bin

It runs on a node, where there is no lab_utils, and needs nothing beyond the standard library. Whatever it makes is in the two namespaces
that it was started in, and ends with them: devices, network namespaces, files. PLUGIN may be any program. It is called under the
name `mine`, with a bridge and a subnet as the lab's text describes them. What is printed is a list of findings, as JSON.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from ipaddress import IPv4Interface, IPv4Network
from itertools import count
from pathlib import Path
from typing import Any

SUBNET = IPv4Network("10.99.0.0/28")
GATEWAY = str(SUBNET[1])
USABLE = {str(host) for host in SUBNET.hosts()} - {GATEWAY}
BRIDGE = "mine0"
VERSION = "1.1.0"
ELSEWHERE, OTHER_NODE, THIS_NODE = IPv4Network("10.99.7.0/24"), "192.0.2.2", "192.0.2.1"
PORT = 7007

SERVE = f"import socket; s = socket.create_server(('', {PORT})); print('up', flush=True); c, a = s.accept(); c.sendall(a[0].encode())"
ASK = f"import socket, sys; print(socket.create_connection((sys.argv[1], {PORT}), 3).recv(99).decode())"


@dataclass
class Reply:
    """What a call of the plugin came to."""

    code: int
    text: str
    errors: str

    @property
    def ok(self) -> bool:
        return self.code == 0

    @property
    def said(self) -> dict[str, Any]:
        try:
            value = json.loads(self.text)
        except ValueError:
            return {}
        return value if isinstance(value, dict) else {}

    @property
    def refusal(self) -> int | None:
        """The code of an error as the specification wants it; None when it is none, or none of that form."""
        form = self.code != 0 and isinstance(self.said.get("msg"), str) and isinstance(self.said.get("cniVersion"), str)
        code = self.said.get("code")
        return code if form and isinstance(code, int) else None

    @property
    def ips(self) -> list[dict[str, Any]]:
        return self._list("ips")

    @property
    def interfaces(self) -> list[dict[str, Any]]:
        return self._list("interfaces")

    def _list(self, key: str) -> list[dict[str, Any]]:
        """Objects in a result. Whoever wrote the plugin may have put anything there."""
        value = self.said.get(key)
        return [each for each in value if isinstance(each, dict)] if isinstance(value, list) else []

    @property
    def address(self) -> str:
        """The first address of a result, or ""."""
        try:
            return str(IPv4Interface(str(self.ips[0]["address"])).ip)
        except (LookupError, ValueError):
            return ""

    @property
    def cable(self) -> str:
        """The node's end of the cable, as the result has it, or ""."""
        return next((str(each.get("name")) for each in self.interfaces if not each.get("sandbox") and each.get("name") != BRIDGE), "")

    def __str__(self) -> str:
        said = " ".join((self.text.strip() or self.errors.strip()[-300:] or "nothing").split())
        return f"exit code {self.code}, and it said {said[:300]}"


@dataclass
class World:
    """A node of our own: its network is the namespace that this process is in."""

    plugin: Path
    plugins: str
    findings: list[dict[str, Any]] = field(default_factory=list)
    numbers: Iterator[int] = field(default_factory=lambda: count(1))

    def __post_init__(self) -> None:
        for place in ("/run/netns", "/mnt"):  # hidden behind memory that ends with our mount namespace
            Path(place).mkdir(exist_ok=True)
            run("mount", "-t", "tmpfs", "none", place)
        Path("/mnt/bin").mkdir()
        shutil.copy(self.plugin, "/mnt/bin/mine")
        Path("/mnt/bin/mine").chmod(0o755)
        run("ip", "link", "set", "lo", "up")

    # calling

    def conf(self, kind: str = "mine", **more: Any) -> dict[str, Any]:
        """A network configuration as a runtime hands it over: for the plugin itself, or for `bridge` with it below."""
        ipam = {"type": "mine", "subnet": str(SUBNET), "dataDir": "/mnt/data"}
        return {"cniVersion": VERSION, "name": "trial", "type": kind, "bridge": BRIDGE, "isDefaultGateway": True, "ipam": ipam, **more}

    def start(self, command: str, container: str = "a", *, program: str = "mine", without: str = "", **env: str) -> subprocess.Popen[bytes]:
        words = {
            "CNI_COMMAND": command,
            "CNI_CONTAINERID": container,
            "CNI_IFNAME": "eth0",
            "CNI_NETNS": f"/run/netns/{container}",
            "CNI_PATH": f"/mnt/bin:{self.plugins}",
            **env,
        }
        given = {name: value for name, value in words.items() if name != without}
        path = program if "/" in program else f"/mnt/bin/{program}"
        environ = {"PATH": os.environ["PATH"], **given}
        return subprocess.Popen([path], env=environ, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE)

    def call(self, command: str, container: str = "a", *, stdin: bytes | None = None, conf: Any = None, **names: Any) -> Reply:
        text = json.dumps(conf if conf is not None else self.conf()).encode() if stdin is None else stdin
        process = self.start(command, container, **names)
        try:
            out, err = process.communicate(text, timeout=20)
        except subprocess.TimeoutExpired:
            process.kill()
            out, err = process.communicate()
            err += b"ended after 20 s"
        return Reply(process.returncode, out.decode(errors="replace"), err.decode(errors="replace"))

    def address_only(self, command: str, container: str) -> Reply:
        """As `bridge` asks for an address; it needs no container."""
        return self.call(command, container, conf=self.conf("bridge"))

    def killed(self, container: str, conf: dict[str, Any], seconds: float) -> None:
        """ADD, and SIGKILL in the middle of it."""
        process = self.start("ADD", container)
        assert process.stdin
        process.stdin.write(json.dumps(conf).encode())
        process.stdin.close()
        time.sleep(seconds)
        process.kill()
        process.wait()
        for stream in (process.stdout, process.stderr):
            assert stream
            stream.close()

    # looking

    def container(self, name: str = "") -> str:
        name = name or f"c{next(self.numbers)}"
        run("ip", "netns", "add", name)
        return name

    def links(self) -> set[str]:
        return {link["ifname"] for link in show("link")}

    def capacity(self) -> int:
        """How many addresses can still be had: takes all of them, and gives them back."""
        names: list[str] = []
        while len(names) <= len(USABLE):
            name = f"fill{next(self.numbers)}"
            if not self.address_only("ADD", name).ok:
                break
            names.append(name)
        for name in names:
            self.address_only("DEL", name)
        return len(names)

    def found(self, what: str, ok: object, expected: object, seen: object) -> bool:
        self.findings.append({"what": what, "ok": bool(ok), "expected": str(expected), "seen": str(seen)})
        return bool(ok)

    def same(self, what: str, seen: object, expected: object) -> bool:
        return self.found(what, seen == expected, expected, seen)

    def refuses(self, what: str, reply: Reply, *codes: int, names: str = "") -> None:
        """An error as the specification writes it, with one of these codes; any code when none is given."""
        fits = reply.refusal is not None and (not codes or reply.refusal in codes) and names in reply.text
        code = f" and the code {' or '.join(map(str, codes))}" if codes else ""
        named = f", which names {names}" if names else ""
        self.found(what, fits, f"an error as JSON on stdout{code}{named}, and an exit code that is not 0", reply)

    def accepts(self, what: str, reply: Reply) -> None:
        self.found(what, reply.ok, "exit code 0", reply)


def run(*argv: str) -> str:
    return subprocess.run(argv, check=True, capture_output=True, text=True).stdout


def show(*words: str, netns: str = "") -> list[dict[str, Any]]:
    inside = ["nsenter", f"--net=/run/netns/{netns}"] if netns else []
    done = subprocess.run([*inside, "ip", "-d", "-j", *words], capture_output=True, text=True)
    return list(json.loads(done.stdout or "[]")) if done.returncode == 0 else []


def eth0(netns: str) -> list[dict[str, Any]]:
    return show("addr", "show", "dev", "eth0", netns=netns)


def reaches(client: str, server: str, address: str) -> str:
    """A TCP connection between two namespaces ("" is the node). Returns whom the server saw, or what went wrong."""
    address = address or "0.0.0.0"  # whoever was refused one reaches nobody

    def inside(netns: str, code: str, *words: str) -> list[str]:
        return [*(["nsenter", f"--net=/run/netns/{netns}"] if netns else []), sys.executable, "-c", code, *words]

    listening = subprocess.Popen(inside(server, SERVE), stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    try:
        assert listening.stdout
        listening.stdout.readline()
        asked = subprocess.run(inside(client, ASK, address), capture_output=True, text=True, timeout=15)
        return (asked.stdout or asked.stderr.strip().rpartition("\n")[2]).strip()
    except subprocess.TimeoutExpired:
        return "no answer"
    finally:
        listening.kill()
        listening.communicate()


def at_once(function: Callable[[str], Reply], names: list[str]) -> list[Reply]:
    with ThreadPoolExecutor(len(names)) as pool:
        return list(pool.map(function, names))


# ── the trials ──────────────────────────────────────────────────────────────


def contract(world: World) -> None:
    """What comes in is understood or refused, before anything is done."""
    said = world.call("VERSION").said
    versions = said.get("supportedVersions")
    speaks = isinstance(versions, list) and all(version in versions for version in ("1.0.0", "1.1.0"))
    world.found("VERSION", speaks, "supportedVersions with 1.0.0 and 1.1.0", said)
    world.refuses("CNI_COMMAND=FLY", world.call("FLY"), 4, names="CNI_COMMAND")
    world.refuses("CNI_COMMAND is not set", world.call("ADD", without="CNI_COMMAND"), 4, names="CNI_COMMAND")
    for name in ("CNI_CONTAINERID", "CNI_IFNAME", "CNI_NETNS"):
        world.refuses(f"ADD without {name}", world.call("ADD", without=name), 4, names=name)
    world.refuses("DEL without CNI_CONTAINERID", world.call("DEL", without="CNI_CONTAINERID"), 4, names="CNI_CONTAINERID")
    world.refuses("the container ID ../../etc", world.call("ADD", CNI_CONTAINERID="../../etc"), 4, names="CNI_CONTAINERID")
    for name in ("a/b", "an-interface-of-far-too-long-a-name", "eth 0"):
        world.refuses(f"the interface {name!r}", world.call("ADD", CNI_IFNAME=name), 4, names="CNI_IFNAME")
    texts = {"nothing": b"", "half an object": b'{"cniVersion": "1', "a list": b"[1]", "null": b"null", "not UTF-8": b'{"\xff\xfe": 1}'}
    for what, text in {**texts, "100,000 brackets": b"[" * 100_000}.items():
        world.refuses(f"{what} on stdin", world.call("ADD", stdin=text), 6)
    world.refuses("cniVersion 9.9.9", world.call("ADD", conf=world.conf(cniVersion="9.9.9")), 1)
    nameless = world.conf()
    del nameless["name"]
    world.refuses("a network without a name", world.call("ADD", conf=nameless), 7)
    world.refuses("a network named ../../etc", world.call("ADD", conf=world.conf(name="../../etc")), 7)
    world.refuses("a bridge named 'a b'", world.call("ADD", conf=world.conf(bridge="a b")), 7)
    in_order = world.call("ADD", conf=world.conf(name="fine", bridge="fine0"))
    world.found("a call that is in order", in_order.refusal not in (1, 4, 6, 7), "it is not refused for what it says", in_order)
    left = sorted(world.links() - {"lo", "fine0"}) + sorted(str(path) for path in Path("/mnt/data").glob("*") if path.name != "fine")
    world.found("what is refused leaves nothing", not left, "no device, no file", left)


def addresses(world: World) -> None:
    """Managing addresses: alone, and below the reference plugin `bridge`."""
    real = f"{world.plugins}/bridge"
    one, two = world.container(), world.container()
    replies = [world.call("ADD", each, conf=world.conf("bridge"), program=real) for each in (one, two)]
    has = [local for each in (one, two) for link in eth0(each) for local in inet(link)]
    given = [reply.address for reply in replies]
    works = len(set(given)) == 2 and given == has
    if not world.found("below `bridge`, two containers get two addresses", works, "two addresses", [str(r) for r in replies]):
        return  # what is refused, left behind or lost after that would say nothing
    world.same("they reach each other", reaches(one, two, given[1]), given[0])
    for each in (one, two):
        world.call("DEL", each, conf=world.conf("bridge"), program=real)

    first = world.address_only("ADD", "first")
    lent = [(each.get("address"), each.get("gateway")) for each in first.ips]
    fits = first.ok and lent == [(f"{first.address}/28", GATEWAY)] and not first.interfaces
    world.found("an address comes with its length and the gateway", fits, f"ips with 10.99.0.…/28 and {GATEWAY}, and no interfaces", first)
    world.refuses("ADD again without a DEL", world.address_only("ADD", "first"))
    world.accepts("DEL", world.address_only("DEL", "first"))
    world.accepts("DEL again", world.address_only("DEL", "first"))
    world.accepts("DEL of somebody who was never there", world.address_only("DEL", "stranger"))
    world.accepts("DEL without CNI_NETNS", world.call("DEL", "first", conf=world.conf("bridge"), without="CNI_NETNS"))
    second = world.address_only("ADD", "second")
    rests = second.address and second.address != first.address
    world.found("an address that was given back rests", rests, f"another one than {first.address}", second)
    world.address_only("DEL", "second")

    names = [f"many{number}" for number in range(len(USABLE) + 7)]
    replies = at_once(lambda name: world.address_only("ADD", name), names)
    given = [reply.address for reply in replies if reply.ok]
    expected = f"each of the {len(USABLE)} once: not the network's own, the bridge's or the one for broadcasts"
    world.found(f"{len(names)} ask at once", sorted(given) == sorted(USABLE), expected, sorted(given))
    refused = [reply for reply in replies if not reply.ok]
    late = refused and all(each.refusal for each in refused)
    world.found("who comes too late is refused", late, "errors as JSON", [str(each) for each in refused[:2]])
    out = next((name for name, reply in zip(names, replies, strict=True) if reply.ok), names[0])
    freed = replies[names.index(out)].address
    world.address_only("DEL", out)
    world.same("one is given back, and the next one gets it", world.address_only("ADD", "late").address, freed)
    at_once(lambda name: world.address_only("DEL", name), [*names, "late"])
    world.same("all were given back at once: so many are free", world.capacity(), len(USABLE))
    for turn in range(12):
        world.killed(f"killed{turn}", world.conf("bridge"), random.uniform(0, 0.1))
        world.address_only("DEL", f"killed{turn}")
    world.same("killed in the middle, then DEL: so many are free", world.capacity(), len(USABLE))


def inet(link: dict[str, Any]) -> list[str]:
    return [each["local"] for each in link.get("addr_info", []) if each["family"] == "inet"]


def cable(world: World) -> None:
    """The whole plugin."""
    run("ip", "netns", "add", "other")
    run("ip", "link", "add", "wire", "type", "veth", "peer", "name", "wire", "netns", "other")
    for where, words in (
        ([], f"addr add {THIS_NODE}/24 dev wire"),
        ([], "link set wire up"),
        (["-n", "other"], "link set lo up"),
        (["-n", "other"], f"addr add {OTHER_NODE}/24 dev wire"),
        (["-n", "other"], f"addr add {ELSEWHERE[9]}/32 dev lo"),
        (["-n", "other"], "link set wire up"),
        (["-n", "other"], f"route add {SUBNET} via {THIS_NODE}"),
    ):
        run("ip", *where, *words.split())
    conf = world.conf(peers={str(ELSEWHERE): OTHER_NODE})
    before = world.links()
    one, two = world.container(), world.container()
    first, second = (world.call("ADD", each, conf=conf) for each in (one, two))
    works = first.ok and second.ok and first.said.get("cniVersion") == VERSION
    if not world.found("ADD", works, f"two results of version {VERSION}", f"{first}; {second}"):
        return
    result_is_true(world, one, first)
    world.same("two containers reach each other", reaches(one, two, second.address), first.address)
    world.same("the node reaches a container", reaches("", one, first.address), GATEWAY)
    world.same("a container reaches another node's Pod", reaches(one, "other", str(ELSEWHERE[9])), first.address)
    ports = [link.get("linkinfo", {}).get("info_slave_data", {}) for link in show("link") if link.get("master") == BRIDGE]
    hairpin = ports and all(port.get("hairpin") for port in ports)
    world.found("a container may reach itself through the bridge", hairpin, "hairpin on, at each port", ports)

    was = world.links()
    world.refuses("ADD again without a DEL", world.call("ADD", one, conf=conf))
    world.refuses("ADD for a container that has an eth0 already", world.call("ADD", "usurper", conf=conf, CNI_NETNS=f"/run/netns/{one}"))
    world.refuses("ADD for a container that does not exist", world.call("ADD", "nobody", conf=conf))
    world.same("what was refused leaves no device", sorted(world.links()), sorted(was))
    world.same("what was refused holds no address: so many are free", world.capacity(), len(USABLE) - 2)
    world.same("what was refused breaks nothing for others", reaches(two, one, first.address), second.address)
    checks(world, conf)

    world.accepts("DEL", world.call("DEL", one, conf=conf))
    gone = len(world.links()) == len(was) - 1 and not eth0(one)
    world.found("both ends of its cable are gone", gone, "one device less", sorted(world.links()))
    world.accepts("DEL again", world.call("DEL", one, conf=conf))
    run("ip", "netns", "del", two)
    world.accepts("DEL when the container's network is gone", world.call("DEL", two, conf=conf))
    three, four = world.container(), world.container()
    kept = world.call("ADD", three, conf=conf)
    world.call("ADD", four, conf=conf)
    world.accepts("DEL without CNI_NETNS", world.call("DEL", four, conf=conf, without="CNI_NETNS"))
    world.found("it pulls the cable out all the same", not eth0(four), "no eth0 in the container", "it is there")
    world.call("ADD", four, conf=conf)
    collected = world.call("GC", conf={**conf, "cni.dev/valid-attachments": [{"containerID": three, "ifname": "eth0"}]})
    only = collected.ok and not eth0(four) and reaches("", three, kept.address) == GATEWAY
    world.found("GC removes whom the runtime does not know, and nobody else", only, "one is gone, one answers", collected)
    world.call("DEL", three, conf=conf)
    full(world, conf)

    many = [world.container() for _ in range(len(USABLE))]
    replies = at_once(lambda name: world.call("ADD", name, conf=conf), many)
    all_different = {reply.address for reply in replies} == USABLE
    world.found(f"{len(many)} containers at once", all_different, f"{len(USABLE)} addresses", [r.address or str(r) for r in replies])
    at_once(lambda name: world.call("DEL", name, conf=conf), many)
    for _ in range(10):
        name = world.container()
        world.killed(name, conf, random.uniform(0, 0.12))
        world.call("DEL", name, conf=conf)
    devices = sorted(world.links() - before - {BRIDGE})
    world.found("after all that, no device is left", not devices, "the bridge, and nothing on it", devices)
    world.same("after all that, no address is lost: so many are free", world.capacity(), len(USABLE))


def result_is_true(world: World, container: str, reply: Reply) -> None:
    """What the result says about devices and addresses is what the kernel says."""
    inside = {link["ifname"]: link for link in show("addr", netns=container)}
    outside = {link["ifname"]: link for link in show("addr")}
    try:
        ip = reply.ips[0]
        own = reply.interfaces[ip["interface"]]
        there = {(each["name"], each.get("sandbox", ""), each["mac"]) for each in reply.interfaces}
        real = {(name, where, (inside if where else outside)[name]["address"]) for name, where, _ in there}
        routes = show("route", "show", "default", netns=container)
        facts = {
            "the devices, with their MAC addresses": there == real and len(there) == 3,
            "the container's device and its namespace": (own["name"], own["sandbox"]) == ("eth0", f"/run/netns/{container}"),
            "the address, which eth0 has": reply.address in inet(inside["eth0"]),
            "the gateway, which the bridge has": ip["gateway"] == GATEWAY and GATEWAY in inet(outside[BRIDGE]),
            "a default route, which the container has": any(route.get("gateway") == GATEWAY for route in routes),
            "the node's end of the cable, at the bridge": outside[reply.cable].get("master") == BRIDGE,
        }
    except (LookupError, TypeError) as error:
        facts = {f"{error!r} in {reply}": False}
    wrong = [what for what, fine in facts.items() if not fine]
    expected = "interfaces, ips and routes as section 5 of the specification has them, and all of it true"
    world.found("the result says what the kernel says", not wrong, expected, f"not so: {'; '.join(wrong)}")


def checks(world: World, conf: dict[str, Any]) -> None:
    """CHECK is content with what ADD made, and with nothing less."""
    broken = {
        "the address is gone": (["-n", "{name}"], "addr flush dev eth0"),
        "the default route is gone": (["-n", "{name}"], "route del default"),
        "the device is down": (["-n", "{name}"], "link set eth0 down"),
        "the cable is not at the bridge": ([], "link set {cable} nomaster"),
    }
    content, noticed = [], []
    for what, (where, words) in broken.items():
        name = world.container()
        result = world.call("ADD", name, conf=conf)
        checked = {**conf, "prevResult": result.said}
        content.append(world.call("CHECK", name, conf=checked))
        line = ["ip", *(word.format(name=name) for word in where), *words.format(cable=result.cable or "lo").split()]
        subprocess.run(line, capture_output=True)
        if world.call("CHECK", name, conf=checked).refusal is not None:
            noticed.append(what)
        world.call("DEL", name, conf=conf)
        run("ip", "netns", "del", name)
    world.found("CHECK after ADD", all(reply.ok for reply in content), "exit code 0", [str(r) for r in content if not r.ok])
    missed = [what for what in broken if what not in noticed]
    world.found("CHECK notices damage", not missed, "an error for each kind of damage", f"not noticed: {'; '.join(missed)}")


def full(world: World, conf: dict[str, Any]) -> None:
    """No address is left: ADD and STATUS say so."""
    world.accepts("STATUS when all is well", world.call("STATUS", conf=conf))
    names = [f"full{number}" for number in range(len(USABLE))]
    at_once(lambda name: world.address_only("ADD", name), names)
    last = world.container()
    was = world.links()
    world.refuses("ADD in a full subnet", world.call("ADD", last, conf=conf))
    world.refuses("STATUS when the subnet is full", world.call("STATUS", conf=conf), 50)
    world.same("an ADD that finds no address leaves no device", sorted(world.links()), sorted(was))
    at_once(lambda name: world.address_only("DEL", name), names)


TRIALS = {each.__name__: each for each in (contract, addresses, cable)}


def main() -> None:
    parser = argparse.ArgumentParser(description="Tries a CNI plugin from outside")
    parser.add_argument("plugin", type=Path)
    parser.add_argument("trial", choices=TRIALS)
    parser.add_argument("--plugins", default="/opt/cni/bin", help="where the reference plugins are")
    asked = parser.parse_args()
    world = World(asked.plugin, asked.plugins)
    TRIALS[asked.trial](world)
    json.dump(world.findings, sys.stdout, indent=1)


if __name__ == "__main__":
    main()
