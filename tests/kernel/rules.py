"""Random rulesets and packets, as hypothesis strategies: what a student, kube-proxy or Docker might write, in any mixture."""

from __future__ import annotations

from typing import Any, NamedTuple

from hypothesis import strategies as st

from tests.kernel.lines import CLIENT, CLIENT6, SERVERS, SERVERS6

PORTS = (53, 80, 443, 8080, 30080)
MARKS = ("0x1", "0x4000", "0x8000")
HOOKS = {
    "raw": ("PREROUTING", "OUTPUT"),
    "mangle": ("PREROUTING", "INPUT", "FORWARD", "OUTPUT", "POSTROUTING"),
    "nat": ("PREROUTING", "OUTPUT", "INPUT", "POSTROUTING"),
    "filter": ("INPUT", "FORWARD", "OUTPUT"),
}


class Pool(NamedTuple):
    client: str
    servers: tuple[str, ...]
    node: tuple[str, ...]
    services: tuple[str, ...]
    networks: tuple[str, ...]
    loopback: str
    full: int

    @property
    def everyone(self) -> tuple[str, ...]:
        return (self.client, *self.servers, *self.node, *self.services)


IPV4 = Pool(
    client=CLIENT,
    servers=SERVERS,
    node=("10.77.0.1", "10.77.1.1"),
    services=("10.96.0.10", "10.96.0.11"),
    networks=("10.77.0.0/24", "10.77.1.0/24", "10.96.0.0/16", "0.0.0.0/0"),
    loopback="127.0.0.1",
    full=32,
)
IPV6 = Pool(
    client=CLIENT6,
    servers=SERVERS6,
    node=("fd77::1", "fd77:1::1"),
    services=("fd96::10", "fd96::11"),
    networks=("fd77::/64", "fd77:1::/64", "fd96::/64", "::/0"),
    loopback="::1",
    full=128,
)


class Sent(NamedTuple):
    """A packet to send: by whom, and what is in it."""

    who: str
    src: str
    dst: str
    protocol: str
    dport: int
    mark: int = 0


def packets(pool: Pool) -> st.SearchStrategy[Sent]:
    protocol, port = st.sampled_from(["tcp", "udp"]), st.sampled_from(PORTS)
    far = st.sampled_from([*pool.services, *pool.node, *pool.servers])
    from_client = st.builds(Sent, st.just("client"), st.just(pool.client), far, protocol, port, st.just(0))
    pod = st.builds(
        Sent,
        st.just("server"),
        st.sampled_from(pool.servers[:2]),
        st.sampled_from([*pool.services, *pool.node, pool.client]),
        protocol,
        port,
        st.just(0),
    )
    local = st.builds(
        Sent, st.just("node"), st.sampled_from(pool.node), st.sampled_from([*pool.services, *pool.servers, pool.client, *pool.node]),
        protocol, port, st.sampled_from([0, 0, 1, 0x4000]),
    )  # fmt: skip
    return st.one_of(from_client, pod, local)


def negatable(option: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    return st.builds(lambda negated, said: f"! {said}" if negated else said, st.sampled_from([False, False, True]), option)


def address(pool: Pool, option: str) -> st.SearchStrategy[str]:
    """nft refuses the negation of "any address", which would match nothing."""
    some = st.sampled_from([*pool.networks[:-1], *(f"{a}/{pool.full}" for a in pool.everyone)])
    return st.one_of(negatable(some.map(lambda a: f"{option} {a}")), st.just(f"{option} {pool.networks[-1]}"))


@st.composite
def conditions(draw: Any, pool: Pool, hook_kinds: frozenset[str], table: str) -> list[str]:
    """The matches of one rule, in any order; the protocol comes before the ports, as iptables wants it."""
    said: list[str] = []
    if draw(st.integers(0, 2)) == 0:
        said.append(draw(address(pool, "-s")))
    if draw(st.integers(0, 1)) == 0:
        said.append(draw(address(pool, "-d")))
    protocol = draw(st.sampled_from(["", "", "tcp", "udp"]))
    if protocol:
        said.append(f"-p {protocol}")
        port = st.sampled_from(PORTS)
        span = st.tuples(port, port).map(lambda pair: f"{min(pair)}:{max(pair)}")
        said.append(
            draw(
                st.one_of(
                    st.just(""),
                    negatable(st.one_of(port.map(str), span).map(lambda p: f"--dport {p}")),
                    negatable(
                        st.lists(port, min_size=1, max_size=3).map(lambda ports: f"-m multiport --dports {','.join(map(str, ports))}")
                    ).map(lambda text: text if not text.startswith("! ") else text.replace("! -m multiport", "-m multiport !")),
                )
            )
        )
    more = [
        st.sampled_from(MARKS).flatmap(
            lambda m: st.sampled_from([f"-m mark --mark {m}/{m}", f"-m mark ! --mark {m}/{m}", f"-m mark --mark {m}"])
        ),
        st.sampled_from(["-m conntrack --ctstate NEW", "-m conntrack ! --ctstate NEW", "-m conntrack --ctstate RELATED,ESTABLISHED"]),
        st.sampled_from(
            ["-m conntrack --ctstate DNAT", "-m conntrack ! --ctstate RELATED,ESTABLISHED,DNAT", "-m conntrack --ctstate INVALID"]
        ),
        st.sampled_from(["-m addrtype --dst-type LOCAL", "-m addrtype ! --dst-type LOCAL", "-m addrtype --src-type LOCAL"]),
        st.sampled_from(["-m statistic --mode random --probability 0.5", "-m statistic --mode random --probability 0.33333333349"]),
        st.just('-m comment --comment "it\'s \\"quoted\\" -j DROP"'),
        st.sampled_from(pool.services).map(lambda a: f"-m conntrack --ctorigdst {a}"),
        st.sampled_from(
            [f"-m iprange --dst-range {pool.servers[0]}-{pool.servers[1]}", f"-m iprange ! --src-range {pool.servers[0]}-{pool.servers[2]}"]
        ),
        st.sampled_from(MARKS).map(lambda m: f"-m connmark --mark {m}/{m}"),
    ]
    if hook_kinds <= {"PREROUTING", "INPUT", "FORWARD"}:
        more.append(st.sampled_from(["-i n0", "! -i n0", "-i n+", "-i lo"]))
    if hook_kinds <= {"OUTPUT", "FORWARD", "POSTROUTING"}:
        more.append(st.sampled_from(["-o n1", "! -o n1", "-o n+", "! -o lo"]))
    for choice in draw(st.lists(st.sampled_from(range(len(more))), max_size=2, unique=True)):
        said.append(draw(more[choice]))
    return [part for part in said if part]


def targets(pool: Pool, table: str, hook_kinds: frozenset[str], has_port: bool) -> st.SearchStrategy[str]:
    passing = [
        st.sampled_from(MARKS).flatmap(
            lambda m: st.sampled_from(
                [f"MARK --set-xmark {m}/{m}", f"MARK --or-mark {m}", f"MARK --xor-mark {m}", f"MARK --set-mark {m}", f"MARK --and-mark {m}"]
            )
        ),
        st.sampled_from(
            ["CONNMARK --save-mark", "CONNMARK --restore-mark", "CONNMARK --set-xmark 0x1/0x1", "CONNMARK --save-mark --mask 0x4000"]
        ),
    ]
    ends = [st.just("ACCEPT"), st.just("RETURN")]
    if table == "raw":
        ends += [st.just("DROP"), st.just("CT --notrack")]
    elif table == "mangle":
        ends.append(st.just("DROP"))
    elif table == "filter":
        ends += [st.just("DROP"), st.just("REJECT")]
    elif hook_kinds <= {"PREROUTING", "OUTPUT"}:
        places = [*(f"[{a}]" if ":" in a else a for a in (*pool.servers, pool.node[1]))]
        ends += [st.sampled_from(places).map(lambda a: f"DNAT --to-destination {a.strip('[]')}")]
        if has_port:
            with_ports = st.tuples(st.sampled_from(places), st.sampled_from(["80", "8080", "8000-8010"]))
            ends += [with_ports.map(lambda pair: f"DNAT --to-destination {pair[0]}:{pair[1]}")] * 2
            ends.append(st.sampled_from(["REDIRECT --to-ports 8080", "REDIRECT"]))
        if ":" not in pool.client:
            ends.append(st.just("NETMAP --to 10.77.1.0/28"))
    elif hook_kinds <= {"POSTROUTING"}:
        ends += [st.just("MASQUERADE"), st.just(f"SNAT --to-source {pool.node[1]}")]
    elif hook_kinds <= {"INPUT"}:
        ends += [st.just(f"SNAT --to-source {pool.servers[2]}")]
    return st.one_of(*passing, *ends, *ends)


@st.composite
def rulesets(draw: Any, pool: Pool) -> str:
    """Tables with built-in chains, and a few more that are jumped to; never in a circle."""
    lines: list[str] = []
    for table in ("raw", "mangle", "nat", "filter"):
        if draw(st.integers(0, 3)) == 0:
            continue
        lines.append(f"*{table}")
        homes: list[tuple[str, frozenset[str]]] = [(hook, frozenset({hook})) for hook in HOOKS[table]]
        extra: list[tuple[str, frozenset[str]]] = []
        for number in range(draw(st.integers(0, 3))):
            kinds = frozenset(HOOKS[table])
            if table == "nat":
                kinds = draw(st.sampled_from([frozenset({"PREROUTING", "OUTPUT"}), frozenset({"POSTROUTING"})]))
            extra.append((f"{table.upper()}-{number}", kinds))
        policies = st.sampled_from(["ACCEPT", "ACCEPT", "ACCEPT", "DROP"]) if table == "filter" else st.just("ACCEPT")
        lines += [f":{hook} {draw(policies)} [0:0]" for hook, _ in homes]
        lines += [f":{name} - [0:0]" for name, _ in extra]
        if table in ("mangle", "filter"):  # the errors that REJECT sends pass the rules too, and are how it is seen
            lines += [f"-A {hook} -p {'ipv6-icmp' if pool.full == 128 else 'icmp'} -j ACCEPT" for hook, _ in homes]
        for place, (name, kinds) in enumerate([*homes, *extra]):
            below = [inner for inner, inner_kinds in extra[max(0, place - len(homes) + 1) :] if kinds <= inner_kinds]
            for _ in range(draw(st.integers(0, 4))):
                said = draw(conditions(pool, kinds, table))
                has_port = any(part.startswith("-p ") for part in said)
                target = targets(pool, table, kinds, has_port).map(lambda t: f"-j {t}")
                if below:
                    jump = st.tuples(st.sampled_from(["-j", "-j", "-g"]), st.sampled_from(below)).map(" ".join)
                    target = st.one_of(target, jump)
                if table == "raw" and not any("--dport" in part and not part.startswith("!") for part in said):
                    continue  # raw sees the answers too; a rule for one port leaves them alone
                lines.append(" ".join(["-A", name, *said, draw(target)]))
        lines.append("COMMIT")
    return "\n".join(lines) + "\n"
