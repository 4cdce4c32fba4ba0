"""Random nftables rulesets, in the forms that kube-proxy's nftables mode uses and their neighbours."""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st

from tests.kernel.rules import PORTS, Pool, negatable

HOOKS = {
    "at-raw": ("filter", "prerouting", -110),
    "nat-prerouting": ("nat", "prerouting", -100),
    "filter-forward": ("filter", "forward", 0),
    "filter-input": ("filter", "input", 0),
    "nat-output": ("nat", "output", -100),
    "filter-output": ("filter", "output", 0),
    "nat-postrouting": ("nat", "postrouting", 100),
}


@st.composite
def rulesets(draw: Any, pool: Pool) -> str:
    """A table with sets, verdict maps and chains; the chains of a map are only gone to from where their statements may stand."""
    ip = "ip6" if pool.full == 128 else "ip"
    kind = "ipv6_addr" if ip == "ip6" else "ipv4_addr"
    service, port = st.sampled_from(pool.services), st.sampled_from(PORTS)
    who = st.sampled_from(pool.everyone)
    key = st.tuples(service, st.sampled_from(["tcp", "udp"]), port).map(lambda k: f"{k[0]} . {k[1]} . {k[2]}")

    def elements(of: st.SearchStrategy[str], suffix: str = "") -> str:
        listed = draw(st.lists(of, min_size=1, max_size=4, unique=True))
        return "elements = { " + ", ".join(each + suffix for each in listed) + " }"

    to_port = "".join(f"[{s}]" if ip == "ip6" else s for s in [draw(st.sampled_from(pool.servers))])
    endpoints = draw(st.lists(st.sampled_from(pool.servers), min_size=1, max_size=3, unique=True))
    drawn = ", ".join(f"{n} : {server} . 80" for n, server in enumerate(endpoints))
    jumps = ", ".join(f"{n} : goto endpoint{n}" for n in range(len(endpoints)))
    lines = [
        f"table {ip} t {{",
        f" set hosts {{ type {kind}; {elements(who)} }}",
        f" set pairs {{ type {kind} . {kind}; {elements(st.tuples(who, who).map(' . '.join))} }}",
        f" map services {{ type {kind} . inet_proto . inet_service : verdict; {elements(key, ' : goto balanced')} }}",
        f" map refused {{ type {kind} . inet_proto . inet_service : verdict; {elements(key, ' : goto refuse')} }}",
        f" map ports {{ type inet_proto . inet_service : verdict; {elements(port.map(lambda p: f'tcp . {p}'), ' : goto picked')} }}",
        *(
            f" chain endpoint{n} {{ meta l4proto {{ tcp, udp }} dnat to {f'[{s}]' if ip == 'ip6' else s}:80\n }}"
            for n, s in enumerate(endpoints)
        ),
        f" chain picked {{ {ip} saddr {draw(who)} meta mark set mark or 0x4000",
        f"  numgen random mod {len(endpoints)} vmap {{ {jumps} }}\n }}",
        f" chain balanced {{ meta l4proto tcp dnat {ip} addr . port to numgen random mod {len(endpoints)} map {{ {drawn} }}",
        f"  meta l4proto udp dnat to {to_port}:{draw(port)}\n }}",
        " chain refuse { reject\n }",
    ]
    conditions = [
        negatable(st.just("")).flatmap(
            lambda _: st.sampled_from([f"{ip} daddr @hosts", f"{ip} saddr != @hosts", f"{ip} saddr . {ip} daddr @pairs"])
        ),
        who.map(lambda a: f"{ip} daddr {a}"),
        st.sampled_from(pool.networks[:-1]).map(lambda n: f"{ip} saddr != {n}"),
        port.map(lambda p: f"tcp dport {p}"),
        st.lists(port, min_size=2, max_size=3, unique=True).map(lambda p: f"th dport {{ {', '.join(map(str, sorted(p)))} }}"),
        st.sampled_from(["ct state new", "ct state established,related", "ct status dnat", "meta mark & 0x4000 != 0", "meta l4proto udp"]),
        st.sampled_from(["fib daddr type local", "fib saddr type local", "fib daddr type != local"]),
        st.sampled_from(["numgen random mod 4 < 1", "tcp dport 50-100", "th dport != 443"]),
    ]
    vmap = f"{ip} daddr . meta l4proto . th dport vmap"
    marks = ["mark set mark or 0x4000", "mark set mark xor 0x4000", "mark set 0x1", "ct mark set mark", "mark set ct mark"]
    ends = {
        "filter": [*marks, "accept", "drop", "return", "reject", f"{vmap} @refused"],
        "natdst": [
            *marks,
            "accept",
            "return",
            f"{vmap} @services",
            "meta l4proto . th dport vmap @ports",
            f"meta l4proto tcp dnat to {to_port}:8080",
        ],
        "natsrc": [*marks, "accept", "return", "masquerade", "masquerade fully-random", f"snat to {pool.node[1]}"],
    }
    for name, (type_, hook, priority) in HOOKS.items():
        policy = draw(st.sampled_from(["accept", "accept", "accept", "drop"])) if type_ == "filter" and priority == 0 else "accept"
        lines.append(f" chain {name} {{ type {type_} hook {hook} priority {priority}; policy {policy};")
        if type_ == "filter":
            lines.append("  meta l4proto { icmp, ipv6-icmp } accept")
        choice = ends["filter" if type_ == "filter" else "natsrc" if "post" in name else "natdst"]
        if hook == "prerouting" and type_ == "filter":
            choice = [each for each in choice if each not in ("reject", f"{vmap} @refused")]
        for _ in range(draw(st.integers(0, 4))):
            said = [draw(each) for each in draw(st.lists(st.sampled_from(conditions), max_size=2))]
            rule = " ".join([*said, draw(st.sampled_from(choice))])
            if "tcp d" in rule:  # tcp dport, or dnat of tcp: nft refuses a rule that asks for two protocols
                rule = rule.replace("meta l4proto udp", "ct state new")
            lines.append(f"  {rule}")
        lines.append(" }")
    return "\n".join([*lines, "}"]) + "\n"
